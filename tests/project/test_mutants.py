"""The generators and tools of `make mutants`, tested on made-up source files."""

import subprocess
from functools import reduce
from operator import getitem
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT
from tests.tools.mutants import code, contract, page
from tests.tools.mutants.mutant import Mutant, diff, number_repeated, sample
from tests.tools.mutants.process import run
from tests.tools.mutants.project import Project
from tests.tools.mutants.selection import PLUGIN, Coverage, select

MODULE = dedent('''
    """A module."""

    import os

    LIMIT = 10  # a comment

    NAMES = ["a", "b"]

    class Shelf:
        """A shelf."""

        @cached
        def add(self, book: "Book", at=0) -> int:
            """Add a book."""
            if len(self.books) >= LIMIT and not at:
                raise ValueError(f"full: {LIMIT}")
            self.last = book
            self.places["at"] = at
            try:
                return self.books.index(book.strip())
            except ValueError:
                log(book, loud=True)
            return os.path(book)
''')
CONDITION = "if len(self.books) >= LIMIT and not at:"
DOCUMENT = dedent("""
    openapi: 3.0.3
    info: {title: Shelf, version: 1.0.0}
    paths:
      /books:
        get:
          operationId: listBooks
          parameters:
            - $ref: '#/components/parameters/Limit'
          responses:
            '200': {description: A page, content: {application/json: {schema: {$ref: '#/components/schemas/Page'}}}}
            '404':
              $ref: '#/components/responses/Missing'
    components:
      parameters:
        Limit:
          name: limit
          in: query
          description: How many.
          schema:
            type: integer
            maximum: 100  # at most
          example: 10
      responses:
        Missing:
          description: No book.
      schemas:
        Page:
          type: array
          maxItems: 50
""")


def changes(mutants: list[Mutant], source: str) -> set[tuple[str, str, str]]:
    """Return the operator, the old line and the new line of each mutant."""
    changed = set()
    for mutant in mutants:
        before, _, after = diff(source, mutant.render() or source).partition("\n")
        changed.add((mutant.operator, before[1:].strip(), after[1:].strip()))
    return changed


@pytest.mark.parametrize(
    "change",
    [
        ("other comparison", CONDITION, "if len(self.books) > LIMIT and not at:"),
        ("and/or swapped", CONDITION, "if len(self.books) >= LIMIT or not at:"),
        ("operand dropped", CONDITION, "if not at:"),
        ("negation dropped", CONDITION, "if len(self.books) >= LIMIT and at:"),
        ("condition negated", CONDITION, "if not (len(self.books) >= LIMIT and (not at)):"),
        ("other constant", "LIMIT = 10  # a comment", "LIMIT = 11  # a comment"),
        ("other constant", 'raise ValueError(f"full: {LIMIT}")', "raise ValueError(f'xfull: {LIMIT}')"),
        ("statement dropped", "self.last = book", "pass"),
        ("exception not handled", "log(book, loud=True)", "raise"),
        ("return value dropped", "return os.path(book)", "return None"),
        ("method call dropped", "return self.books.index(book.strip())", "return self.books.index(book)"),
        ("argument dropped", "log(book, loud=True)", "log(book)"),
        ("decorator dropped", "@cached", ""),
        ("item dropped", 'NAMES = ["a", "b"]', 'NAMES = ["b"]'),
    ],
)
def test_code_is_changed_in_one_place(change: tuple[str, str, str]) -> None:
    assert change in changes(code.mutants("shelf.py", MODULE), MODULE)


def test_code_without_effect_is_not_changed() -> None:
    found = changes(code.mutants("shelf.py", MODULE), MODULE)

    assert not [before for _, before, _ in found if before.startswith(('"""', "import", "class"))]
    # Some parts are not mutated: annotations have no effect, and a missing module function or key would fail any test.
    assert not [after for _, _, after in found if "xBook" in after or after == "return os" or "xat" in after]


