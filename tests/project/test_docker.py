"""The container files: that they agree with the project, the health check, and the proxy's configuration in nginx.

No image is built here. nginx runs with `docs/proxy.conf` but for its port, its `/tmp`, and the two lines that ask the
name server of Docker for the nodes: it is not there, and `resolve` needs nginx 1.27.3, later than that of Debian 13.
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
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from select import select
from typing import Any

import httpx
import pytest
import yaml

from handlers.contract import document as contract
from handlers.contract import problems
from handlers.settings import ServerSettings, variable
from tests.support import wire
from tests.support.project import ROOT, SOURCES, tool
from tests.support.service import Service, Start, run
from tests.support.stores import Store

DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
PROXY = (ROOT / "docs/proxy.conf").read_text()


def instruction(name: str) -> str:
    """Return what the last instruction of a name in the Dockerfile says."""
    return str(re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)[-1]).strip()


def test_variables_are_settings() -> None:
    settings = {variable(name) for name in ServerSettings.model_fields}
    for name in ("Dockerfile", "compose.yaml", ".github/workflows/contract.yml"):
        named = set(re.findall(r"\b(?:TASKS_API|DATABASE)_\w+", (ROOT / name).read_text()))
        assert named
        assert named <= settings


@pytest.mark.slow
def test_commands_are_commands(tmp_path: Path) -> None:
    (entrypoint,) = json.loads(instruction("ENTRYPOINT"))
    assert entrypoint in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for command in (json.loads(instruction("CMD")), SERVICES["migrate"]["command"]):
        assert run(tmp_path, *command, "--help").returncode == 0
    assert "command" not in SERVICES["api"]


def test_image_gets_only_what_the_wheel_is_built_from() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {name for names in re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE, re.MULTILINE) for name in names.split()}

    assert "*" in lines
    assert let_in == copied == {*SOURCES, "requirements.lock"}


def test_image_runs_without_root_and_without_writing() -> None:
    user, _, group = instruction("USER").partition(":")
    assert int(user) > 0
    assert f"--owner={user} --group={group}" in DOCKERFILE
    assert f"sqlite:///{instruction('VOLUME')}/tasks.db" in instruction("ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in instruction("ENV")
    assert SERVICES["api"]["read_only"]


def test_image_serves_nobody_until_there_is_a_key(start: Start, store: Store, tmp_path: Path) -> None:
    set_here = dict(pair.split("=") for pair in re.findall(r"\w+=\S+", instruction("ENV")))
    variables = set_here | {"DATABASE_URL": store.url, "TASKS_API_PORT": "0", "PATH": os.environ["PATH"]}
    refused = run(tmp_path, *json.loads(instruction("CMD")), variables=variables)
    # As the README says: the entry point with other words than `serve`.
    key = run(tmp_path, "key", "new", "app", variables=variables).stdout.strip()
    client = start(variables=variables).client

    assert refused.returncode == 1
    assert "make a key with tasks-api key new NAME" in refused.stderr
    assert client.get("/api/tasks").status_code == 401
    assert client.get("/api/tasks", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_readme_runs_the_image_as_it_is() -> None:
    readme = (ROOT / "docs/containers.md").read_text()
    runs = re.findall(r"docker run [^`\n]*", readme)
    settings = {variable(name) for name in ServerSettings.model_fields}

    assert len(runs) == 3
    assert {path for line in runs for path in re.findall(r"-v \w+:(\S+)", line)} == {instruction("VOLUME")}
    published = {port for line in runs for port in re.findall(r"-p (\S+)", line)}
    assert published == {f"127.0.0.1:8000:{instruction('EXPOSE')}"}
    assert {name for line in runs for name in re.findall(r"-e (\w+)=", line)} == {"TASKS_API_INSECURE_OPEN"} <= settings


def test_nodes_are_told_to_be_open_and_are_not_published() -> None:
    """In one place, which one may take away; test_security.py shows that a key closes them in spite of it."""
    assert SERVICES["api"]["environment"]["TASKS_API_INSECURE_OPEN"] == "true"
    assert (ROOT / "compose.yaml").read_text().count("INSECURE_OPEN") == 1
    assert "ports" not in SERVICES["api"]
    # A key is made by a node, for which the migration is waited.
    assert "docker compose run --rm api key new app" in (ROOT / "compose.yaml").read_text()
    assert SERVICES["api"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def check_health(port: int) -> int:
    """Run the health check of the image against a port, and return its exit status."""
    _, command = instruction("HEALTHCHECK").split(" CMD ")
    python, *arguments = json.loads(command)
    assert python == "python"
    address = f"127.0.0.1:{instruction('EXPOSE')}/"
    assert address in arguments[-1]
    arguments[-1] = arguments[-1].replace(address, f"127.0.0.1:{port}/")
    # A proxy that the environment names is not asked.
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL, timeout=30, check=False
    ).returncode


def test_health_check_finds_a_service(service: Service) -> None:
    assert check_health(httpx.URL(service.url).port or 80) == 0


def test_health_check_finds_a_service_with_keys(start: Start, store: Store, tmp_path: Path) -> None:
    assert run(tmp_path, "key", "new", "app", variables={"DATABASE_URL": store.url}).returncode == 0
    service = start()

    assert service.client.get("/api/tasks").status_code == 401
    assert check_health(httpx.URL(service.url).port or 80) == 0


def test_health_check_finds_a_service_that_is_not_ready(start: Start, store: Store) -> None:
    service = start()
    store.lose()

    assert check_health(httpx.URL(service.url).port or 80) == 1


@pytest.mark.slow
def test_health_check_finds_none() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert check_health(taken.getsockname()[1]) == 1


def test_nodes_trust_the_proxy_alone() -> None:
    address = SERVICES["proxy"]["networks"]["proxy"]["ipv4_address"]
    (addresses,) = COMPOSE["networks"]["proxy"]["ipam"]["config"]

    assert SERVICES["api"]["environment"]["TASKS_API_TRUSTED_PROXIES"] == address
    assert IPv4Address(address) in IPv4Network(addresses["subnet"])
    assert IPv4Address(address) not in IPv4Network(addresses["ip_range"])
    assert IPv4Network(addresses["ip_range"]).subnet_of(IPv4Network(addresses["subnet"]))
    assert set(SERVICES["api"]["networks"]) >= set(SERVICES["proxy"]["networks"])


def test_proxy_alone_is_published_and_on_loopback_alone() -> None:
    listens = re.findall(r"listen (\d+);", PROXY)
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"proxy": [f"127.0.0.1:8000:{port}" for port in listens]}
    assert f"server api:{instruction('EXPOSE')} resolve;" in PROXY
    (mount,) = SERVICES["proxy"]["volumes"]
    assert (ROOT / mount.split(":")[0]).read_text() == PROXY


@pytest.fixture(scope="module")
def nginx() -> str:
    """The path of nginx, which CI must have."""
    # Debian has it where only root looks.
    return str(tool("nginx", "/usr/sbin/nginx"))


def configuration(port: int, nodes: list[str], folder: Path, text: str) -> str:
    """Return the proxy's configuration for a port, with nodes that it need not ask a name server for."""
    servers = " ".join(f"server {node};" for node in nodes)
    text, found = re.subn(r"resolver .*;\n +server api:8000 resolve;", servers, text)
    assert found == 1
    text = re.sub(r"(?m)^( +listen) \d+", rf"\1 127.0.0.1:{port}", text)
    return text.replace("/tmp/", f"{folder}/").replace("/etc/nginx/tls/", f"{folder}/")


