"""Edit a copy of the project: its YAML documents, and the classes and functions of its Python modules."""

import ast
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import yaml


def add_to_yaml(file: Path, path: tuple[str | int, ...], text: str) -> None:
    """Append entries to a mapping or list, and keep the formatting of the rest of the file.

    Args:
        file: The YAML file.
        path: The keys and indices that lead to the mapping or list.
        text: The entries as YAML; for a list in brackets, only the text of the new item.
    """
    written = file.read_text()
    node: Any = yaml.compose(written, yaml.SafeLoader)
    for step in path:
        node = node.value[step] if isinstance(step, int) else _value_of(node, step)
    if node.flow_style:
        end = node.end_mark.index - 1
        file.write_text(f"{written[:end]}, {text}{written[end:]}")
        return
    is_mapping = isinstance(node, yaml.MappingNode)
    if is_mapping and (existing := {key.value for key, _ in node.value} & yaml.safe_load(text).keys()):
        raise AssertionError(
            f"{'/'.join(map(str, path))} in {file.name} has {', '.join(existing)} already; add another entry"
        )
    first = node.value[0][0] if is_mapping else node.value[0]
    column = first.start_mark.column - (0 if is_mapping else len("- "))
    last = node
    while not isinstance(last, yaml.ScalarNode) and not last.flow_style:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    lines = written.splitlines(keepends=True)
    end_line = last.end_mark.line + (last.end_mark.column > 0)
    lines.insert(end_line, indent(dedent(text).strip("\n") + "\n", " " * column))
    file.write_text("".join(lines))


def _value_of(node: yaml.MappingNode, key: str) -> yaml.Node:
    found: yaml.Node = next(value for name, value in node.value if name.value == key)
    return found


def append_to_class(file: Path, class_: str, text: str) -> None:
    """Append a method to a class."""
    end = _definition(file, class_).end_lineno or 0
    _insert(file, end, 0, "\n" + indent(dedent(text).strip("\n") + "\n", " " * 4), newline=True)


def add_after(file: Path, class_: str, field: str, text: str) -> None:
    """Insert lines after a field of a class."""
    body = _definition(file, class_).body
    found = next(node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == field)
    _insert(
        file, found.end_lineno or 0, 0, indent(dedent(text).strip("\n") + "\n", " " * found.col_offset), newline=True
    )


def add_entry(file: Path, variable: str, text: str) -> None:
    """Append a line to a dictionary of several lines that is assigned to a variable of the module."""
    assignments = (node for node in ast.parse(file.read_text()).body if isinstance(node, ast.AnnAssign))
    (found,) = (node for node in assignments if ast.unparse(node.target) == variable)
    _insert(file, (found.end_lineno or 1) - 1, 0, indent(text + "\n", " " * 4), newline=True)


def add_parameter(file: Path, function: str, text: str) -> None:
    """Append a parameter to a function."""
    definition = _definition(file, function)
    assert not isinstance(definition, ast.ClassDef)
    last = definition.args.args[-1]
    _insert(file, (last.end_lineno or 1) - 1, last.end_col_offset or 0, f", {text}")


def add_argument(file: Path, function: str, call: str, text: str) -> None:
    """Append an argument to a call in a function."""
    calls = [node for node in ast.walk(_definition(file, function)) if isinstance(node, ast.Call)]
    (found,) = (node for node in calls if ast.unparse(node.func) == call)
    _insert(file, (found.end_lineno or 1) - 1, (found.end_col_offset or 1) - 1, f", {text}")


def replace_in(file: Path, function: str, old: str, new: str) -> None:
    """Replace code that occurs exactly once in a function."""
    source = file.read_text()
    within = ast.get_source_segment(source, _definition(file, function))
    assert within
    assert within.count(old) == 1, f"{function} in {file.name} must contain this exactly once: {old}"
    file.write_text(source.replace(within, within.replace(old, new)))


def next_migration(folder: Path, name: str) -> Path:
    """Return the path for a new migration, with the next free number."""
    numbers = [int(path.name.partition("_")[0]) for path in folder.glob("[0-9]*.py")]
    return folder / f"{max(numbers) + 1:04}_{name}.py"


def _definition(file: Path, name: str) -> ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(file.read_text()))
    (found,) = (node for node in nodes if isinstance(node, kinds) and node.name == name)
    return found


def _insert(file: Path, line: int, column: int, text: str, newline: bool = False) -> None:
    lines = file.read_text().splitlines(keepends=True)
    if newline:
        lines.insert(line, text)
    else:
        # The column offsets of `ast` count bytes, not characters.
        encoded = lines[line].encode()
        lines[line] = (encoded[:column] + text.encode() + encoded[column:]).decode()
    file.write_text("".join(lines))
