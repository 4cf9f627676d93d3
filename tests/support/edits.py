"""Edits of a copy of the project that find their place by structure: a path in YAML, a class or function in Python."""

import ast
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import yaml


def add_to_yaml(file: Path, path: tuple[str | int, ...], text: str) -> None:
    """Add entries at the end of a mapping or a list, and leave the rest of the file as it is written.

    Args:
        file: The YAML file.
        path: The keys and indices that lead to the mapping or list.
        text: The entries; of a list in brackets the item alone.
    """
    written = file.read_text()
    node: Any = yaml.compose(written, yaml.SafeLoader)
    for step in path:
        node = node.value[step] if isinstance(step, int) else _value(node, step)
    if node.flow_style:
        end = node.end_mark.index - 1
        file.write_text(f"{written[:end]}, {text}{written[end:]}")
        return
    is_mapping = isinstance(node, yaml.MappingNode)
    if is_mapping and (there := {key.value for key, _ in node.value} & yaml.safe_load(text).keys()):
        raise AssertionError(f"{'/'.join(map(str, path))} in {file.name} has {', '.join(there)}; add another entry")
    first = node.value[0][0] if is_mapping else node.value[0]
    column = first.start_mark.column - (0 if is_mapping else len("- "))
    last = node
    while not isinstance(last, yaml.ScalarNode) and not last.flow_style:
        last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
    lines = written.splitlines(keepends=True)
    end_line = last.end_mark.line + (last.end_mark.column > 0)
    lines.insert(end_line, indent(dedent(text).strip("\n") + "\n", " " * column))
    file.write_text("".join(lines))


def _value(node: yaml.MappingNode, key: str) -> yaml.Node:
    found: yaml.Node = next(value for name, value in node.value if name.value == key)
    return found


def append(file: Path, text: str) -> None:
    """Add code at the end of a Python file."""
    file.write_text(f"{file.read_text().rstrip()}\n\n\n{dedent(text).strip()}\n")


def add_after(file: Path, class_: str, field: str, text: str) -> None:
    """Add lines to a class, behind one of its fields."""
    body = _named(file, class_).body
    found = next(node for node in body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == field)
    _insert(
        file, found.end_lineno or 0, 0, indent(dedent(text).strip("\n") + "\n", " " * found.col_offset), newline=True
    )


def add_statement(file: Path, function: str, text: str) -> None:
    """Add lines at the beginning of a function that has no docstring."""
    first = _named(file, function).body[0]
    _insert(file, first.lineno - 1, 0, indent(dedent(text).strip("\n") + "\n", " " * first.col_offset), newline=True)


def add_parameter(file: Path, function: str, text: str) -> None:
    """Add a parameter at the end of those of a function."""
    definition = _named(file, function)
    assert not isinstance(definition, ast.ClassDef)
    last = definition.args.args[-1]
    _insert(file, (last.end_lineno or 1) - 1, last.end_col_offset or 0, f", {text}")


def add_argument(file: Path, function: str, call: str, text: str) -> None:
    """Add an argument at the end of those of a call in a function."""
    calls = [node for node in ast.walk(_named(file, function)) if isinstance(node, ast.Call)]
    (found,) = (node for node in calls if ast.unparse(node.func) == call)
    _insert(file, (found.end_lineno or 1) - 1, (found.end_col_offset or 1) - 1, f", {text}")


def replace_in(file: Path, function: str, old: str, new: str) -> None:
    """Replace code that a function has once."""
    source = file.read_text()
    within = ast.get_source_segment(source, _named(file, function))
    assert within
    assert within.count(old) == 1, f"{function} in {file.name} must have this once: {old}"
    file.write_text(source.replace(within, within.replace(old, new)))


def next_migration(folder: Path, name: str) -> Path:
    """Return the path of a new migration, whose number is the next one in the folder."""
    numbers = [int(path.name.partition("_")[0]) for path in folder.glob("[0-9]*.py")]
    return folder / f"{max(numbers) + 1:04}_{name}.py"


def _named(file: Path, name: str) -> ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(file.read_text()))
    (found,) = (node for node in nodes if isinstance(node, kinds) and node.name == name)
    return found


def _insert(file: Path, line: int, column: int, text: str, newline: bool = False) -> None:
    lines = file.read_text().splitlines(keepends=True)
    if newline:
        lines.insert(line, text)
    else:
        # Columns count bytes.
        encoded = lines[line].encode()
        lines[line] = (encoded[:column] + text.encode() + encoded[column:]).decode()
    file.write_text("".join(lines))
