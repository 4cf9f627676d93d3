"""The project under mutation: its files, its copies, and the mutants of each file."""

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

# The folder of the mutation tool itself, whose files do not affect the coverage of the tests.
OWN = "tests/tools/mutants/"
# Folders with installed programs, which the copies share with the project.
INSTALLED = (".venv", "build/node")
# The prefix in the names of third-party files, such as `swagger-ui-bundle.js`.
VENDORED = "swagger-ui"
# The excluded test files, which would find mutants for the wrong reason; each value is this reason.
EXCLUDED = {
    "tests/project/test_diff.py": "it edits the text of the contract",
    "tests/project/test_cleanup.py": "it tests test runs",
    "tests/project/test_mutants.py": "it tests the mutation tool",
}
TESTS = "tests/*test_*.py"
LONG_AGO = 1_000_000_000
CONTRACT = "openapi.yaml"
GENERATORS = {".py": code.mutants, ".yaml": contract.mutants, ".js": page.mutants, ".html": page.mutants}


class Project:
    """The files of a checkout and their mutants.

    Args:
        root: The folder of the checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]
        self.generated = settings["datamodel-codegen"]["output"]
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout.splitlines()
        self.files = sorted(name for name in set(listed) if (root / name).is_file())
        packages = tuple(f"{package}/" for package in settings["coverage"]["run"]["source"])
        self.mutable = [
            name
            for name in self.files
            if (name.startswith(packages) or name == CONTRACT)
            and Path(name).suffix in GENERATORS
            and not Path(name).name.startswith(VENDORED)
            and name != self.generated
        ]
        # Keep a snapshot of the files, so that edits during a run have no effect.
        self._contents = {name: (root / name).read_bytes() for name in self.files}
        self.tests = [name for name in self.files if fnmatch(name, TESTS) and name not in EXCLUDED]

    def text(self, file: str) -> str:
        return self._contents[file].decode()

    def mutants(self) -> Iterator[Mutant]:
        """Yield every mutant of every file."""
        for file in self.mutable:
            yield from GENERATORS[Path(file).suffix](file, self.text(file))

    def fingerprint(self, test: str) -> str:
        """Return a hash of all files on which a test file may depend; other test files are not among them."""
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
            # Make the file older than the files that `make` has built from it: the copies share the built files.
            os.utime(folder / file, (LONG_AGO, LONG_AGO))
        for name in INSTALLED:
            if (self.root / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to((self.root / name).resolve())
        return Copy(self, folder)


class Copy:
    """A copy of the project, in which mutants are planted one after the other."""

    # Each write gets a unique time, since Python reuses the bytecode if the size and time of a source file are equal.
    _seconds = itertools.count(LONG_AGO + 1)

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder

    @contextmanager
    def planted(self, file: str, text: str) -> Iterator[None]:
        """Replace the text of a file temporarily; if the file is the contract, regenerate the models.

        Raises:
            subprocess.CalledProcessError: The models cannot be generated.
        """
        changed_files = [file, self.project.generated] if file == CONTRACT else [file]
        try:
            self._write(file, text)
            if file == CONTRACT:
                generator = Path(sys.executable).with_name("datamodel-codegen")
                subprocess.run([generator], cwd=self.folder, check=True, capture_output=True, encoding="utf-8")
            yield
        finally:
            for name in changed_files:
                self._write(name, self.project.text(name))

    def _write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text, "utf-8")
        second = next(self._seconds)
        os.utime(self.folder / file, (second, second))
