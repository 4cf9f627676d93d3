"""Compare the published contract with its last release, and fail if its version does not reflect the changes.

Redocly rates most changes as major, minor or patch. This script also rates the changes that Redocly misses.
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

from handlers.contract import document, standard
from handlers.contract.standard import merge

CONTRACT = Path("openapi.yaml")
REDOCLY = Path("build/node/node_modules/.bin/redocly")


def main() -> None:
    """Compare the contract with a release, which is given as a Git tag or a file; the default is the last tag."""
    base = sys.argv[1] if len(sys.argv) > 1 else _last_tag()
    if not base:
        print("No release has a tag yet, so there is nothing to compare with. Give a tag or a file with BASE=...")
        return
    with tempfile.TemporaryDirectory() as folder:
        published = merge(yaml.safe_load(CONTRACT.read_text("utf-8")), standard.PATH.read_bytes())
        released = merge(yaml.safe_load(_text(base)), _standard_parts(base))
        errors = list(version_errors(released, published))
        allow_growth(released, published)
        files = [Path(folder, name) for name in ("released.yaml", "published.yaml")]
        for file, contract in zip(files, (released, published), strict=True):
            file.write_bytes(document.to_yaml(contract))
        status = _run_redocly(*files)
    sys.exit("\n".join(errors) or status)


def _last_tag() -> str:
    tags = ["git", "describe", "--tags", "--abbrev=0", "--match=v[0-9]*"]
    return subprocess.run(tags, capture_output=True, encoding="utf-8", check=False).stdout.strip()


def _text(base: str) -> str:
    if Path(base).is_file():
        return Path(base).read_text("utf-8")
    shown = subprocess.run(["git", "show", f"{base}:{CONTRACT}"], capture_output=True, encoding="utf-8", check=False)
    if shown.returncode:
        sys.exit(f"{base} is neither a file nor a tag with an {CONTRACT}.")
    return shown.stdout


def _standard_parts(base: str) -> bytes:
    """Return the standard parts of a release, or those of today if `base` is a file or had none."""
    path = standard.PATH.relative_to(Path(__file__).parents[2])
    shown = subprocess.run(["git", "show", f"{base}:{path}"], capture_output=True, check=False)
    return standard.PATH.read_bytes() if shown.returncode else shown.stdout


def version_errors(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each change that Redocly misses and that the new version does not reflect."""
    before, after = old["info"]["version"], new["info"]["version"]
    if new != old and Version(after) <= Version(before):
        yield f"The contract has changed since {before}: raise info.version, which is {after}."
    if Version(after).major <= Version(before).major:
        for change in _breaking(old, new):
            yield f"{change} since {before}, which breaks clients: raise the major version; info.version is {after}."


def _breaking(old: Any, new: Any, path: str = "#") -> Iterator[str]:
    """Yield the breaking changes that Redocly rates as patches: required keys, size limits and defaults."""
    if isinstance(old, list) and isinstance(new, list):
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from _breaking(before, after, f"{path}/{index}")
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return
    for name in old.keys() & new.keys():
        yield from _breaking(old[name], new[name], f"{path}/{name}")
    if new.get("security") and {} not in new["security"] and not old.get("security"):
        yield f"{path}/security requires a key"
    if "x-max-bytes" in new and new["x-max-bytes"] < old.get("x-max-bytes", 0):
        yield f"{path}/x-max-bytes is smaller"
    if "type" in old and "type" in new and old.get("default") != new.get("default"):
        yield f"{path}/default has changed"


def allow_growth(old: Any, new: Any) -> None:
    """Raise `maxProperties` of closed objects in `old` to that in `new`.

    Redocly rates it as major, but as minor the property that was added to the object.
    """
    if isinstance(old, list) and isinstance(new, list):
        for before, after in zip(old, new, strict=False):
            allow_growth(before, after)
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() & new.keys():
            allow_growth(old[name], new[name])
        if old.get("additionalProperties") is new.get("additionalProperties") is False and "maxProperties" in old:
            old["maxProperties"] = max(old["maxProperties"], new.get("maxProperties", 0))


def _run_redocly(released: Path, published: Path) -> int:
    if not shutil.which("node"):
        print("Node is not installed, so other breaking changes were not looked for.")
        return "CI" in os.environ
    command = [
        str(REDOCLY),
        "diff",
        str(released),
        str(published),
        "--config=tests/redocly.yaml",
        "--check-version",
        "--fail-on=none",
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    main()
