"""The container files match the project; the health check and the proxy's nginx configuration work.

The tests build no image. They run nginx with `docs/proxy.conf`, except for its port, its paths, and the two lines that
look up the nodes in Docker's DNS. The tests have no such DNS server, and the parameter `resolve` in these lines needs
nginx 1.27.3, which is newer than the nginx of Debian 13.
"""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from select import select
from typing import Any

import httpx
import pytest
import yaml
from playwright.sync_api import Browser, expect

from handlers.contract import document, problems
from handlers.settings import ServerSettings, variable
from tests.support import wire
from tests.support.pages import block
from tests.support.project import ROOT, SOURCES, tool
from tests.support.service import Service, Start, run
from tests.support.stores import Store

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
PROXY = (ROOT / "docs/proxy.conf").read_text("utf-8")


def instruction(name: str) -> str:
    """Return the arguments of the last instruction with this name in the Dockerfile."""
    return str(re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)[-1]).strip()


def test_environment_variables_are_settings() -> None:
    settings = {variable(name) for name in ServerSettings.model_fields}
    for name in ("Dockerfile", "compose.yaml", ".github/workflows/contract.yml"):
        variables = set(re.findall(r"\b(?:TASKS_API|DATABASE)_\w+", (ROOT / name).read_text("utf-8")))
        assert variables
        assert variables <= settings


@pytest.mark.slow
def test_commands_exist(tmp_path: Path) -> None:
    (entrypoint,) = json.loads(instruction("ENTRYPOINT"))
    assert entrypoint in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    for command in (json.loads(instruction("CMD")), SERVICES["migrate"]["command"]):
        assert run(tmp_path, *command, "--help").returncode == 0
    assert "command" not in SERVICES["api"]


def test_image_gets_only_the_sources_of_the_wheel() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    included = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for names in re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE, re.MULTILINE) for name in names.split()}

    assert "*" in lines
    assert included == copied == {*SOURCES, "requirements-all.lock"}


def test_image_runs_without_root_and_without_writing() -> None:
    user, _, group = instruction("USER").partition(":")
    assert int(user) > 0
    assert f"--owner={user} --group={group}" in DOCKERFILE
    assert f"sqlite:///{instruction('VOLUME')}/tasks.db" in instruction("ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in instruction("ENV")
    assert SERVICES["api"]["read_only"]


def test_image_serves_nobody_until_there_is_a_key(start: Start, store: Store, tmp_path: Path) -> None:
    image_environment = dict(pair.split("=") for pair in re.findall(r"\w+=\S+", instruction("ENV")))
    variables = image_environment | {"DATABASE_URL": store.url, "TASKS_API_PORT": "0", "PATH": os.environ["PATH"]}
    refused = run(tmp_path, *json.loads(instruction("CMD")), variables=variables)
    # Run the entry point with a command other than `serve`, as the README does.
    key = run(tmp_path, "key", "new", "app", variables=variables).stdout.strip()
    client = start(variables=variables).client

    assert refused.returncode == 1
    assert "create an API key with tasks-api key new NAME" in refused.stderr
    assert client.get("/api/tasks").status_code == 401
    assert client.get("/api/tasks", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_commands_of_the_documentation_match_the_image() -> None:
    page = (ROOT / "docs/containers.md").read_text("utf-8")
    commands = re.findall(r"docker run [^`\n]*", page)
    settings = {variable(name) for name in ServerSettings.model_fields}

    assert len(commands) == 3
    assert {path for line in commands for path in re.findall(r"-v \w+:(\S+)", line)} == {instruction("VOLUME")}
    published = {port for line in commands for port in re.findall(r"-p (\S+)", line)}
    assert published == {f"127.0.0.1:8000:{instruction('EXPOSE')}"}
    assert (
        {name for line in commands for name in re.findall(r"-e (\w+)=", line)}
        == {"TASKS_API_INSECURE_OPEN"}
        <= settings
    )


def test_nodes_are_open_and_not_published() -> None:
    """One line of compose.yaml lets the nodes serve without an API key; test_security.py tests a service with a key."""
    assert SERVICES["api"]["environment"]["TASKS_API_INSECURE_OPEN"] == "true"
    assert (ROOT / "compose.yaml").read_text("utf-8").count("INSECURE_OPEN") == 1
    assert "ports" not in SERVICES["api"]
    # The documented command creates an API key on a node, after the migration.
    assert "docker compose run --rm api key new app" in (ROOT / "compose.yaml").read_text("utf-8")
    assert SERVICES["api"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def check_health(url: httpx.URL, host: str = "", **variables: str) -> int:
    """Run the health check of the image in the environment of a service, and return its exit status."""
    _, command = instruction("HEALTHCHECK").split(" CMD ")
    python, *arguments = json.loads(command)
    assert python == "python"
    # The health check must ignore a proxy that is set in the environment.
    environment = {
        "TASKS_API_HOST": host or url.host,
        "TASKS_API_PORT": str(url.port),
        "http_proxy": "http://127.0.0.1:9",
        **variables,
    }
    return subprocess.run(
        [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL, timeout=30, check=False
    ).returncode


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "127.0.0.2", "localhost", "::", "::1"])
def test_health_check_succeeds_at_the_configured_address(start: Start, host: str) -> None:
    service = start("--host", host, "--insecure-open")

    assert check_health(httpx.URL(service.url), host) == 0


KUBERNETES_PORT = "tcp://10.96.14.3:8000"


@pytest.mark.parametrize(
    "variables",
    [
        {"TASKS_API_PORT": KUBERNETES_PORT, "PORT": "{port}"},
        {"TASKS_API_PORT": " {port}\r", "PORT": "9"},
        {"TASKS_API_PORT": "", "PORT": "{port}"},
        {"TASKS_API_HOST": "127.0.0.1\r"},
    ],
    ids=str,
)
def test_health_check_finds_the_port_as_the_service_does(start: Start, variables: dict[str, str]) -> None:
    url = httpx.URL(start().url)

    assert check_health(url, **{name: value.format(port=url.port) for name, value in variables.items()}) == 0


def test_image_leaves_the_port_to_the_platform() -> None:
    """A port in the image would take precedence over PORT. Without any, the service and the health check use 8000."""
    assert "PORT" not in instruction("ENV")
    assert str(ServerSettings.model_fields["port"].default) == instruction("EXPOSE")
    assert f"'{instruction('EXPOSE')}')" in instruction("HEALTHCHECK")
    assert set(re.findall(r"TASKS_API_\w+", instruction("HEALTHCHECK"))) == {"TASKS_API_HOST", "TASKS_API_PORT"}


def test_health_check_needs_no_key(start: Start, store: Store, tmp_path: Path) -> None:
    assert run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url}).returncode == 0
    service = start()

    assert service.client.get("/api/tasks").status_code == 401
    assert check_health(httpx.URL(service.url)) == 0


