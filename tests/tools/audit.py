"""Audit the dependencies of the service for known vulnerabilities: `make audit`.

pip-audit exits with the same status whether it finds a vulnerability or cannot reach an advisory database. If a mirror
of PyPI has no advisories, pip-audit reports no vulnerabilities. This script fails only if there is a vulnerability; in
the other cases, it prints a message.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = "requirements-all.lock"
COMMAND = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", LOCK, "--require-hashes", "--disable-pip"]
DATABASES = {"pypi": "PyPI", "osv": "OSV"}


def main() -> None:
    """Query the first advisory database that is reachable; pass the command-line arguments on to pip-audit."""
    dry_run = _audit("--dry-run")
    if dry_run.returncode:
        sys.exit(f"{LOCK} cannot be audited: {dry_run.stderr}")
    for service, name in DATABASES.items():
        report = _audit(f"--vulnerability-service={service}", "--format=json", *sys.argv[1:]).stdout
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"] if report else []
        audited = [package for package in packages if "vulns" in package]
        if audited:
            if unknown := ", ".join(package["name"] for package in packages if "vulns" not in package):
                print(f"Not audited, because {name} does not know them: {unknown}.")
            print(f"Audited {len(audited)} packages of {LOCK} with the advisories of {name}.")
            sys.exit("\n".join(_findings(audited)) or None)
    print("Nothing was audited: no advisory database is reachable. Tried:", ", ".join(DATABASES.values()))


def _audit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--progress-spinner=off", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def _findings(packages: list[dict[str, Any]]) -> list[str]:
    return [
        f"{package['name']} {package['version']} has {', '.join((vulnerability['id'], *vulnerability['aliases']))}: "
        + (
            f"fixed in {', '.join(vulnerability['fix_versions'])}."
            if vulnerability["fix_versions"]
            else "not fixed yet."
        )
        for package in packages
        for vulnerability in package["vulns"]
    ]


if __name__ == "__main__":
    main()
