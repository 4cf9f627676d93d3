"""Text files and the output of programs are read and written in UTF-8, whatever the locale is.

Ruff's rule PLW1514 does not recognise a path in every expression, and knows nothing of subprocesses.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import ROOT

FILES = [
    path.relative_to(ROOT)
    for folder in ("handlers", "models", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
# For each function that opens a text file, the number of positional arguments with which the encoding is given.
FUNCTIONS = {"read_text": 1, "write_text": 2, "open": 3}


def lines_without_encoding(source: str) -> Iterator[int]:
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or any(keyword.arg in ("encoding", None) for keyword in call.keywords):
            continue
        is_text = any(word.arg == "text" and ast.unparse(word.value) == "True" for word in call.keywords)
        name = ast.unparse(call.func).rpartition(".")[2]
        is_binary = name == "open" and (not call.args or "b" in ast.unparse(call.args[0]))
        is_path = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) != "os" and not is_binary
        if is_text or (is_path and len(call.args) < FUNCTIONS.get(name, 0)):
            yield call.lineno


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_text_file_has_an_encoding(path: Path) -> None:
    assert list(lines_without_encoding((ROOT / path).read_text("utf-8"))) == []


def test_missing_encodings_are_found() -> None:
    wrong = ["p.read_text()", "(p / 'a').write_text(x)", "p.open('w')", "p.open('a', newline='')", "run(a, text=True)"]
    right = ["p.read_text('utf-8')", "p.write_text(x, 'utf-8')", "p.open('wb')", "os.open(p, 0)", "pool.open()"]
    right += ["p.open('w', encoding='utf-8')", "run(a, encoding='utf-8')", "run(a, **options)"]

    assert list(lines_without_encoding("\n".join(right + wrong))) == list(range(len(right) + 1, len(right + wrong) + 1))