def test_health_check_fails_if_the_service_is_not_ready(start: Start, store: Store) -> None:
    service = start()
    store.make_unreachable()

    assert check_health(httpx.URL(service.url)) == 1


@pytest.mark.slow
def test_health_check_fails_without_a_service() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert check_health(httpx.URL(f"http://127.0.0.1:{unused.getsockname()[1]}")) == 1


def test_nodes_trust_only_the_proxy() -> None:
    address = SERVICES["proxy"]["networks"]["proxy"]["ipv4_address"]
    (address_pool,) = COMPOSE["networks"]["proxy"]["ipam"]["config"]

    assert SERVICES["api"]["environment"]["TASKS_API_TRUSTED_PROXIES"] == address
    assert IPv4Address(address) in IPv4Network(address_pool["subnet"])
    assert IPv4Address(address) not in IPv4Network(address_pool["ip_range"])
    assert IPv4Network(address_pool["ip_range"]).subnet_of(IPv4Network(address_pool["subnet"]))
    assert set(SERVICES["api"]["networks"]) >= set(SERVICES["proxy"]["networks"])


def test_only_the_proxy_is_published_and_only_on_loopback() -> None:
    listens = re.findall(r"listen (\d+);", PROXY)
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"proxy": [f"127.0.0.1:8000:{port}" for port in listens]}
    assert f"server api:{instruction('EXPOSE')} resolve;" in PROXY
    (mount,) = SERVICES["proxy"]["volumes"]
    assert (ROOT / mount.split(":")[0]).read_text("utf-8") == PROXY


@pytest.fixture(scope="module")
def nginx() -> str:
    """Return the path of the program nginx, which must be installed in CI."""
    # Debian installs nginx in a folder that is only on root's PATH.
    return str(tool("nginx", "/usr/sbin/nginx"))


def configuration(port: int, nodes: list[str], folder: Path, text: str) -> str:
    """Return the nginx configuration with the given port, and with the addresses of the nodes instead of DNS names."""
    servers = " ".join(f"server {node};" for node in nodes)
    text, count = re.subn(r"resolver .*;\n +server api:8000 resolve;", servers, text)
    assert count == 1
    text = re.sub(r"(?m)^( +listen) \d+", rf"\1 127.0.0.1:{port}", text)
    return text.replace("/tmp/", f"{folder}/").replace("/etc/nginx/tls/", f"{folder}/")


