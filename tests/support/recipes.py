"""Follow the recipes of docs/your-own-api.md: apply each step of a section to a copy of the project.

A step is a paragraph that begins with Create, Delete, In or Replace. It names the files and the places, and ends with a
colon if the code block below it says what to write there.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.edits import add_to_yaml, append_to_class, insert_after, next_migration, replace_definition
from tests.support.pages import section
from tests.support.project import RUN_FROM_SOURCE

PAGE = "docs/your-own-api.md"
# The headings of the recipes, by the name of the change. Each can be followed alone, in the unchanged project.
RECIPES = {
    "field": "How do I add a field?",
    "filter": "How do I add a filter?",
    "operation": "How do I add an operation?",
    "resource": "How do I add a resource?",
    "api": "How do I start a different API?",
}
# Targets of the Makefile: `make generate` without installing anything, and those that the callers run themselves.
MAKE = {"make generate": str(Path(sys.executable).with_name("datamodel-codegen"))} | dict.fromkeys(
    ("make check", "make run", "make test"), ""
)
BLOCKS = re.compile(r"(?ms)^```(?P<language>\w+)\n(?P<code>.*?)^```$|(?P<paragraph>(?:^(?!```)[^\n]+\n)+)")


class Step(NamedTuple):
    """A step of a recipe: a sentence and the code block below it; or shell commands without a sentence."""

    sentence: str
    code: str


def steps(heading: str) -> list[Step]:
    """Return the steps of a section in order. Fail if the section has code that belongs to no step."""
    found: list[Step] = []
    sentence = ""
    for block in BLOCKS.finditer(section(PAGE, heading)):
        if block["paragraph"]:
            sentence = " ".join(block["paragraph"].split())
            if re.match(r"(Create|Delete|In|Replace) ", sentence) and not sentence.endswith(":"):
                found.append(Step(sentence, ""))
        elif block["language"] == "sh":
            found.append(Step("", block["code"]))
        elif block["language"] != "console":
            assert sentence.endswith(":"), f"write to which place this belongs: {block['code']}"
            found.append(Step(sentence, block["code"]))
            sentence = ""
    return found


def follow(heading: str, project: Path) -> None:
    """Apply a section to a copy of the project, and check that its contract can be served."""
    for step in steps(heading):
        if step.sentence:
            _apply(step, project)
        else:
            commands = (MAKE.get(line, line) for line in step.code.splitlines())
            run("bash", "-ec", "\n".join(commands), folder=project)
    run(*RUN_FROM_SOURCE, "check", folder=project)


def run(*command: str, folder: Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def new_files(heading: str) -> set[str]:
    """Return the paths of the files that a section creates."""
    return {found[1] for step in steps(heading) if (found := re.match("Create `([^`]+)`", step.sentence))}


def can_be_followed(heading: str, project: Path) -> bool:
    """Return whether a project has the files and the places that a section changes, but not yet its changes."""
    for step in (step for step in steps(heading) if step.sentence):
        file, *places = _names(step.sentence)
        if step.sentence.startswith("Delete") and not all((project / path).exists() for path in (file, *places)):
            return False
        if ", under " in step.sentence:
            try:
                nodes = [_node(project / file, place) for place in places]
            except (KeyError, IndexError, TypeError):
                return False
            if any(entry in node for node in nodes for entry in yaml.safe_load(step.code)):
                return False
    return True


def _node(file: Path, place: str) -> Any:
    node = yaml.safe_load(file.read_text("utf-8"))
    for key in _path(place):
        node = node[key]
    return node


def _apply(step: Step, project: Path) -> None:
    for pattern, action in ACTIONS.items():
        if re.fullmatch(pattern, step.sentence):
            names, code = _names(step.sentence), step.code
            action(project / names[0], names[1:], code)
            return
    raise AssertionError(f"write this step of {PAGE} like the others: {step.sentence}")


def _write(file: Path, _: list[str], code: str) -> None:
    file.write_text(code, "utf-8")


def _append(file: Path, _: list[str], code: str) -> None:
    file.write_text(f"{file.read_text('utf-8')}\n\n{code}", "utf-8")


def _create(file: Path, _: list[str], code: str) -> None:
    # Another recipe may have created a migration with this number.
    if file.parent.name == "migrations" and not file.name.startswith("0001"):
        file = next_migration(file.parent, file.stem.partition("_")[2])
    file.write_text(code, "utf-8")


def _delete(file: Path, others: list[str], _: str) -> None:
    project = next(folder for folder in file.parents if (folder / "pyproject.toml").exists())
    for path in (file, *(project / other for other in others)):
        path.unlink()


def _replace(file: Path, texts: list[str], _: str) -> None:
    old, new = texts
    source = file.read_text("utf-8")
    assert old in source, f"{file.name} does not contain: {old}"
    file.write_text(source.replace(old, new), "utf-8")


def _add(file: Path, places: list[str], code: str) -> None:
    for place in places:
        add_to_yaml(file, _path(place), code)


# The edit of each step, by the pattern of the step's sentence.
ACTIONS: dict[str, Callable[[Path, list[str], str], None]] = {
    r"Create `\S+`:": _create,
    r"Replace `\S+` with:": _write,
    r"Delete (`\S+`(, | and )?)+\.": _delete,
    r"In `\S+`, under `[^`]+`( and `[^`]+`)?:": _add,
    r"In `\S+`, add `[^`]+` to `[^`]+`\.": lambda file, texts, _: add_to_yaml(file, _path(texts[1]), texts[0]),
    r"In `\S+`, after the line `[^`]+`:": lambda file, lines, code: insert_after(file, lines[0], code),
    r"In `\S+`, replace `[^`]+` with `[^`]+`\.": _replace,
    r"In `\S+`, replace the method `\w+` with:": lambda file, names, code: replace_definition(file, names[0], code),
    r"In `\S+`, append to the class `\w+`:": lambda file, names, code: append_to_class(file, names[0], code),
    r"In `\S+`, append:": _append,
}


def _names(sentence: str) -> list[str]:
    return re.findall(r"`([^`]+)`", sentence)


def _path(place: str) -> tuple[str | int, ...]:
    """Return the keys and indices of a place, such as `paths./api/tasks.get.parameters[3]`."""
    return tuple(_keys(place))


def _keys(place: str) -> Iterator[str | int]:
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place):
        yield int(index) if index else key
