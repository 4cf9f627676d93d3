"""`make audit` fails if it finds a vulnerability, but only prints a message if it reaches no advisory database."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.support.project import ROOT

PACKAGES = re.findall(r"^([a-z0-9-]+)[\[=]", (ROOT / "requirements-all.lock").read_text("utf-8"), re.MULTILINE)
# An advisory in the format of https://ossf.github.io/osv-schema.
ADVISORY = {
    "id": "PYSEC-1",
    "aliases": ["CVE-1"],
    "summary": "A vulnerability.",
    "affected": [
        {
            "package": {"name": "click", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999"}]}],
        }
    ],
}


@contextmanager
def advisory_database(**advisories: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Run an advisory database with OSV's API; yield its URL and the list of the packages that a client queries."""
    queried = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            queried.append(name)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": [advisories[name]]} if name in advisories else {}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", queried
        server.shutdown()


def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command of `make audit` without access to the internet."""
    unreachable = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "tests.tools.audit", *arguments],
        cwd=ROOT,
        env=os.environ | unreachable,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.slow
def test_every_package_is_audited() -> None:
    with advisory_database() as (url, queried):
        completed = audit(f"--osv-url={url}")

    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout == f"Audited {len(queried)} packages of requirements-all.lock with the advisories of OSV.\n"
    # Some packages are not queried, because they are for other platforms.
    assert set(queried) <= set(PACKAGES)
    assert {"click", "connexion", "peewee", "uvicorn"} <= set(queried)


@pytest.mark.slow
def test_finding_is_a_failure() -> None:
    with advisory_database(click=ADVISORY) as (url, _):
        completed = audit(f"--osv-url={url}")

    assert completed.returncode == 1
    assert re.fullmatch(r"click [0-9.]+ has PYSEC-1, CVE-1: fixed in 9999\.\n", completed.stderr)


@pytest.mark.slow
def test_unreachable_database_is_reported_but_is_no_failure() -> None:
    completed = audit()

    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout.startswith("Nothing was audited: no advisory database is reachable")
    assert completed.stdout.count("\n") == 1
