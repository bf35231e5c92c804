"""The list of experiments and runs."""

from pathlib import Path

import pytest

from experiments.__main__ import experiments, main
from experiments.trainer.run_folder import CONFIG, RESULTS, TIMINGS, write_json


def run(folder: Path, name: str, finished: tuple[str, ...], begun: str = "") -> None:
    (folder / name).mkdir()
    config = {"methods": "uniform,mgda(normalization=l2)", "epochs": 9}
    write_json(
        folder / name / CONFIG, {"experiment": "tiny", "config": config, "tasks": ["a", "b"]}
    )
    if finished:
        write_json(folder / name / RESULTS, dict.fromkeys(finished))
    if begun:
        (folder / name / TIMINGS).write_text(begun)


def test_runs_are_listed_with_their_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path, "done", ("uniform", "mgda(normalization=l2)"))
    run(tmp_path, "half", ("uniform",), '{"method": "mgda(normalization=l2)", "epoch": 4}\n')
    run(tmp_path, "damaged", ())
    (tmp_path / "damaged" / CONFIG).write_text("{}")
    (tmp_path / "other").mkdir()
    run(tmp_path, ".half.replaced-1", ())
    main([str(tmp_path)])
    out, err = capsys.readouterr()
    assert err == ""
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    assert rows[2][:2] == ["damaged", "–"] and "not as a run wrote it" in rows[2][3]
    assert rows[3] == ["done", "tiny", "2 of 2", "–"]
    assert rows[4] == ["half", "tiny", "1 of 2", "mgda(normalization=l2) at epoch 4 of 9"]
    assert len(rows) == 5
    assert {"multimnist", "celeba", "cityscapes", "toy"} <= set(experiments())
    assert all(f"python -m experiments.{name}" in out for name in experiments())


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "absent")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"experiments: {tmp_path / 'absent'}: no such folder\n"
