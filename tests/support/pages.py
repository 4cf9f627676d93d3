"""The pages of the documentation and their code blocks."""

import re

from tests.support.project import ROOT

# Every page of the documentation, as a path in the project.
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


def text(page: str) -> str:
    """Return the text of a page, such as `docs/api.md`."""
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", text(page))


def block(page: str, language: str, after: str = "") -> str:
    """Return the first code block in a language after the words `after` on a page."""
    found = re.search(rf"```{language}\n(.*?)```", text(page).partition(after)[2] if after else text(page), re.DOTALL)
    assert found, f"{page} has no {language} block after: {after}"
    return found[1]