@contextmanager
def proxy(nginx: str, nodes: list[str], folder: Path, text: str = PROXY) -> Iterator[httpx.Client]:
    """Run the proxy in front of nodes, and yield a client of the proxy; its access log is the file `access`."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, (folder / "access").open("ab") as access:
        # A worker of nginx that finds no connection, because another one has taken it, must not wait for the next one.
        listener.setblocking(False)
        port = listener.getsockname()[1]
        (folder / "proxy.conf").write_text(configuration(port, nodes, folder, text), "utf-8")
        process = subprocess.Popen(
            # If root runs the tests, nginx's workers run as root too, because another user could not read the folder.
            [nginx, "-p", folder, "-c", folder / "proxy.conf", "-e", "stderr", "-g", "daemon off; user root;"],
            stdout=access,
            # nginx inherits a socket that already listens, so that no other process can take the port.
            env=os.environ | {"NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert process.returncode == 0


def address_of(service: Service) -> str:
    """Return the host and port of a node."""
    return httpx.URL(service.url).netloc.decode()


@pytest.fixture
def nodes(start: Start) -> list[Service]:
    """Start two nodes that share a database and trust a proxy on loopback."""
    return [start("--trusted-proxies", "127.0.0.1") for _ in range(2)]


@pytest.fixture
def client(nginx: str, nodes: list[Service], tmp_path: Path) -> Iterator[httpx.Client]:
    """Yield a client of the proxy in front of both nodes."""
    with proxy(nginx, [address_of(node) for node in nodes], tmp_path) as client:
        yield client


def test_proxy_forwards_requests(client: httpx.Client) -> None:
    created = client.post("/api/tasks", json={"title": "a"})

    assert created.status_code == 201
    assert client.get("/api/tasks").json() == [created.json()]
    got = client.get(created.headers["location"])
    assert got.json() == created.json()
    assert client.get("/api/tasks/1", headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    assert client.delete("/api/tasks/1").status_code == 200
    assert client.get("/api/tasks/1").headers["content-type"] == "application/problem+json"


def test_proxy_leaves_entity_tags_as_they_are(client: httpx.Client) -> None:
    created = client.post("/api/tasks", json={"title": "a" * 255, "description": "b" * 4000})
    path, page = created.headers["location"], client.get("/api/tasks")
    replaced = client.put(path, json={"title": "b"}, headers={"If-Match": client.get(path).headers["etag"]})

    assert replaced.status_code == 200
    assert (page.headers["content-encoding"], page.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert page.headers["etag"].endswith('-gzip"')
    assert page.json() == [created.json()]


def test_client_learns_that_a_compressing_proxy_weakens_entity_tags(nginx: str, start: Start, tmp_path: Path) -> None:
    """nginx turns `"1-…"` into `W/"1-…"` when it compresses a response, but leaves the responses 304 and 412 alone."""
    compressing = "gzip on; gzip_types application/json; gzip_proxied any; gzip_min_length 20;"
    text = PROXY.replace("gzip off;", compressing)
    with proxy(nginx, [address_of(start())], tmp_path, text) as client:
        path = client.post("/api/tasks", json={"title": "a" * 255, "description": "b" * 4000}).headers["location"]
        got, page = client.get(path), client.get("/api/tasks")
        tag, own = got.headers["etag"], got.headers["etag"].removeprefix("W/")
        cached = client.get(path, headers={"If-None-Match": tag})
        refused = client.delete(path, headers={"If-Match": tag})
        page_cached = client.get("/api/tasks", headers={"If-None-Match": page.headers["etag"]})
        deleted = client.delete(path, headers={"If-Match": own})

    assert (tag, got.headers["content-encoding"]) == (f"W/{own}", "gzip")
    assert (cached.status_code, cached.headers["etag"]) == (304, own)
    assert (refused.status_code, "altered by a proxy" in refused.json()["detail"]) == (412, True)
    # The service has compressed the page itself, so its tag is strong.
    assert (page.headers["etag"][0], page_cached.status_code, deleted.status_code) == ('"', 304, 200)


def test_link_has_the_host_of_the_request_but_not_a_scheme_claimed_by_the_client(
    client: httpx.Client, nodes: list[Service]
) -> None:
    for title in ("a", "b"):
        client.post("/api/tasks", json={"title": title})

    for host in ("tasks.example.com", "tasks.example.com:8000"):
        headers = {"Host": host, "X-Forwarded-Proto": "https"}
        through_proxy, directly = (
            http.get("/api/tasks?limit=1", headers=headers).links["next"]["url"] for http in (client, nodes[0].client)
        )
        assert through_proxy == f"http://{host}/api/tasks?limit=1&after=1"
        assert directly == f"https://{host}/api/tasks?limit=1&after=1"


@pytest.mark.slow
def test_proxy_forwards_the_address_of_the_client(nginx: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.settimeout(30)
        with (
            proxy(nginx, [f"127.0.0.1:{node.getsockname()[1]}"], tmp_path) as client,
            socket.create_connection(("127.0.0.1", client.base_url.port or 80), timeout=30) as client_socket,
        ):
            client_socket.sendall(
                b"GET /api/tasks?a=%2F//b HTTP/1.1\r\nHost: tasks.example.com:8000\r\n"
                b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Request-ID: a\r\n"
                b"Connection: close\r\n\r\n"
            )
            connection, _ = node.accept()
            with connection:
                request_line, *fields = connection.recv(65536).decode().splitlines()

    assert request_line == "GET /api/tasks?a=%2F//b HTTP/1.1"
    assert sorted(fields) == [
        "",
        "Host: tasks.example.com:8000",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Request-ID: a",
    ]


def test_proxy_uses_every_node_and_survives_the_loss_of_one(nginx: str, nodes: list[Service], tmp_path: Path) -> None:
    first, second = (address_of(node) for node in nodes)
    with proxy(nginx, [first, second], tmp_path) as client:
        for _ in range(10):
            assert client.get("/api/tasks").status_code == 200
        assert nodes[0].stop() == 0
        for count in range(10):
            assert client.post("/api/tasks", json={"title": "a"}).status_code == 201
            assert len(client.get("/api/tasks").json()) == count + 1

    requests = (tmp_path / "access").read_text("utf-8").splitlines()
    assert len(requests) == 30
    assert {line.split()[-1] for line in requests[:10]} == {first, second}
    assert {line.split()[-1] for line in requests[10:]} == {second}


def test_proxy_forwards_the_errors_of_the_service(client: httpx.Client) -> None:
    errors = {
        400: client.post("/api/tasks", json={"title": ""}),
        413: client.post("/api/tasks", json={"title": "a" * 100_000}),
        414: client.get(f"/api/tasks?after={'1' * 20_000}"),
        431: client.get("/api/tasks", headers={"A": "a" * 20_000}),
    }

    for status, error in errors.items():
        assert error.status_code == status
        assert error.headers["content-type"] == "application/problem+json"
        assert error.json()["status"] == status
    assert client.get("/api/tasks").json() == []


def test_request_has_the_same_id_for_the_client_and_in_both_logs(
    nginx: str, start: Start, store: Store, tmp_path: Path
) -> None:
    service = start("--trusted-proxies", "127.0.0.1")
    with proxy(nginx, [address_of(service)], tmp_path) as client:
        given = client.get("/api/tasks", headers={"X-Request-ID": "given"})
        generated = client.get("/api/tasks")
        store.make_unreachable()
        failed = client.delete("/api/tasks/1")

    ids = [response.headers["x-request-id"] for response in (given, generated, failed)]
    assert ids[0] == "given"
    assert [line.split()[-2] for line in (tmp_path / "access").read_text("utf-8").splitlines()] == ids
    assert failed.status_code == 503
    assert ids[2] in service.log()


@pytest.mark.parametrize("path", ["/health/ready", "/health/live", "/health%2Fready", "//health/./ready"])
def test_health_is_not_published(client: httpx.Client, nodes: list[Service], path: str) -> None:
    response = client.get(path)

    assert nodes[0].client.get("/health/ready").status_code == 200
    assert response.status_code == 404
    assert_is_as_in_the_contract(response)


def assert_is_as_in_the_contract(response: httpx.Response) -> None:
    """Assert that an error of the proxy itself has the body and the constant headers of the contract."""
    problem = problems.problem(None, response.status_code)
    assert response.json() == problem
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    for name, value in document.constant_headers(None, response.status_code).items():
        assert response.headers.get_list(name) == [value]


@pytest.mark.slow
def test_requests_of_one_address_have_a_limit(nginx: str, tmp_path: Path) -> None:
    """The limit counts only requests in progress, not idle connections."""
    limit = int(re.findall(r"limit_conn addresses (\d+);", PROXY)[0])
    with (
        ExitStack() as stack,
        socket.create_server(("127.0.0.1", 0), backlog=2 * limit) as node,
        proxy(nginx, [f"127.0.0.1:{node.getsockname()[1]}"], tmp_path) as client,
    ):
        clients = [stack.enter_context(wire.connect(str(client.base_url))) for _ in range(limit)]
        for waiting in clients:
            waiting.sendall(b"GET /api/tasks HTTP/1.1\r\nHost: a\r\n\r\n")
            stack.enter_context(node.accept()[0])

        refused = client.get("/api/tasks")

    assert refused.status_code == 429
    assert_is_as_in_the_contract(refused)


def test_stalled_clients_are_disconnected(nginx: str, nodes: list[Service], tmp_path: Path) -> None:
    """Both a slow head, sent byte by byte, and an incomplete body time out after one second (by default, ten)."""
    shortened, count = re.subn(r"(_timeout) 10s;", r"\1 1s;", PROXY)
    assert count == 3
    head = b"POST /api/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"

    def stall(url: httpx.URL, first: bytes, rest: bytes) -> bytes:
        # If a byte arrives after the proxy has closed the connection, the proxy resets it.
        with wire.connect(str(url)) as connection, suppress(ConnectionError):
            connection.sendall(first)
            for byte in rest:
                if select([connection], [], [], 0.1)[0]:
                    break
                connection.sendall(bytes([byte]))
            return wire.read_to_end(connection)
        return b""

    with proxy(nginx, [address_of(nodes[0])], tmp_path, shortened) as client, ThreadPoolExecutor() as pool:
        slow_head = pool.submit(stall, client.base_url, head[:1], head[1:])
        slow_body = pool.submit(stall, client.base_url, head + b"{", b"")
        received = [slow_head.result(), slow_body.result()]

    assert received == [b"", b""]
    # The access log contains the status 408 but no address of a node: the proxy timed out, and no node got a request.
    assert [line.split()[-4::3] for line in (tmp_path / "access").read_text("utf-8").splitlines()] == [["408", "-"]] * 2


def test_proxy_terminates_tls(nginx: str, nodes: list[Service], tmp_path: Path) -> None:
    """If the commented-out lines are enabled, the service sends `https` links and Strict-Transport-Security."""
    tls = re.sub(r"# (?=listen|ssl_)", "", PROXY.replace("        listen 8080;\n", ""))
    assert len(re.findall(r"^ +(?:listen 8443 ssl|ssl_\w+ .*);$", tls, re.MULTILINE)) == 4
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=tasks.example.com", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([tool("openssl"), *request, *name, *files], check=True, capture_output=True)

    with proxy(nginx, [address_of(nodes[0])], tmp_path, tls) as plain:
        address = str(plain.base_url).replace("http://", "https://")
        with httpx.Client(base_url=address, verify=ssl.create_default_context(cafile=certificate)) as client:
            for title in "ab":
                client.post("/api/tasks", json={"title": title})
            page = client.get("/api/tasks?limit=1")

    assert page.links["next"]["url"].startswith("https://")
    assert page.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("public_url", ["", "https://tasks.example.com/tasks-service"])
def test_service_works_under_a_path_prefix(
    nginx: str, start: Start, browser: Browser, tmp_path: Path, public_url: str
) -> None:
    """The page even works where the public URL does not lead to the service."""
    text = PROXY
    changes = re.findall(r"(?m)^-(.*)\n\+(.*)$", block("docs/operations.md", "diff"))
    assert len(changes) == 3
    for removed, added in changes:
        assert text.count(f"\n{removed}\n") == 1
        text = text.replace(f"\n{removed}\n", f"\n{added}\n")
    errors: list[str] = []
    urls: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: urls.append(request.url))

    with proxy(nginx, [address_of(start("--public-url", public_url))], tmp_path, text) as client:
        origin = str(client.base_url).rstrip("/")
        prefix = f"{origin}/tasks-service"
        page.goto(f"{prefix}/docs/")
        assert page.url == f"{prefix}/docs"
        page.goto(f"{prefix}/")
        assert page.url == f"{prefix}/docs"
        operation = page.locator("#operations-Tasks-createTask")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".live-responses-table tbody .response-col_status")).to_contain_text("201")
        page.close()
        created = client.post("/tasks-service/api/tasks", json={"title": "b"})
        listed = client.get("/tasks-service/api/tasks?limit=1")
        contract = client.get("/tasks-service/openapi.json").json()
        hidden = client.get("/tasks-service/health/ready")

    assert errors == []
    assert [url for url in urls if not url.startswith((f"{prefix}/", "data:"))] == []
    assert created.headers["location"] == f"{public_url}/api/tasks/2"
    assert listed.links["next"]["url"] == f"{public_url or origin}/api/tasks?limit=1&after=1"
    assert contract["servers"][0]["url"] == (public_url or origin)
    assert hidden.status_code == 404
