"""Leaves out the tests that would find a mutant for the wrong reason."""

import pytest

# Tests change these copies of the project by replacing text, which fails where a mutant has changed it.
TEXTUAL = {"checkout"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if TEXTUAL & set(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
