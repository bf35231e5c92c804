"""The programs of docs/branch.md, before and after the change they show."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_readme import python_blocks

PAGE = (Path(__file__).parent.parent / "docs" / "branch.md").read_text()
NEEDS = {"Flax NNX": "flax", "Flax Linen": "flax", "Equinox": "equinox", "Haiku": "haiku"}


def diffs() -> dict[str, list[str]]:
    """The ```diff block of every section that has one, by its heading."""
    blocks = {}
    for section in PAGE.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        if "```diff\n" in body:
            blocks[heading] = body.split("```diff\n")[1].split("```")[0].splitlines()
    return blocks


DIFFS = diffs()


@pytest.fixture(scope="module", autouse=True)
def promotion():
    """Pages are a user's code: JAX's own promotion rules."""


def run(lines: list[str], without: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "page"}
    program = "\n".join(line[1:] for line in lines if not line.startswith(without))
    exec(python_blocks(PAGE)[0][1], namespace)
    exec(program, namespace)
    return namespace


@pytest.mark.parametrize("heading", DIFFS)
def test_the_program_runs_before_and_after_and_compiles_no_more_often(heading: str) -> None:
    package = NEEDS.get(heading, "jax")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    changed = [line for line in DIFFS[heading] if line.startswith("+")]
    assert len(changed) <= 11
    before, after = run(DIFFS[heading], without="+"), run(DIFFS[heading], without="-")
    if hasattr(after["step"], "_cache_size"):
        assert after["step"]._cache_size() == before["step"]._cache_size()
    if "report" in after:
        weights = np.asarray(after["report"].task_weights)
        assert weights.shape == (2,) and (weights >= 0).all() and weights.any()


def test_three_lines_change_without_a_report():
    assert [line[:1] for line in DIFFS["Plain JAX"]].count("+") == 3
    assert all(len(line) <= 101 for lines in DIFFS.values() for line in lines)


def test_every_framework_is_on_the_page():
    assert set(NEEDS) <= set(DIFFS)
