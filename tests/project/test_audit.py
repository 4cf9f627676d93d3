"""`make audit`: what pip-audit finds is a failure, and that it reaches no database is none, but is said."""

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

PACKAGES = re.findall(r"^([a-z0-9-]+)[\[=]", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
# As https://ossf.github.io/osv-schema has it.
ADVISORY = {
    "id": "PYSEC-1",
    "aliases": ["CVE-1"],
    "summary": "It does what it should not.",
    "affected": [
        {
            "package": {"name": "click", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999"}]}],
        }
    ],
}


@contextmanager
def database(**known: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Run a database like OSV's, and yield its address and the packages that it was asked about."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            asked.append(name)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": [known[name]]} if name in known else {}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run what `make audit` runs, where nothing outside can be reached."""
    unreachable = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "tests.tools.audit", *arguments],
        cwd=ROOT,
        env=os.environ | unreachable,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_package_is_audited() -> None:
    with database() as (url, asked):
        ended = audit(f"--osv-url={url}")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"OSV was asked about {len(asked)} packages of requirements.lock.\n"
    # But for those of another system.
    assert set(asked) <= set(PACKAGES)
    assert {"click", "connexion", "peewee", "uvicorn"} <= set(asked)


@pytest.mark.slow
def test_finding_is_a_failure() -> None:
    with database(click=ADVISORY) as (url, _):
        ended = audit(f"--osv-url={url}")

    assert ended.returncode == 1
    assert re.fullmatch(r"click [0-9.]+ has PYSEC-1, CVE-1: mended in 9999\.\n", ended.stderr)


@pytest.mark.slow
def test_database_out_of_reach_is_said_and_no_failure() -> None:
    ended = audit()

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Nothing was audited: no database of advisories can be reached")
    assert ended.stdout.count("\n") == 1
