"""Folders of runs: whose they are, who is in them, and what --overwrite may touch."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.errors import ExperimentError
from experiments.report.writing import write_report
from experiments.trainer.checkpoints import Checkpoints
from experiments.trainer.config import TrainingConfig
from experiments.trainer.experiment import run_experiment
from experiments.trainer.run_folder import METRICS, RESULTS, WRITTEN, RunFolder, folder_name
from experiments.trainer.run_lock import release_lock, take_lock
from tests.experiments.tiny_problem import tiny_problem
from tests.experiments.tiny_run import ROOT


def config(runs_dir: Path, **changes) -> TrainingConfig:
    defaults = {
        "methods": "uniform",
        "seeds": 1,
        "epochs": 2,
        "batch_size": 16,
        "checkpoint_seconds": 0.0,
        "log_points": 1,
        "runs_dir": runs_dir,
        "name": "run",
    }
    return TrainingConfig(**{**defaults, **changes})


def run(runs_dir: Path, **changes) -> Path:
    return run_experiment(tiny_problem(), config(runs_dir, **changes), "tiny", {})


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return run(tmp_path)


SPECS = (
    "cr_mogm(weighting=gradnorm(alpha=1.0))",
    "cr_mogm(weighting=gradnorm,alpha=1.0)",
    "cr_mogm(weighting=gradnorm, alpha=1.0)",
    "cr_mogm_weighting=gradnorm_alpha=1.0_",
    "fixed(weights=(0.5,0.5))",
    "fixed(weights=[0.5,0.5])",
    "mgda",
    "Mgda",
    "é",
    "ü",
    f"fixed(weights={(0.5,) * 400})",
    f"fixed(weights={(0.5,) * 401})",
)


def test_every_method_has_a_checkpoint_folder_of_its_own():
    names = [folder_name(spec).lower() for spec in SPECS]
    assert len(set(names)) == len(SPECS)
    assert all(name.isascii() and len(name) < 100 and "/" not in name for name in names)


def test_methods_that_differ_in_punctuation_are_trained_each(tmp_path: Path):
    first, second = SPECS[:2]
    both = json.loads((run(tmp_path, methods=f"{first},{second}") / RESULTS).read_text())
    alone = json.loads((run(tmp_path, methods=second, name="alone") / RESULTS).read_text())
    assert both[second] == alone[second]
    log = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    assert [sum(r["method"] == spec for r in log) for spec in (first, second)] == [4, 4]


def test_checkpoints_of_another_method_are_refused(tmp_path: Path):
    with Checkpoints.of_method(tmp_path, "mgda", 0):
        pass
    (tmp_path / "mgda" / "method.txt").write_text("uniform")
    with pytest.raises(ExperimentError, match="holds checkpoints of 'uniform', not of 'mgda'"):
        Checkpoints.of_method(tmp_path, "mgda", 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": "mgad"},
        {"batch_size": 64},
        {"tuned_by": Path("."), "methods": "mgda"},
        {"tuned_by": "itself"},
    ],
)
def test_overwriting_by_a_command_that_fails_changes_nothing(finished: Path, changes: dict):
    before = content(finished.parent)
    if changes.get("tuned_by") == "itself":
        changes = {"tuned_by": finished}
    with pytest.raises(ExperimentError):
        run(finished.parent, overwrite=True, **changes)
    assert content(finished.parent) == before


def test_overwriting_keeps_what_no_run_wrote(finished: Path):
    (finished / "notes.md").write_text("mine")
    (finished / "more").mkdir()
    (finished / "more" / "data").write_text("mine too")
    path = run(finished.parent, learning_rate=(0.2,), overwrite=True)
    (result,) = json.loads((path / RESULTS).read_text()).values()
    assert [r["learning_rate"] for r in result["runs"]] == [0.2]
    assert (path / "notes.md").read_text() == "mine"
    assert (path / "more" / "data").read_text() == "mine too"
    assert [p.name for p in path.parent.iterdir()] == ["run"]


def test_a_replaced_run_stays_until_the_new_one_is_finished(
    finished: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(self, *_):
        raise KeyboardInterrupt

    before = content(finished)
    (finished / "notes.md").write_text("mine")
    anew = {"learning_rate": (0.2,), "overwrite": True}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "add_result", stop)
        run(finished.parent, **anew)
    assert content(finished.with_name(".run.replaced-1")) == before
    checkpoint = max((finished / "checkpoints").rglob("2/_CHECKPOINT_METADATA"))
    inode = checkpoint.stat().st_ino
    run(finished.parent, **anew)  # goes on, does not train anew
    assert checkpoint.stat().st_ino == inode
    assert [p.name for p in finished.parent.iterdir()] == ["run"]
    assert (finished / "notes.md").read_text() == "mine"


def test_stopped_between_two_moves_nothing_is_missing(finished: Path):
    (finished / "notes.md").write_text("mine")
    finished.rename(finished.with_name(".run.replaced-1"))
    path = run(finished.parent, learning_rate=(0.2,), overwrite=True)
    assert (path / "notes.md").read_text() == "mine" and (path / RESULTS).exists()


@pytest.mark.parametrize("text", ["{}", "[]", "null", "\0", '{"experiment": "x"}', "[" * 10**5])
def test_a_folder_with_another_configuration_file_is_no_run(tmp_path: Path, text: str):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(text)
    (tmp_path / "run" / "results.json").write_text("precious")
    before = content(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ExperimentError, match=r"config\.json: not"):
            run(tmp_path, overwrite=overwrite)
    assert content(tmp_path) == before


def test_only_what_is_listed_is_written(finished: Path):
    write_report(finished)
    assert {path.name for path in finished.iterdir()} <= set(WRITTEN)


def test_one_process_at_a_time(finished: Path):
    lock = take_lock(finished.with_name(".run.lock"))
    assert lock is not None and take_lock(finished.with_name(".run.lock")) is None
    before = content(finished)
    for overwrite in (False, True):
        with pytest.raises(ExperimentError, match="run: another process is training in this"):
            run(finished.parent, overwrite=overwrite)
    assert content(finished) == before
    release_lock(lock)
    run(finished.parent)


def test_a_killed_process_leaves_no_lock(tmp_path: Path):
    path = tmp_path / ".run.lock"
    code = (
        "import sys, time; from pathlib import Path; "
        "from experiments.trainer.run_lock import take_lock; "
        "lock = take_lock(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    assert take_lock(path) is None
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    lock = take_lock(path)
    assert lock is not None
    release_lock(lock)
    assert not path.exists()


@pytest.mark.parametrize("name", ["g[1]", "a\\b", "a*", "?", "gs:", ".hidden", "-x", "a\nb", " a"])
def test_names_whose_checkpoints_cannot_be_read_back_are_refused(tmp_path: Path, name: str):
    with pytest.raises(ExperimentError, match="--name: expected "):
        config(tmp_path, name=name).check()
    if not name.startswith((".", "-", " ")):
        with pytest.raises(ExperimentError, match="--runs-dir: expected "):
            config(tmp_path / name).check()


@pytest.mark.parametrize("name", ["é 日本", "a" * 200, "%20", "{a,b}", "~", "a:b", "x.tmp", "1"])
def test_checkpoints_in_other_folders_can_be_read_back(tmp_path: Path, name: str):
    config(tmp_path, name=name).check()
    path = run(tmp_path, name=name)
    (path / RESULTS).unlink()
    before = [p.stat().st_ino for p in sorted((path / "checkpoints").rglob("*"))]
    log = (path / METRICS).read_bytes()
    run(tmp_path, name=name)
    assert [p.stat().st_ino for p in sorted((path / "checkpoints").rglob("*"))] == before
    assert (path / METRICS).read_bytes() == log
