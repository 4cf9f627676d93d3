"""The wheel works if it is installed without extras in an empty virtual environment, and run in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from handlers.contract import document
from tests.support.project import ROOT
from tests.support.service import Start


def test_wheel_serves_in_an_empty_folder(start: Start, checkout: Path, tmp_path: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    build: list[str | Path] = [
        uv,
        "build",
        "--quiet",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "-o",
        tmp_path,
    ]
    subprocess.run([*build, checkout], check=True)
    (wheel,) = tmp_path.glob("tasks_api-*.whl")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    options = ("--quiet", "--python", python)
    install = (uv, "pip", "install", *options)
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements.lock"], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    subprocess.run([uv, "pip", "check", *options], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()

    service = start(folder=empty, command=(str(python.with_name("tasks-api")),))

    assert service.client.post("/api/tasks", json={"title": "a"}).json()["id"] == 1
    assert yaml.safe_load(service.client.get("/openapi.yaml").text)["info"] == document.raw()["info"]
    assert service.client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    for name in ("checks.py", "schemathesis.toml"):
        assert service.client.get(f"/docs/contract/{name}").text == (ROOT / "tests/contract" / name).read_text("utf-8")
    assert service.stop() == 0
    assert service.log() == ""
    command = [python.with_name("tasks-api")]
    for extra, arguments in (
        ("postgresql", ["serve", "--database-url", "postgresql://127.0.0.1/tasks"]),
        ("postgresql", ["copy", "--from", "sqlite:///tasks.db", "--to", "postgresql://127.0.0.1/tasks"]),
        ("rate-limits", ["serve", "--rate-limit", "1/second"]),
        ("metrics", ["serve", "--metrics", "127.0.0.1:9464"]),
    ):
        refused = subprocess.run([*command, *arguments], cwd=empty, capture_output=True, encoding="utf-8", check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert re.fullmatch(rf"\S.* run \S+ -m pip install 'tasks-api\[{extra}\]'\.\n", refused.stderr)
