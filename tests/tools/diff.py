"""Compares the contract with the last released one, and fails where its version does not say what has changed.

Redocly rates the changes; here stands what it does not see.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

CONTRACT = Path("openapi.yaml")
REDOCLY = Path("build/node/node_modules/.bin/redocly")


def main() -> None:
    """Compare with the release that is named, a tag of git or a file, or else with the last tag."""
    base = sys.argv[1] if len(sys.argv) > 1 else _last_tag()
    if not base:
        print("No release has a tag yet, so there is nothing to compare with; name a tag or a file with BASE=...")
        return
    with tempfile.TemporaryDirectory() as folder:
        released = Path(folder, "released.yaml")
        released.write_text(_text(base))
        found = list(faults(yaml.safe_load(released.read_text()), yaml.safe_load(CONTRACT.read_text())))
        rated = _rate(released)
    sys.exit("\n".join(found) or rated)


def _last_tag() -> str:
    tags = ["git", "describe", "--tags", "--abbrev=0", "--match=v[0-9]*"]
    return subprocess.run(tags, capture_output=True, text=True, check=False).stdout.strip()


def _text(base: str) -> str:
    if Path(base).is_file():
        return Path(base).read_text()
    shown = subprocess.run(["git", "show", f"{base}:{CONTRACT}"], capture_output=True, text=True, check=False)
    if shown.returncode:
        sys.exit(f"{base} is neither a file nor a tag with an {CONTRACT}.")
    return shown.stdout


def faults(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yield what the version does not say of the changes that Redocly takes for patches."""
    before, after = old["info"]["version"], new["info"]["version"]
    if new != old and Version(after) <= Version(before):
        yield f"The contract has changed since {before}: raise info.version, which is {after}."
    if Version(after).major <= Version(before).major:
        for change in _breaking(old, new):
            yield f"{change} since {before}, which breaks callers: raise the major version; info.version is {after}."


def _breaking(old: Any, new: Any, path: str = "#") -> Iterator[str]:
    """Yield the breaking changes that Redocly takes for patches: keys, limits of sizes, and defaults."""
    if isinstance(old, list) and isinstance(new, list):
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from _breaking(before, after, f"{path}/{index}")
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return
    for name in old.keys() & new.keys():
        yield from _breaking(old[name], new[name], f"{path}/{name}")
    if new.get("security") and {} not in new["security"] and not old.get("security"):
        yield f"{path}/security asks for a key"
    if "x-max-bytes" in new and new["x-max-bytes"] < old.get("x-max-bytes", 0):
        yield f"{path}/x-max-bytes is smaller"
    if "type" in old and "type" in new and old.get("default") != new.get("default"):
        yield f"{path}/default is another one"


def _rate(released: Path) -> int:
    if not shutil.which("node"):
        print("Not known, since Node is not installed: which other changes are breaking.")
        return "CI" in os.environ
    command = [
        str(REDOCLY),
        "diff",
        str(released),
        str(CONTRACT),
        "--config=tests/redocly.yaml",
        "--check-version",
        "--fail-on=none",
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    main()
