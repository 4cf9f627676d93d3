"""Looks for known vulnerabilities in what is installed with the service: `make audit`.

pip-audit fails alike where it finds something and where it reaches no database of advisories, and takes a mirror of
PyPI that has none for one that knows of no vulnerability. Here the first alone is a failure, and the others are said.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = "requirements.lock"
COMMAND = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", LOCK, "--require-hashes", "--disable-pip"]
DATABASES = {"pypi": "PyPI", "osv": "OSV"}


def main() -> None:
    """Ask the first database that can be reached; further arguments are those of pip-audit."""
    collected = _audit("--dry-run")
    if collected.returncode:
        sys.exit(f"{LOCK} cannot be audited: {collected.stderr}")
    for service, name in DATABASES.items():
        said = _audit(f"--vulnerability-service={service}", "--format=json", *sys.argv[1:]).stdout
        packages: list[dict[str, Any]] = json.loads(said)["dependencies"] if said else []
        audited = [package for package in packages if "vulns" in package]
        if audited:
            if unknown := ", ".join(package["name"] for package in packages if "vulns" not in package):
                print(f"{name} does not know, so these were not audited: {unknown}.")
            print(f"{name} was asked about {len(audited)} packages of {LOCK}.")
            sys.exit("\n".join(_findings(audited)) or None)
    print("Nothing was audited: no database of advisories can be reached, neither", " nor ".join(DATABASES.values()))


def _audit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--progress-spinner=off", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _findings(packages: list[dict[str, Any]]) -> list[str]:
    return [
        f"{package['name']} {package['version']} has {', '.join((found['id'], *found['aliases']))}: "
        + (f"mended in {', '.join(found['fix_versions'])}." if found["fix_versions"] else "not mended yet.")
        for package in packages
        for found in package["vulns"]
    ]


if __name__ == "__main__":
    main()