def test_edit_elsewhere_changes_neither_ids_nor_sample() -> None:
    before = code.mutants("shelf.py", MODULE)
    after = code.mutants("shelf.py", "def first():\n    return 'first'\n" + MODULE)

    assert {mutant.id for mutant in before} < {mutant.id for mutant in after}
    picked, again = ({mutant.id for mutant, _ in sample(mutants, 10)} for mutants in (before, after))
    assert len(picked) == len(again) == 10
    # Each added mutant may replace one mutant of the sample.
    assert len(picked - again) <= len(after) - len(before)
    assert {mutant.id for mutant, _ in sample(before, 10, "another seed")} != picked


def test_equal_changes_have_different_ids() -> None:
    mutants = code.mutants("shelf.py", "def run():\n    stop()\n    stop()\n")

    assert len({mutant.id for mutant in mutants}) == len(mutants)


def test_sample_leaves_out_invalid_mutants() -> None:
    def mutant(scope: str, text: str | None) -> Mutant:
        return Mutant("a.py", scope, "other constant", "1", "2", 1, lambda: text)

    mutants = list(number_repeated([mutant("a", None), mutant("b", "x = 2\n"), mutant("c", None)]))

    assert [picked.scope for picked, _ in sample(mutants, 10)] == ["b"]


@pytest.mark.parametrize(
    ("operator", "path", "value"),
    [
        ("one more", "components/parameters/Limit/schema/maximum", 101),
        ("one less", "components/parameters/Limit/schema/maximum", 99),
        ("unsatisfiable rule", "components/schemas/Page/maxItems", 0),
        ("declaration dropped", "paths//books/get/responses/404", None),
        ("item dropped", "paths//books/get/parameters", []),
    ],
)
def test_contract_is_changed_in_one_place(operator: str, path: str, value: Any) -> None:
    mutants = contract.mutants("openapi.yaml", DOCUMENT)
    (mutant,) = [mutant for mutant in mutants if (mutant.operator, mutant.scope) == (operator, path)]
    expected = yaml.safe_load(DOCUMENT)
    *above, last = path.replace("//", "/~").split("/")
    parent = reduce(getitem, (part.replace("~", "/") for part in above), expected)
    if value is None:
        del parent[last]
    else:
        parent[last] = value

    text = mutant.render()

    assert text
    assert yaml.safe_load(text) == expected
    assert diff(DOCUMENT, text)


def test_status_of_a_response_is_changed() -> None:
    (mutant,) = [mutant for mutant in contract.mutants("openapi.yaml", DOCUMENT) if mutant.operator == "other status"]

    assert yaml.safe_load(mutant.render() or "")["paths"]["/books"]["get"]["responses"].keys() == {"201", "404"}


def test_texts_and_examples_of_the_contract_are_not_changed() -> None:
    changed = {mutant.scope for mutant in contract.mutants("openapi.yaml", DOCUMENT)}

    assert not [path for path in changed if path.endswith(("title", "description", "example", "operationId"))]


def test_script_and_page_are_changed_in_one_place() -> None:
    script = 'if (ready) return "a";\n// if (never) stop("b");\n'

    assert changes(page.mutants("a.js", script), script) == {
        ("condition negated", 'if (ready) return "a";', 'if (!(ready)) return "a";'),
        ("other constant", 'if (ready) return "a";', 'if (ready) return "xa";'),
    }
    assert changes(page.mutants("a.html", "<p>\n<title>A</title>\n"), "<p>\n<title>A</title>\n") == {
        ("element dropped", "<title>A</title>", "")
    }


FILES = {
    "pyproject.toml": """
        tool.coverage.run.source = ["handlers"]
        tool.datamodel-codegen.output = "handlers/made.py"
    """,
    "handlers/shelf.py": "LIMIT = 1\n",
    "handlers/made.py": "LIMIT = 1\n",
    "handlers/swagger-ui.js": 'start("now");\n',
    "tests/test_shelf.py": "",
    "tests/test_other.py": "",
}


def mutant_at(lines: set[int], *names: str) -> Mutant:
    return Mutant("handlers/shelf.py", "add", "other constant", "1", "2", 1, str, frozenset(lines), frozenset(names))