@contextmanager
def proxy(nginx: str, nodes: list[str], folder: Path, text: str = PROXY) -> Iterator[httpx.Client]:
    """Run the proxy in front of nodes, and yield a client of it; its log is the file `access`."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, (folder / "access").open("ab") as access:
        port = listener.getsockname()[1]
        (folder / "proxy.conf").write_text(configuration(port, nodes, folder, text))
        process = subprocess.Popen(
            # As root, if root starts it, because another user could not get to the folder.
            [nginx, "-p", folder, "-c", folder / "proxy.conf", "-e", "stderr", "-g", "daemon off; user root;"],
            stdout=access,
            # It takes over a socket that listens already, so no other process can get the port first.
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


def node_of(service: Service) -> str:
    """Return the address of a node as nginx has it."""
    return httpx.URL(service.url).netloc.decode()


@pytest.fixture
def nodes(start: Start) -> list[Service]:
    """Two nodes that share their tasks and trust a proxy on this machine."""
    return [start("--trusted-proxies", "127.0.0.1") for _ in range(2)]


@pytest.fixture
def client(nginx: str, nodes: list[Service], tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the proxy in front of the nodes."""
    with proxy(nginx, [node_of(node) for node in nodes], tmp_path) as client:
        yield client


def test_proxy_passes_calls_on(client: httpx.Client) -> None:
    created = client.post("/api/tasks", json={"title": "a"})

    assert created.status_code == 201
    assert client.get("/api/tasks").json() == [created.json()]
    got = client.get(created.headers["location"])
    assert got.json() == created.json()
    assert client.get("/api/tasks/1", headers={"If-None-Match": got.headers["etag"]}).status_code == 304
    assert client.delete("/api/tasks/1").status_code == 200
    assert client.get("/api/tasks/1").headers["content-type"] == "application/problem+json"


