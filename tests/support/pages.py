"""The pages of the documentation and their code blocks."""

import json
import re
import subprocess
from itertools import zip_longest
from typing import Any

from pydantic_core import to_json

from tests.support.project import ROOT

# Every page of the documentation, as a path in the project.
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def text(page: str) -> str:
    """Return the text of a page, such as `docs/api.md`."""
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """Return the text of a page without its code blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", text(page))


def section(page: str, heading: str) -> str:
    """Return the text below a heading, up to the next heading of the same level."""
    found = re.search(rf"(?ms)^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text(page))
    assert found, f"{page} has no heading: {heading}"
    return found[2]


def block(page: str, language: str, after: str = "") -> str:
    """Return the first code block in a language after the words `after` on a page."""
    found = re.search(rf"```{language}\n(.*?)```", text(page).partition(after)[2] if after else text(page), re.DOTALL)
    assert found, f"{page} has no {language} block after: {after}"
    return found[1]


def assert_calls_give_the_documented_responses(text: str, url: str) -> None:
    """Run each call of a page against the service at a URL. The times in the responses may differ."""
    calls = re.findall(r"^\$ (curl .*)\n(.*)$", text, re.MULTILINE)
    assert calls
    assert len(calls) == text.count("\n$ curl ")

    for call, response in calls:
        command = call.replace("http://127.0.0.1:8000", url)
        output = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", check=True).stdout
        shown = as_shown(MOMENT.sub("moment", output), MOMENT.sub("moment", response))
        assert shown == MOMENT.sub("moment", response), f"write under {call}: {output}"


def as_shown(output: str, response: str) -> str:
    """Return the output without the properties that a page does not show; the contract may have more."""
    try:
        return to_json(_as_shown(json.loads(output), json.loads(response))).decode()
    except json.JSONDecodeError:
        return output


def _as_shown(output: Any, shown: Any) -> Any:
    if isinstance(output, list) and isinstance(shown, list):
        return [_as_shown(*pair) for pair in zip_longest(output, shown)]
    if isinstance(output, dict) and isinstance(shown, dict):
        return {name: _as_shown(value, shown[name]) for name, value in output.items() if name in shown}
    return output
