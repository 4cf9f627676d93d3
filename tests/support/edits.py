"""Edit a copy of the project: its YAML documents and its Python modules."""

import ast
from pathlib import Path
from typing import Any

import yaml


def add_to_yaml(file: Path, path: tuple[str | int, ...], text: str) -> None:
    """Append entries to a mapping or list, and keep the formatting of the rest of the file.

    Args:
        file: The YAML file.
        path: The keys and indices that lead to the mapping or list.
        text: The entries as YAML, indented like those that are there; for a list in brackets, only the new item.
    """
    written = file.read_text("utf-8")
    node: Any = yaml.compose(written, yaml.SafeLoader)
    for step in path:
        node = node.value[step] if isinstance(step, int) else _value_of(node, step)
    if node.flow_style:
        end = node.end_mark.index - 1
        file.write_text(f"{written[:end]}, {text}{written[end:]}", "utf-8")
        return
    is_mapping, place = isinstance(node, yaml.MappingNode), "/".join(map(str, path))
    if is_mapping and (existing := {key.value for key, _ in node.value} & yaml.safe_load(text).keys()):
        raise AssertionError(f"{place} in {file.name} has {', '.join(existing)} already; add another entry")
    first = node.value[0][0] if is_mapping else node.value[0]
    column = first.start_mark.column - (0 if is_mapping else len("- "))
    last = node
    while not isinstance(last, yaml.ScalarNode) and not last.flow_style:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    assert len(text) - len(text.lstrip(" ")) == column, f"indent what is added to {place} by {column} spaces"
    _insert(file, last.end_mark.line + (last.end_mark.column > 0), text)


def _value_of(node: yaml.MappingNode, key: str) -> yaml.Node:
    found: yaml.Node = next(value for name, value in node.value if name.value == key)
    return found


def append_to_class(file: Path, class_: str, text: str) -> None:
    """Append a method to a class."""
    _insert(file, _definition(file, class_).end_lineno or 0, "\n" + text)


def replace_definition(file: Path, name: str, text: str) -> None:
    """Replace a function, a method or a class."""
    found = _definition(file, name)
    lines = file.read_text("utf-8").splitlines(keepends=True)
    lines[found.lineno - 1 : found.end_lineno] = [text]
    file.write_text("".join(lines), "utf-8")


def insert_after(file: Path, line: str, text: str) -> None:
    """Insert lines after a line that occurs exactly once, whatever its indentation."""
    found = [number for number, other in enumerate(file.read_text("utf-8").splitlines(), 1) if other.strip() == line]
    assert len(found) == 1, f"{file.name} must contain this line exactly once: {line}"
    _insert(file, found[0], text)


def replace_in(file: Path, function: str, old: str, new: str) -> None:
    """Replace code that occurs exactly once in a function."""
    source = file.read_text("utf-8")
    within = ast.get_source_segment(source, _definition(file, function))
    assert within
    assert within.count(old) == 1, f"{function} in {file.name} must contain this exactly once: {old}"
    file.write_text(source.replace(within, within.replace(old, new)), "utf-8")


def next_migration(folder: Path, name: str) -> Path:
    """Return the path for a new migration, with the next free number."""
    numbers = [int(path.name.partition("_")[0]) for path in folder.glob("[0-9]*.py")]
    return folder / f"{max(numbers) + 1:04}_{name}.py"


def _definition(file: Path, name: str) -> ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(file.read_text("utf-8")))
    (found,) = (node for node in nodes if isinstance(node, kinds) and node.name == name)
    return found


def _insert(file: Path, line: int, text: str) -> None:
    lines = file.read_text("utf-8").splitlines(keepends=True)
    lines.insert(line, text)
    file.write_text("".join(lines), "utf-8")
