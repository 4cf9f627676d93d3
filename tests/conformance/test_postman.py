"""Import the published document into Postman, and send the requests of the collection from top to bottom."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import METHODS
from tests.support.service import Start, run

# The import setting that docs/sdks.md names.
EXAMPLES = "parametersResolution=Example"


def expected_results(document: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the summary and first success status of each operation in order, or 404 after the DELETE of its path."""
    return [
        (item[method]["summary"], 404 if "delete" in list(item)[:index] else int(min(item[method]["responses"])))
        for item in document["paths"].values()
        for index, method in enumerate(item)
        if method in METHODS
    ]


@pytest.mark.parametrize(
    ("settings", "has_keys"),
    [(EXAMPLES, False), (f"{EXAMPLES},folderStrategy=Tags,enableOptionalParameters=false", True)],
    ids=["open", "with-key"],
)
def test_each_request_succeeds(node: Path, start: Start, tmp_path: Path, settings: str, has_keys: bool) -> None:
    variables = {"bearerToken": run(tmp_path, "key", "new", "postman").stdout.strip()} if has_keys else {}
    service = start()
    document = service.client.get("/openapi.json")
    source, collection, report = (tmp_path / f"{name}.json" for name in ("openapi", "collection", "report"))
    source.write_bytes(document.content)

    convert = (node / "openapi2postmanv2", "--spec", source, "--output", collection, "--options", settings)
    subprocess.run(convert, timeout=300, check=True)
    values = [f"--env-var={name}={value}" for name, value in variables.items()]
    exported = ("--reporters=json", f"--reporter-json-export={report}")
    subprocess.run([node / "newman", "run", collection, *exported, *values], timeout=300, check=True)

    sent = json.loads(report.read_text("utf-8"))["run"]["executions"]
    results = [(each["item"]["name"], each["response"]["code"]) for each in sent]
    assert results == expected_results(document.json())
