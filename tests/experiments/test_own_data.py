"""docs/own_data.md keeps its word: a data set of one's own in under 60 lines, run as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.tiny_run import ROOT

PAGE = ROOT / "docs" / "own_data.md"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's program in a file."""
    folder = tmp_path_factory.mktemp("own")
    (code,) = PAGE.read_text().split("```python\n")[1:]
    (folder / "parity.py").write_text(code.split("```")[0])
    return folder / "parity.py"


def run(module: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, module.name, "--cache-dir", str(ROOT / ".cache"), *args],
        cwd=module.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_program_is_short(module: Path):
    assert 40 < len(module.read_text().splitlines()) < 60


def test_it_trains_any_rule_and_leaves_a_table_and_pictures(module: Path):
    found = run(module, "--methods", "uniform,nash_mtl_ub", "--seeds", "2", "--epochs", "3")
    assert found.returncode == 0, found.stderr
    rows = [line.split("|") for line in found.stdout.splitlines() if line.startswith("| ")]
    accuracies = {row[1].strip(): [float(cell.split()[0]) for cell in row[2:4]] for row in rows[2:]}
    assert set(accuracies) == {"uniform", "nash_mtl_ub"}
    assert all(accuracy > 75 for pair in accuracies.values() for accuracy in pair)
    names = {path.name for path in (module.parent / "runs" / "parity").iterdir()}
    assert {"table.md", "accuracy_profile.png", "weights.png", "results.json"} <= names


def test_a_wrong_method_is_one_line(module: Path):
    found = run(module, "--methods", "nosuch")
    assert found.returncode == 2
    assert found.stderr.startswith("parity: --methods: no method 'nosuch'")
    assert found.stderr.count("\n") == 1
