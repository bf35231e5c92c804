"""A sample of what `bad_inputs` tries: no traceback, nothing lost."""

from pathlib import Path

import pytest

from tests.experiments.bad_inputs.groups import GROUPS, outcomes
from tests.experiments.bad_inputs.outcome import FINE, LOST, TRACEBACK, no_training


def assert_no_traceback(found: dict, refused: bool = False) -> None:
    unwanted = (TRACEBACK, LOST, *([FINE] if refused else []))
    assert not {label: o for label, o in found.items() if o.kind in unwanted}


def test_wrong_flags_get_one_line(tmp_path: Path):
    with no_training():
        found = outcomes(GROUPS["flags"](tmp_path / "flags"), every=13)
    assert len(found) > 50
    assert_no_traceback(found, refused=True)


def test_damaged_files_of_data_and_weights_get_one_line(tmp_path: Path):
    found = outcomes(GROUPS["data"](tmp_path / "data"))
    assert len(found) > 120
    assert_no_traceback(found)


@pytest.mark.filterwarnings("ignore")
def test_edited_folders_of_runs_get_one_line_and_keep_what_they_hold(tmp_path: Path):
    assert_no_traceback(outcomes(GROUPS["folders"](tmp_path / "folders"), every=40))


@pytest.mark.filterwarnings("ignore")
def test_what_the_system_refuses_gets_one_line(tmp_path: Path):
    found = outcomes(GROUPS["system"](tmp_path / "system"), every=9)
    assert_no_traceback(found)
