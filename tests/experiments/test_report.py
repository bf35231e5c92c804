"""Tables from files written by hand, so that every number is known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.report.__main__ import main
from experiments.report.reading import Report
from experiments.report.table import mean_ranks, relative_change, scores, table
from experiments.report.writing import side_by_side, summary, write_report
from experiments.trainer.run_folder import CONFIG, RESULTS, write_json
from tests.experiments.finished_runs import (
    many,
    two_tasks,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of single, uniform, mgda and a grid of two."""
    return two_tasks(tmp_path)


def cells(text: str, method: str) -> list[str]:
    (line,) = [x for x in text.splitlines() if x.startswith(f"| {method}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_holds_mean_and_standard_error(folder: Path):
    write_report(folder)
    text = (folder / "table.md").read_text()
    # Standard error of two values is half their distance: 90, 94 → 92 ± 2.
    assert cells(text, "single") == [
        "single", "92.00 ± 2.00", "84.00 ± 4.00", "88.00 ± 3.00", "0.1", "6 s", "1.00", "–",
    ]  # fmt: skip
    assert cells(text, "uniform")[1:4] == ["92.00 ± 1.00", "82.00 ± 1.00", "87.00 ± 1.00"]
    assert cells(text, "uniform")[-1] == "96.46 / 94.99"
    # 3 + 1.5 s of training and 10 s of compilation; 1.5 s a fastest epoch against 1 s.
    assert cells(text, "mgda")[5:7] == ["14 s", "1.50"]
    # The grid is represented by its best on validation, whatever the test part says.
    assert cells(text, "grid")[:3] == ["grid, best 0.25/0.75", "81.00 ± 1.00", "91.00 ± 1.00"]


def test_relative_change_and_mean_rank(folder: Path):
    report = Report(folder)
    assert relative_change(report, "single") == 0
    assert relative_change(report, "uniform") == pytest.approx(50 * 2 / 84)
    assert relative_change(report, "grid") == pytest.approx(50 * (11 / 92 - 7 / 84))
    # Left: three share the first three places. Right: grid, single, then two that tie.
    assert mean_ranks(report) == {"single": 2.0, "uniform": 2.75, "mgda": 2.75, "grid": 2.5}


def test_many_methods_are_ranked_in_the_table(folder: Path):
    results = json.loads((folder / RESULTS).read_text())
    results |= {"pcgrad": {**results["mgda"]}}
    for run in results["pcgrad"]["runs"]:
        run["method"] = "pcgrad"
    write_json(folder / RESULTS, results)
    text = write_report(folder)
    assert "| Δm % | mean rank |" in text
    # Right: grid, single, then three that tie for places 3 to 5.
    assert cells(text, "grid")[5:7] == ["1.81", "3.0"]


def test_a_failed_seed_is_left_out_and_named(folder: Path):
    results = json.loads((folder / RESULTS).read_text())
    failed = results["uniform"]["runs"][1]
    failed["failed_step"] = 7
    del failed["test"]
    write_json(folder / RESULTS, results)
    write_report(folder)
    text = (folder / "table.md").read_text()
    assert cells(text, "uniform")[1:3] == ["91.00", "81.00"]
    assert "- uniform: stopped at a number that is not finite: seed 1 (step 7)." in text


@pytest.mark.parametrize(
    ("missing", "message"), [(CONFIG, "not the folder"), (RESULTS, "no method")]
)
def test_a_folder_without_results_gets_one_line(
    folder: Path, missing: str, message: str, capsys: pytest.CaptureFixture[str]
):
    (folder / missing).unlink()
    with pytest.raises(SystemExit) as stop:
        main([str(folder)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and message in error


def test_a_broken_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / RESULTS).write_text("{")
    with pytest.raises(SystemExit):
        main([str(folder)])
    assert f"{folder / RESULTS}: not a readable JSON file" in capsys.readouterr().err


def test_the_relative_change_is_defined_where_a_single_task_scores_zero(tmp_path: Path):
    report = Report(many(tmp_path, 14, single=0.0))
    single, mgda = report.row("single").mean, report.row("mgda").mean
    assert (single == 0).sum() == 3
    want = np.mean([100 * (s - m) / s for s, m in zip(single[3:], mgda[3:], strict=True)])
    np.testing.assert_allclose(relative_change(report, "mgda"), want, rtol=1e-12)
    text = summary(report)
    assert "without the tasks that single scores 0 on: task_000, task_001, task_002." in text
    assert "nan" not in text


def test_a_negative_single_task_score_keeps_the_sign_of_the_change(tmp_path: Path):
    report = Report(many(tmp_path, 14, single=-1.0))
    for run in report.results["mgda"]["runs"]:
        run["test"]["accuracy"] = [s + 1.0 for s in report.row("single").mean]
    assert relative_change(report, "mgda") < 0  # every task is better


@pytest.mark.parametrize("num_tasks", [14, 159])
def test_the_table_of_many_tasks_is_narrow_and_a_file_has_them_all(tmp_path: Path, num_tasks: int):
    report = Report(many(tmp_path, num_tasks))
    text = table(report)
    assert max(map(len, text.splitlines())) < 140
    worst = report.row("mgda").mean.argmin()
    assert f"task_{worst:03}" in text and "Δm %" in text
    rows = list(csv.DictReader(scores(report).splitlines()))
    assert len(rows) == (2 * 2 + num_tasks) * num_tasks  # two seeds of two methods, and singles
    mine = [r for r in rows if r["method"] == "mgda" and r["task"] == "task_003"]
    got = np.mean([float(r["value"]) for r in mine])
    np.testing.assert_allclose(got, report.row("mgda").mean[3], rtol=1e-12)


def test_runs_are_set_side_by_side(folder: Path, tmp_path: Path):
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for name in (CONFIG, RESULTS):
        (fewer / name).write_bytes((folder / name).read_bytes())
    results = json.loads((fewer / RESULTS).read_text())
    del results["mgda"]
    write_json(fewer / RESULTS, results)
    lines = side_by_side([Report(folder), Report(fewer)]).splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines[2:]}
    assert [cell.strip() for cell in rows["uniform"]] == ["87.00 ± 1.00"] * 2
    assert [cell.strip() for cell in rows["mgda"]] == ["87.00 ± 1.00", "–"]
    (tmp_path / "many").mkdir()
    with pytest.raises(ExperimentError, match="has other tasks than"):
        side_by_side([Report(folder), Report(many(tmp_path / "many", 14))])
