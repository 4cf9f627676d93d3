"""The documentation in a real browser: what is served at /docs, and the reference that `make docs` builds."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from handlers.contract import document as contract
from tests.support.project import ROOT
from tests.support.service import Service

pytestmark = pytest.mark.slow

# A page that hangs fails the test, a busy machine does not.
expect.set_options(timeout=30_000)
SCREENSHOT = ROOT / "build/screenshots/docs.png"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of the size of a small screen."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield page
    page.close()


def heard(page: Page) -> list[str]:
    """Return what will hold every complaint of the page; one is what a policy has kept from being loaded."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def opened(page: Page, operation_id: str) -> Locator:
    """Open an operation with a click."""
    block = page.locator(f"#operations-Tasks-{operation_id}")
    block.locator(".opblock-summary-control").click()
    return block


def executed(block: Locator, status: str) -> Locator:
    """Click on Execute, and return the body of the answer."""
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table tbody .response-col_status")).to_contain_text(status)
    return block.locator(".live-responses-table .response-col_description pre").first


def test_tasks_are_created_listed_and_deleted_by_clicking(service: Service, page: Page) -> None:
    complaints = heard(page)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(service.url)

    assert page.url == f"{service.url}/docs"
    expect(page.get_by_role("heading", name="Tasks API")).to_be_visible()
    created = executed(opened(page, "createTask"), "201")
    expect(created).to_contain_text('"title": "Write the tutorial"')
    listing = opened(page, "listTasks")
    expect(executed(listing, "200")).to_contain_text('"title": "Write the tutorial"')
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOT, full_page=True)
    assert [task["id"] for task in service.client.get("/api/tasks").json()] == [1]
    expect(executed(opened(page, "getTask"), "200")).to_contain_text('"id": 1')
    replacement = opened(page, "replaceTask")
    replacement.locator("textarea").fill('{"title": "Clicked", "completed": true}')
    expect(executed(replacement, "200")).to_contain_text('"title": "Clicked"')
    expect(executed(opened(page, "deleteTask"), "200")).to_contain_text("Task deleted")
    expect(executed(listing, "200")).to_have_text("[]")
    assert service.client.get("/api/tasks").json() == []

    assert complaints == []
    assert {address.split("/")[2] for address in addresses if not address.startswith("data:")} == {
        service.url.removeprefix("http://")
    }


def test_examples_are_shown_and_not_sent(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/docs")

    parameters = opened(page, "replaceTask").locator(".parameters")
    expect(parameters.get_by_placeholder("If-Match")).to_have_value("")
    expect(parameters.get_by_placeholder("id", exact=True)).to_have_value("1")
    expect(parameters).to_contain_text('Example: "1-4c1f0e9a".')
    # Of what is left out the default is sent.
    expect(opened(page, "listTasks").get_by_placeholder("limit")).to_have_value("100")


def test_refusals_are_unfolded_with_a_click(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/docs")
    block = opened(page, "getTask")
    missing = block.get_by_role("row", name="404")

    expect(missing).to_contain_text("There is no task with this id.")
    expect(missing).not_to_contain_text("Task not found")
    missing.get_by_role("button").click()
    expect(block).to_contain_text('"detail": "Task not found"')


def test_nobody_is_asked_for_a_key_that_is_not_needed(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/docs")
    expect(page.locator(".opblock")).to_have_count(len(contract.operations()))

    expect(page.get_by_role("button", name="Authorize")).to_have_count(0)


def test_page_is_as_wide_as_a_phone(service: Service, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, is_mobile=True)
    page.goto(f"{service.url}/docs")

    assert page.evaluate("window.innerWidth") == 390
    page.close()


def test_page_is_dark_where_the_reader_wants_it(service: Service, browser: Browser) -> None:
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
        page.goto(f"{service.url}/docs")
        expect(page.locator(".opblock")).to_have_count(len(contract.operations()))
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()

    assert backgrounds == {"light": "rgb(250, 251, 252)", "dark": "rgb(28, 32, 34)"}


def test_reference_is_one_file(node: Path, page: Page, tmp_path: Path) -> None:
    reference = tmp_path / "reference.html"
    subprocess.run(["make", "--silent", "docs", f"REFERENCE={reference}"], cwd=ROOT, check=True, capture_output=True)
    loaded: list[str] = []
    page.on("requestfinished", lambda request: loaded.append(request.url))
    page.goto(reference.as_uri())

    page.get_by_role("link", name="Tasks", exact=True).first.click()
    page.get_by_text("Replace a task").first.click()
    expect(page.get_by_role("heading", name="Replace a task")).to_be_visible()
    assert {address.partition(":")[0] for address in loaded} <= {"file", "blob", "data"}
