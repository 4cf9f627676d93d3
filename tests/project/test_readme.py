"""The calls and recipes in the README and in docs/ work for a reader who follows them."""

import os
import re
import subprocess
from pathlib import Path

from tests.support.calls import bearer, wait_for
from tests.support.pages import assert_calls_give_the_documented_responses, block, text
from tests.support.project import COMMAND, ROOT
from tests.support.service import Service, Start, environment
from tests.support.stores import Store


def run_block(page: str, after: str, service: Service) -> str:
    """Run the shell commands that follow the words `after` on a page against a service, and return their output."""
    commands = block(page, "sh", after).replace("http://127.0.0.1:8000", service.url)
    return subprocess.run(["bash", "-ec", commands], capture_output=True, encoding="utf-8", check=True).stdout


def test_calls_get_the_documented_responses(service: Service) -> None:
    assert_calls_give_the_documented_responses(text("README.md"), service.url)


def test_refused_calls_give_the_documented_responses(service: Service) -> None:
    assert_calls_give_the_documented_responses(text("docs/api.md"), service.url)


def test_conditional_requests_work_as_documented(service: Service) -> None:
    for title in ("a", "b"):
        service.client.post("/api/tasks", json={"title": title})

    changed = run_block("docs/api.md", "## How do I avoid overwriting", service)
    unchanged = run_block("docs/api.md", "## How do I avoid downloading", service)

    assert '"title":"Mine"' in changed
    assert '"status":412' in changed
    assert unchanged.startswith("HTTP/1.1 304 Not Modified")
    assert service.client.get("/api/tasks/2").json()["title"] == "Mine"


def test_retried_post_works_as_documented(service: Service) -> None:
    first, second = (run_block("docs/api.md", "## How do I retry a POST safely?", service) for _ in range(2))

    assert first.startswith("HTTP/1.1 201 Created")
    assert "Idempotency-Replayed" not in first
    assert "Idempotency-Replayed: true" in second
    assert [task["title"] for task in service.client.get("/api/tasks").json()] == ["Once"]


def test_keys_are_created_and_revoked_as_documented(start: Start, store: Store, tmp_path: Path) -> None:
    client = start().client
    commands = block("docs/keys.md", "sh").replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/"))
    *_, revoke = commands.splitlines()
    shell = ["bash", "-ec", commands.replace(revoke, "echo $key")]
    path = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
    variables = environment({"DATABASE_URL": store.url, "PATH": path})

    created = subprocess.run(
        shell, env=variables, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True
    ).stdout
    listed, key = created.removeprefix("[]").splitlines()
    wait_for(client, 401)
    with_key = client.get("/api/tasks", headers=bearer(key))
    subprocess.run(["bash", "-ec", revoke], env=variables, cwd=tmp_path, capture_output=True, check=True)
    wait_for(client, 401, headers=bearer(key))

    assert listed.startswith("app  ")
    assert with_key.json() == []
    # After the last key is revoked, calls are still refused, and the documentation and health probes still need no key.
    assert client.get("/api/tasks").status_code == 401
    assert [client.get(path).status_code for path in ("/docs", "/openapi.yaml", "/health/ready")] == [200] * 3


def test_documented_proxy_timeout_is_in_proxy_conf() -> None:
    (line,) = re.findall(r"`(client_header_timeout \w+;)`", text("docs/operations.md"))

    assert f" {line}\n" in (ROOT / "docs/proxy.conf").read_text("utf-8")
