"""The documentation is complete, its links work, and every page can be reached from the README."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from handlers.contract import document, standard
from handlers.contract.document import COMMAND, PREFIX
from handlers.settings import ServerSettings, variable
from tests.support import inside
from tests.support.pages import PAGES, prose, section, text
from tests.support.project import ROOT
from tests.support.recipes import PAGE as RECIPES_PAGE
from tests.support.recipes import RECIPES, new_files

LINK = re.compile(r"!?\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\]\(([^)\s]+)\)")
# Files that the pages tell readers to create.
NEW_FILES = {"handlers/operations.py", "handlers/security.py"}.union(*map(new_files, RECIPES.values()))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
METRICS = "Which metrics are there?"
SETTINGS = "Which settings are there?"
VARIABLES = {variable(name) for name in ServerSettings.model_fields}


def links(page: str) -> list[str]:
    """Return the targets of the links of a page, except for links to other sites."""
    found = LINK.findall(prose(page))
    return [target for target in found if not re.match(r"\w+:", target)]


def resolve(page: str, target: str) -> tuple[str, str]:
    """Return the file that a link leads to, as a path in the project, and the anchor in the link."""
    path, _, anchor = unquote(target).partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    resolved = Path(file).resolve()
    assert resolved.is_relative_to(ROOT), f"{page} links to {target}, which is outside of the project"
    return resolved.relative_to(ROOT).as_posix(), anchor


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"(?m)^#+ +(.*?) *$", prose(page))
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(slugs) == len(set(slugs)), f"{page} has a heading twice, so that a link to it is ambiguous"
    return set(slugs)


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of each row of the first table below a heading, without the header row."""
    table = re.search(r"(?m)(?:^\|.*\n)+", text(page).partition(f"\n## {heading}\n")[2])
    assert table, f"{page} has no table below: {heading}"
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[0].splitlines()[2:]]


def test_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 220


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target in links(page):
        file, anchor = resolve(page, target)
        assert (ROOT / file).exists(), f"{page} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(file), f"{page} links to {target}, but {file} has no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = {"README.md"}, ["README.md"]
    while waiting:
        page = waiting.pop()
        found = {resolve(page, target)[0] for target in links(page)} & set(PAGES)
        waiting += found - reached
        reached |= found

    assert set(PAGES) - reached == set()


def test_every_setting_is_documented() -> None:
    documented = {(flag, name, default) for flag, name, default, _ in rows("docs/configuration.md", SETTINGS)}

    assert documented == {
        (f"`--{name.replace('_', '-')}`", f"`{variable(name)}`", shown(field.default))
        for name, field in ServerSettings.model_fields.items()
    }


def shown(default: object) -> str:
    """Return a default value in the notation of the table of settings."""
    if default == "":
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_every_setting_has_a_meaning() -> None:
    assert all(meaning for *_, meaning in rows("docs/configuration.md", SETTINGS))


def commands(folder: Path, *parents: str) -> Iterator[str]:
    """Yield the name of every command that has no subcommands, as the help texts show it."""
    usage = " ".join(inside.run(folder, *parents, "--help").stdout.partition("\n\n")[0].split())
    if not (found := re.search(r"\{([\w,-]+)\} \.\.\.", usage)):
        yield " ".join(parents)
        return
    for name in found[1].split(","):
        yield from commands(folder, *parents, name)


def test_every_command_is_documented(tmp_path: Path) -> None:
    documented = " ".join(cells[0] for cells in rows("docs/configuration.md", "Which commands are there?"))

    # The pattern skips arguments such as `FILE` and `--from`.
    assert set(re.findall(rf"`{COMMAND} ([a-z]+(?: [a-z]+)*)", documented)) == set(commands(tmp_path))


def test_every_metric_is_documented() -> None:
    source = (ROOT / "handlers/observability/metrics.py").read_text("utf-8")
    metrics = {
        # Prometheus adds `_total` to the name of a counter.
        (f"{name}_total" if kind == "Counter" else name, kind.lower())
        for kind, name in re.findall(r'(Counter|Gauge|Histogram)\(\s*f"{PREFIX}_(\w+)"', source)
    }
    documented = {
        (name.strip("`").partition("{")[0].removeprefix(PREFIX.lower()), kind)
        for name, kind, _ in rows("docs/operations.md", METRICS)
    }

    assert metrics
    assert len(metrics) == len(set(re.findall(r'f"{PREFIX}_\w+"', source)))
    assert documented == metrics


def keys(value: Any) -> Iterator[str]:
    """Yield every key of a YAML document."""
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(child)
    if isinstance(value, dict):
        yield from map(str, value)


def test_every_extension_is_documented() -> None:
    used = {key for path in (document.PATH, standard.PATH) for key in keys(yaml.safe_load(path.read_text("utf-8")))}
    documented = {name.strip("`") for name, *_ in rows("docs/architecture.md", "Which OpenAPI extensions are there?")}

    # No contract of this project needs another name than that of its title.
    assert documented == {key for key in used if key.startswith("x-")} | {"x-name"}


def test_listed_refusals_are_those_of_the_check() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "handlers").rglob("*.py"))
    refusals = re.findall(
        r"(?m)^\|[^|]+\| `([^`]+)` \|[^|]+\|$", section(RECIPES_PAGE, "What does the engine support?")
    )

    assert refusals
    assert [sentence for sentence in refusals if sentence not in source] == []


@pytest.mark.parametrize("page", PAGES)
def test_named_targets_variables_and_files_exist(page: str) -> None:
    targets = set(re.findall(r"(?m)(?:^|`|&& )make ([a-z][a-z-]*)", text(page)))
    variables = set(re.findall(r"\b(?:DATABASE_URL|TASKS_API_(?!KEY\b)\w+)", text(page)))
    files = re.findall(r"`((?:handlers|models|tests|docs)/[\w./-]+)`", prose(page))

    assert targets <= set(re.findall(r"(?m)^([a-z-]+):", MAKEFILE))
    # The changelog names the variable TASKS_API_VERSION, although the commands ignore this variable.
    assert variables - {"TASKS_API_VERSION"} <= VARIABLES
    assert [name for name in files if not (ROOT / name).exists() and name not in NEW_FILES] == []