def test_link_has_the_host_that_was_asked_and_no_scheme_that_a_caller_claims(
    client: httpx.Client, nodes: list[Service]
) -> None:
    for title in ("a", "b"):
        client.post("/api/tasks", json={"title": title})

    for host in ("tasks.example.com", "tasks.example.com:8000"):
        headers = {"Host": host, "X-Forwarded-Proto": "https"}
        address, past_the_proxy = (
            asked.get("/api/tasks?limit=1", headers=headers).links["next"]["url"] for asked in (client, nodes[0].client)
        )
        assert address == f"http://{host}/api/tasks?limit=1&after=1"
        assert past_the_proxy == f"https://{host}/api/tasks?limit=1&after=1"


@pytest.mark.slow
def test_proxy_says_for_whom_it_asks(nginx: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as node:
        node.settimeout(30)
        with (
            proxy(nginx, [f"127.0.0.1:{node.getsockname()[1]}"], tmp_path) as client,
            socket.create_connection(("127.0.0.1", client.base_url.port or 80), timeout=30) as caller,
        ):
            caller.sendall(
                b"GET /api/tasks?a=%2F//b HTTP/1.1\r\nHost: tasks.example.com:8000\r\n"
                b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Request-ID: a\r\n"
                b"Connection: close\r\n\r\n"
            )
            connection, _ = node.accept()
            with connection:
                first, *fields = connection.recv(65536).decode().splitlines()

    assert first == "GET /api/tasks?a=%2F//b HTTP/1.1"
    assert sorted(fields) == [
        "",
        "Host: tasks.example.com:8000",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Request-ID: a",
    ]


def test_each_node_answers_and_one_is_enough(nginx: str, nodes: list[Service], tmp_path: Path) -> None:
    first, second = (node_of(node) for node in nodes)
    with proxy(nginx, [first, second], tmp_path) as client:
        for _ in range(10):
            assert client.get("/api/tasks").status_code == 200
        assert nodes[0].stop() == 0
        for count in range(10):
            assert client.post("/api/tasks", json={"title": "a"}).status_code == 201
            assert len(client.get("/api/tasks").json()) == count + 1

    requests = (tmp_path / "access").read_text().splitlines()
    assert len(requests) == 30
    assert {line.split()[-1] for line in requests[:10]} == {first, second}
    assert {line.split()[-1] for line in requests[10:]} == {second}


def test_refusals_are_the_services_own(client: httpx.Client) -> None:
    refusals = {
        400: client.post("/api/tasks", json={"title": ""}),
        413: client.post("/api/tasks", json={"title": "a" * 100_000}),
        414: client.get(f"/api/tasks?after={'1' * 20_000}"),
        431: client.get("/api/tasks", headers={"A": "a" * 20_000}),
    }

    for status, refused in refusals.items():
        assert refused.status_code == status
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["status"] == status
    assert client.get("/api/tasks").json() == []


def test_request_has_one_name_for_the_caller_and_in_both_logs(
    nginx: str, start: Start, store: Store, tmp_path: Path
) -> None:
    service = start("--trusted-proxies", "127.0.0.1")
    with proxy(nginx, [node_of(service)], tmp_path) as client:
        given = client.get("/api/tasks", headers={"X-Request-ID": "given"})
        made = client.get("/api/tasks")
        store.lose()
        failed = client.delete("/api/tasks/1")

    names = [answer.headers["x-request-id"] for answer in (given, made, failed)]
    assert names[0] == "given"
    assert [line.split()[-2] for line in (tmp_path / "access").read_text().splitlines()] == names
    assert failed.status_code == 503
    assert names[2] in service.log()


@pytest.mark.parametrize("path", ["/health/ready", "/health/live", "/health%2Fready", "//health/./ready"])
def test_health_is_not_published(client: httpx.Client, nodes: list[Service], path: str) -> None:
    answer = client.get(path)

    assert nodes[0].client.get("/health/ready").status_code == 200
    assert answer.status_code == 404
    assert_is_the_contracts_own(answer)


def assert_is_the_contracts_own(answer: httpx.Response) -> None:
    """A refusal of the proxy's own is, but for what the service alone knows, word for word the contract's."""
    said = problems.problem(None, answer.status_code).model_dump(exclude_none=True)
    assert answer.json() == said
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    for name, value in contract.constant_headers(None, answer.status_code).items():
        assert answer.headers.get_list(name) == [value]


@pytest.mark.slow
def test_requests_of_one_address_have_a_limit(nginx: str, tmp_path: Path) -> None:
    """Those that are under way; connections that are idle are not counted."""
    limit = int(re.findall(r"limit_conn addresses (\d+);", PROXY)[0])
    with (
        ExitStack() as stack,
        socket.create_server(("127.0.0.1", 0), backlog=2 * limit) as node,
        proxy(nginx, [f"127.0.0.1:{node.getsockname()[1]}"], tmp_path) as client,
    ):
        callers = [stack.enter_context(wire.connect(str(client.base_url))) for _ in range(limit)]
        for caller in callers:
            caller.sendall(b"GET /api/tasks HTTP/1.1\r\nHost: a\r\n\r\n")
            stack.enter_context(node.accept()[0])

        refused = client.get("/api/tasks")

    assert refused.status_code == 429
    assert_is_the_contracts_own(refused)


def test_callers_that_stall_are_cut_off(nginx: str, nodes: list[Service], tmp_path: Path) -> None:
    """After a second here, where the configuration says ten: with the head, byte by byte, and with the body."""
    shortened, found = re.subn(r"(_timeout) 10s;", r"\1 1s;", PROXY)
    assert found == 3
    head = b"POST /api/tasks HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n"

    def stall(url: httpx.URL, first: bytes, rest: bytes) -> bytes:
        with wire.connect(str(url)) as connection:
            connection.sendall(first)
            for byte in rest:
                if select([connection], [], [], 0.1)[0]:
                    break
                connection.sendall(bytes([byte]))
            return wire.read_to_end(connection)

    with proxy(nginx, [node_of(nodes[0])], tmp_path, shortened) as client, ThreadPoolExecutor() as pool:
        slow_head = pool.submit(stall, client.base_url, head[:1], head[1:])
        slow_body = pool.submit(stall, client.base_url, head + b"{", b"")
        received = [slow_head.result(), slow_body.result()]

    assert received == [b"", b""]
    # It was not the service that gave up: no node has heard of them.
    assert [line.split()[-4::3] for line in (tmp_path / "access").read_text().splitlines()] == [["408", "-"]] * 2


def test_proxy_may_end_tls(nginx: str, nodes: list[Service], tmp_path: Path) -> None:
    """With the lines that are commented out, the service knows it, and sends what browsers are to know."""
    tls = re.sub(r"# (?=listen|ssl_)", "", PROXY.replace("        listen 8080;\n", ""))
    assert len(re.findall(r"^ +(?:listen 8443 ssl|ssl_\w+ .*);$", tls, re.MULTILINE)) == 4
    certificate, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=tasks.example.com", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([tool("openssl"), *request, *name, *files], check=True, capture_output=True)

    with proxy(nginx, [node_of(nodes[0])], tmp_path, tls) as plain:
        address = str(plain.base_url).replace("http://", "https://")
        with httpx.Client(base_url=address, verify=ssl.create_default_context(cafile=certificate)) as client:
            for title in "ab":
                client.post("/api/tasks", json={"title": title})
            page = client.get("/api/tasks?limit=1")

    assert page.links["next"]["url"].startswith("https://")
    assert page.headers["strict-transport-security"] == "max-age=31536000"