COVERAGES = {
    "tests/slow/test_all.py": Coverage(seconds=60, lines={"handlers/shelf.py": {1, 2, 3}, "models/book.py": {1, 2}}),
    "tests/quick/test_book.py": Coverage(seconds=1, lines={"handlers/shelf.py": {1, 3}, "models/book.py": {1}}),
    "tests/handlers/test_shelf.py": Coverage(seconds=30, lines={"handlers/shelf.py": {1, 2}}),
    "tests/project/test_readme.py": Coverage(seconds=2),
}
SOURCES = {"handlers/shelf.py": "LIMIT = 1\n", "models/book.py": "def read():\n    return LIMIT\n"}


@pytest.mark.parametrize(
    ("mutant", "files"),
    [
        # The test file that mirrors the module comes first, then the quickest test file.
        (mutant_at({1}), ["tests/handlers/test_shelf.py", "tests/quick/test_book.py", "tests/slow/test_all.py"]),
        (mutant_at({2}), ["tests/handlers/test_shelf.py", "tests/slow/test_all.py"]),
        # A wrong value that is assigned at import has an effect only in the lines that use it.
        (mutant_at({1}, "LIMIT"), ["tests/slow/test_all.py"]),
        # If the lines of a mutant are unknown, every test file may find the mutant.
        (
            mutant_at(set()),
            [
                "tests/handlers/test_shelf.py",
                "tests/quick/test_book.py",
                "tests/project/test_readme.py",
                "tests/slow/test_all.py",
            ],
        ),
    ],
)
def test_tests_are_selected_by_coverage(mutant: Mutant, files: list[str]) -> None:
    assert select(mutant, COVERAGES, SOURCES, {}) == files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a made-up project."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.slow
def test_mutant_is_planted_in_a_copy_and_removed_again(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    project = Project(folder)
    copy = project.copy(tmp_path_factory.mktemp("copy"))
    file = copy.folder / "handlers/shelf.py"
    seconds = [int(file.stat().st_mtime)]

    with copy.planted("handlers/shelf.py", "LIMIT = 2\n"):
        planted = file.read_text("utf-8")
        seconds.append(int(file.stat().st_mtime))
    seconds.append(int(file.stat().st_mtime))

    assert {mutant.file for mutant in project.mutants()} == {"handlers/shelf.py"}
    assert (planted, file.read_text("utf-8")) == ("LIMIT = 2\n", "LIMIT = 1\n")
    assert (folder / "handlers/shelf.py").read_text("utf-8") == "LIMIT = 1\n"
    # Python would reuse the bytecode if two versions of a source file had the same size and second of modification.
    assert len(set(seconds)) == 3
    # `make` would rebuild its targets if a file of the copy were newer than the targets.
    for name in FILES:
        assert (copy.folder / name).stat().st_mtime < (folder / name).stat().st_mtime


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "is_same"), [("tests/test_shelf.py", False), ("tests/test_other.py", True), ("handlers/shelf.py", False)]
)
def test_cached_coverage_is_valid_until_the_test_or_the_code_changes(file: str, is_same: bool, folder: Path) -> None:
    before = Project(folder).fingerprint("tests/test_shelf.py")
    (folder / file).write_text("LIMIT = 3\n", "utf-8")

    assert (Project(folder).fingerprint("tests/test_shelf.py") == before) is is_same


@pytest.mark.slow
def test_failed_edit_of_the_project_does_not_find_a_mutant(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_edits.py").write_text(
        dedent("""
            from pathlib import Path

            from tests.support.edits import replace_in

            def test_edit(tmp_path):
                (tmp_path / "a.py").write_text("def run(): ...")
                replace_in(tmp_path / "a.py", "run", "stop()", "go()")

            def test_other():
                assert False
        """),
        "utf-8",
    )

    arguments = ["-q", "-p", PLUGIN, "-p", "no:cacheprovider", "--import-mode=importlib", str(tmp_path)]
    finished = run(["pytest", *arguments], ROOT, timeout=60)

    assert "1 failed, 1 skipped" in finished.output


def test_tests_that_found_other_mutants_come_first() -> None:
    found = {("handlers/shelf.py", "tests/slow/test_all.py"): 100}

    assert select(mutant_at({3}), COVERAGES, SOURCES, found) == ["tests/slow/test_all.py", "tests/quick/test_book.py"]
