"""The documentation in a real browser: the page at /docs, and the API reference that `make docs` builds."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from handlers.contract import document
from tests.support.project import ROOT
from tests.support.service import Service

pytestmark = pytest.mark.slow

# This timeout is long enough for a busy machine.
expect.set_options(timeout=30_000)
SCREENSHOT = ROOT / "build/screenshots/docs.png"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Yield a browser page that has the size of a small screen."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield page
    page.close()


def collect_errors(page: Page) -> list[str]:
    """Return a list that collects all console errors and exceptions of a page, including CSP violations."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def open_operation(page: Page, operation_id: str) -> Locator:
    """Click on an operation to expand it, and return the block of the operation on the page."""
    block = page.locator(f"#operations-Tasks-{operation_id}")
    block.locator(".opblock-summary-control").click()
    return block


def execute(block: Locator, status: str) -> Locator:
    """Click Execute, wait for a response with the given status, and return the element that shows its body."""
    block.get_by_role("button", name="Execute").click()
    expect(block.locator(".live-responses-table tbody .response-col_status")).to_contain_text(status)
    return block.locator(".live-responses-table .response-col_description pre").first


def test_tasks_are_created_listed_and_deleted_by_clicking(service: Service, page: Page) -> None:
    errors = collect_errors(page)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(service.url)

    assert page.url == f"{service.url}/docs"
    expect(page.get_by_role("heading", name="Tasks API")).to_be_visible()
    created = execute(open_operation(page, "createTask"), "201")
    expect(created).to_contain_text('"title": "Write the tutorial"')
    listing = open_operation(page, "listTasks")
    expect(execute(listing, "200")).to_contain_text('"title": "Write the tutorial"')
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOT, full_page=True)
    assert [task["id"] for task in service.client.get("/api/tasks").json()] == [1]
    expect(execute(open_operation(page, "getTask"), "200")).to_contain_text('"id": 1')
    replacement = open_operation(page, "replaceTask")
    replacement.locator("textarea").fill('{"title": "Clicked", "completed": true}')
    expect(execute(replacement, "200")).to_contain_text('"title": "Clicked"')
    expect(execute(open_operation(page, "deleteTask"), "200")).to_contain_text("Task deleted")
    expect(execute(listing, "200")).to_have_text("[]")
    assert service.client.get("/api/tasks").json() == []

    assert errors == []
    assert {url.split("/")[2] for url in urls if not url.startswith("data:")} == {service.url.removeprefix("http://")}


def test_examples_are_shown_but_not_sent(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/docs")

    parameters = open_operation(page, "replaceTask").locator(".parameters")
    expect(parameters.get_by_placeholder("If-Match")).to_have_value("")
    expect(parameters.get_by_placeholder("id", exact=True)).to_have_value("1")
    expect(parameters).to_contain_text("Example: *.")
    # Swagger UI fills in the default value of a parameter.
    expect(open_operation(page, "listTasks").get_by_placeholder("limit")).to_have_value("100")


def test_error_responses_expand_on_click(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/docs")
    block = open_operation(page, "getTask")
    missing = block.locator("tr.response").filter(has_text="404").first

    expect(missing).to_contain_text("There is no task with this id.")
    expect(missing).not_to_contain_text("Task not found")
    missing.get_by_role("button").click()
    expect(block).to_contain_text('"detail": "Task not found"')


def test_page_has_no_authorize_button_without_keys(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/docs")
    expect(page.locator(".opblock")).to_have_count(len(document.operations()))

    expect(page.get_by_role("button", name="Authorize")).to_have_count(0)


@pytest.mark.parametrize("width", [320, 390, 768, 1024])
def test_page_does_not_scroll_sideways(service: Service, browser: Browser, width: int) -> None:
    """This holds with all operations, responses and schemas expanded, and with a long title in a response."""
    service.client.post("/api/tasks", json={"title": "x" * 255})
    page = browser.new_page(viewport={"width": width, "height": 800}, is_mobile=True)
    page.goto(f"{service.url}/docs")
    expect(page.locator(".opblock")).to_have_count(len(document.operations()))

    for operation in ("listTasks", "createTask", "getTask", "replaceTask", "deleteTask"):
        execute(open_operation(page, operation), "20")
    click_all(page, "button.unfold")
    click_all(page, ".models-control[aria-expanded=false]")
    click_all(page, "button.tablinks[data-name=model][aria-selected=false]")
    click_all(page, ".model-box-control[aria-expanded=false]")

    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    # Nothing is hidden by making it too narrow to read.
    narrow = "cells => cells.filter(cell => cell.offsetWidth < 200).length"
    assert width > 800 or page.locator("tbody .response-col_description").evaluate_all(narrow) == 0
    page.close()


def click_all(page: Page, selector: str) -> None:
    """Click on elements until there are none. A script does so, because scrolling to each would take long."""
    page.wait_for_function(
        """selector => {
          const found = document.querySelectorAll(selector);
          found.forEach((element) => element.click());
          return found.length === 0;
        }""",
        arg=selector,
    )


def test_page_follows_the_preferred_color_scheme(service: Service, browser: Browser) -> None:
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
        page.goto(f"{service.url}/docs")
        expect(page.locator(".opblock")).to_have_count(len(document.operations()))
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
    assert {url.partition(":")[0] for url in loaded} <= {"file", "blob", "data"}
