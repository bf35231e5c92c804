"""The tests of one rule next to each other: they share compiled programs, which a worker keeps."""

from pathlib import Path

import pytest

from tests.weighting.rules import RULES

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [k for k, item in enumerate(items) if _rule(item)]
    for place, item in zip(places, sorted((items[k] for k in places), key=_rule), strict=True):
        items[place] = item


def _rule(item: pytest.Item) -> str:
    """The rule that a test of this folder is about; "" where it is about none or several."""
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("name", "") if callspec and item.path.parent == HERE else ""
    return name if name in RULES else ""
