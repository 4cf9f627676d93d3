"""The project as the mutants see it: its files, copies of it, and the mutants of each file."""

import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from tests.tools.mutants import code, contract, page
from tests.tools.mutants.mutant import Mutant

# What measures and mutates has no part in the result.
OWN = "tests/tools/mutants/"
# The files that copies share with the project.
INSTALLED = (".venv", "build/node")
# What no test of the project's behaviour reads.
UNUSED = ("tests/benchmarks/",)
# `swagger-ui-bundle.js` and others are not ours.
VENDORED = "swagger-ui"
# Test files that would find mutants for the wrong reason, and why.
EXCLUDED = {
    "tests/project/test_diff.py": "its cases are replacements in the text of the contract",
    "tests/project/test_cleanup.py": "it is about runs of the tests",
    "tests/project/test_mutants.py": "it is about what generates the mutants",
}
TESTS = "tests/*test_*.py"
LONG_AGO = 1_000_000_000
CONTRACT = "openapi.yaml"
GENERATORS = {".py": code.mutants, ".yaml": contract.mutants, ".js": page.mutants, ".html": page.mutants}


class Project:
    """A checkout.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
        self.generated = settings["datamodel-codegen"]["output"]
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        self.files = sorted(name for name in set(listed) if (root / name).is_file() and not name.startswith(UNUSED))
        packages = tuple(f"{package}/" for package in settings["coverage"]["run"]["source"])
        self.mutable = [
            name
            for name in self.files
            if (name.startswith(packages) or name == CONTRACT)
            and Path(name).suffix in GENERATORS
            and not Path(name).name.startswith(VENDORED)
            and name != self.generated
        ]
        # What is edited meanwhile changes nothing.
        self._contents = {name: (root / name).read_bytes() for name in self.files}
        self.tests = [name for name in self.files if fnmatch(name, TESTS) and name not in EXCLUDED]

    def text(self, file: str) -> str:
        return self._contents[file].decode()

    def mutants(self) -> Iterator[Mutant]:
        """Yield every mutant of every file."""
        for file in self.mutable:
            yield from GENERATORS[Path(file).suffix](file, self.text(file))

    def fingerprint(self, test: str) -> str:
        """Return a hash of all that a test file may depend on, and so of no other test file."""
        digest = hashlib.sha256(sys.version.encode())
        for file, content in self._contents.items():
            if file == test or (not file.startswith(OWN) and not fnmatch(file, TESTS)):
                digest.update(b"%s\0%s\0" % (file.encode(), content))
        return digest.hexdigest()[:20]

    def copy(self, folder: Path) -> "Copy":
        """Copy the project into a new folder."""
        for file in self.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(self._contents[file])
            shutil.copymode(self.root / file, folder / file)
            # Older than what `make` has installed from it, which is shared.
            os.utime(folder / file, (LONG_AGO, LONG_AGO))
        for name in INSTALLED:
            if (self.root / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to((self.root / name).resolve())
        return Copy(self, folder)


class Copy:
    """A copy of the project, into which mutants are planted one after the other."""

    # Python takes bytecode for that of a file with the same size and second.
    _seconds = itertools.count(LONG_AGO + 1)

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder

    @contextmanager
    def planted(self, file: str, text: str) -> Iterator[None]:
        """Give a file another text for a while; what is generated from it is generated again.

        Raises:
            subprocess.CalledProcessError: Nothing can be generated from it.
        """
        changed = [file, self.project.generated] if file == CONTRACT else [file]
        try:
            self._write(file, text)
            if file == CONTRACT:
                generator = Path(sys.executable).with_name("datamodel-codegen")
                subprocess.run([generator], cwd=self.folder, check=True, capture_output=True, text=True)
            yield
        finally:
            for name in changed:
                self._write(name, self.project.text(name))

    def _write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)
        second = next(self._seconds)
        os.utime(self.folder / file, (second, second))
