"""Whole runs of the tiny problem: what they leave, and that interrupted ones end the same."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.report.reading import Report
from experiments.report.writing import summary
from experiments.trainer.checkpoints import Checkpoints
from experiments.trainer.config import TrainingConfig
from experiments.trainer.experiment import run_experiment
from experiments.trainer.run_folder import METRICS, RESULTS, RunFolder, read_lines
from tests.experiments.tiny_problem import tiny_problem

# Orbax closes its event loop at the first damaged array, and tensorstore then reports a second one
# to the closed loop, from a thread of its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning"
)


def config(runs_dir: Path, **changes) -> TrainingConfig:
    defaults = {
        "methods": "uniform,mgda_ub",
        "seeds": 2,
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": (0.3, 0.01),
        "checkpoint_seconds": 0.0,
        "log_points": 2,
        "runs_dir": runs_dir,
        "name": "run",
    }
    return TrainingConfig(**{**defaults, **changes})


def run(runs_dir: Path, **changes) -> Path:
    return run_experiment(tiny_problem(), config(runs_dir, **changes), "tiny", {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    return run(tmp_path_factory.mktemp("whole"))


def numbers(path: Path) -> tuple[bytes, bytes]:
    return (path / RESULTS).read_bytes(), (path / METRICS).read_bytes()


def interrupt_after(monkeypatch: pytest.MonkeyPatch, logged: int) -> None:
    """Ctrl-C at the given call of the metrics log, half-way through its write."""
    plain, calls = RunFolder.log, iter(range(1000))

    def log(self, records, name=METRICS):
        if name == METRICS and next(calls) == logged:
            with open(self.path / METRICS, "a") as file:
                file.write(json.dumps(records[0])[:20])
            raise KeyboardInterrupt
        plain(self, records, name)

    monkeypatch.setattr(RunFolder, "log", log)


def test_a_run_leaves_its_files(whole: Path):
    results = json.loads((whole / RESULTS).read_text())
    assert list(results) == ["uniform", "mgda_ub"]
    records = read_lines(whole / METRICS)
    train = [r for r in records if r["method"] == "mgda_ub" and r["split"] == "train"]
    assert len(train) == 2 * 2 * 4 * 2  # seeds, learning rates, epochs, log points
    assert {len(r["weight"]) for r in train} == {2}
    assert {"loss", "weight", "cosine", "min_norm", "stationarity"} <= set(train[0])
    described = json.loads((whole / "config.json").read_text())
    assert described["config"]["seeds"] == 2 and described["versions"]["jax"] == jax.__version__


def test_results_pick_epoch_and_rate_on_validation(whole: Path):
    results = json.loads((whole / RESULTS).read_text())
    records = [r for r in read_lines(whole / METRICS) if r["split"] == "validation"]
    for method, result in results.items():
        means = {}
        for one in result["runs"]:
            mine = [
                np.mean(r["accuracy"])
                for r in records
                if (r["method"], r["seed"], r["learning_rate"])
                == (method, one["seed"], one["learning_rate"])
            ]
            assert one["best_epoch"] == int(np.argmax(mine)) + 1
            assert one["score"] == pytest.approx(max(mine), abs=1e-4)
            means.setdefault(one["learning_rate"], []).append(one["score"])
        best = max(means, key=lambda rate: np.mean(means[rate]))
        assert result["selected"] == {"": best}
        # Only what is reported has seen the test part.
        assert {r["learning_rate"] for r in result["runs"] if "test" in r} == {best}


@pytest.mark.parametrize("logged", [0, 2, 6])
def test_an_interrupted_run_ends_with_the_same_bytes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: int
):
    with monkeypatch.context() as patch:
        interrupt_after(patch, logged)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert numbers(run(tmp_path)) == numbers(whole)


def test_a_damaged_newest_checkpoint_falls_back(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    folder = tmp_path / "run" / "checkpoints" / "uniform"
    newest = folder / max((p.name for p in folder.iterdir() if p.is_dir()), key=int)
    assert newest.name == "3"
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="uniform/3: cannot be read, the one before is taken"):
        path = run(tmp_path)
    assert (folder.with_name("uniform.damaged") / "3").is_dir()  # nothing is deleted
    assert numbers(path) == numbers(whole)


def test_every_single_truncated_file_is_survived(tmp_path: Path):
    """One file cut at a time: the restored state is a checkpoint's own, never a mixture."""
    state = {"a": np.arange(5.0), "b": np.arange(3)}
    with Checkpoints(tmp_path / "good", 0) as checkpoints:
        for epoch in (1, 2):
            checkpoints.save(epoch, jax.tree.map(lambda x, e=epoch: x + e, state), 0.0, last=True)
    files = [p.relative_to(tmp_path / "good") for p in (tmp_path / "good" / "2").rglob("*")]
    files = [p for p in files if (tmp_path / "good" / p).is_file()]
    assert len(files) > 3
    for i, name in enumerate(files):
        damaged = tmp_path / f"damaged{i}"
        shutil.copytree(tmp_path / "good", damaged)
        content = (damaged / name).read_bytes()
        (damaged / name).write_bytes(content[: len(content) // 2])
        with warnings.catch_warnings(), Checkpoints(damaged, 0) as checkpoints:
            warnings.simplefilter("ignore")
            restored = checkpoints.restore(jax.tree.map(jax.numpy.asarray, state))
        assert restored is not None, name
        got, epoch = restored
        np.testing.assert_array_equal(got["a"], state["a"] + epoch, err_msg=str(name))
        np.testing.assert_array_equal(got["b"], state["b"] + epoch, err_msg=str(name))


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path):
    with Checkpoints(tmp_path / "c", 0) as checkpoints:
        for epoch, score in enumerate((1.0, 9.0, 3.0, 2.0, 4.0), start=1):
            checkpoints.save(epoch, {"a": np.zeros(2)}, score, last=True)
    assert sorted(int(p.name) for p in (tmp_path / "c").iterdir()) == [2, 4, 5]


def test_another_configuration_is_refused(whole: Path):
    with pytest.raises(ExperimentError, match=r"holds a run with epochs 4, not 5; .*--overwrite"):
        run(whole.parent, epochs=5)
    with pytest.raises(ExperimentError, match=r"epochs 4, not 5 and 1 more"):
        run(whole.parent, epochs=5, seeds=3)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ExperimentError, match="is not a run"):
            run(tmp_path, overwrite=overwrite)
    assert (tmp_path / "run" / "precious").exists()


def test_overwrite_trains_anew(tmp_path: Path):
    run(tmp_path, epochs=1, methods="uniform", seeds=1, learning_rate=(0.1,))
    path = run(tmp_path, epochs=1, methods="uniform", seeds=1, learning_rate=(0.2,), overwrite=True)
    (result,) = json.loads((path / RESULTS).read_text()).values()
    assert [r["learning_rate"] for r in result["runs"]] == [0.2]


def test_failed_runs_are_reported_and_a_method_without_any_left_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = run(tmp_path, methods="uniform", learning_rate=(0.1, 1e38))
    said = [line for line in capsys.readouterr().err.splitlines() if "not finite" in line]
    assert len(said) == 2  # one line a seed
    assert "uniform, learning rate 1e+38, seed 0: " in said[0] and "at step" in said[0]
    (result,) = json.loads((path / RESULTS).read_text()).values()
    assert result["selected"] == {"": 0.1}
    assert "seed 1" in summary(Report(path)).split("not finite: ")[1]
    with pytest.raises(ExperimentError, match="no run of this method is left") as info:
        run(tmp_path, methods="uniform", learning_rate=(1e38,), overwrite=True)
    assert "\n" not in str(info.value)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path):
    with pytest.raises(ExperimentError, match="at most the 48 training examples, got 64"):
        run(tmp_path, batch_size=64)
    assert not (tmp_path / "run").exists()


def test_padding_does_not_count(whole: Path, tmp_path: Path):
    """Evaluation in batches that do not divide the 20 examples gives the same scores."""
    problem = dataclasses.replace(tiny_problem(), eval_batch=7)
    path = run_experiment(problem, config(tmp_path), "tiny", {})
    mine, theirs = (json.loads((p / RESULTS).read_text()) for p in (path, whole))
    for method in theirs:
        for a, b in zip(mine[method]["runs"], theirs[method]["runs"], strict=True):
            np.testing.assert_allclose(
                a["validation"]["accuracy"], b["validation"]["accuracy"], rtol=1e-6
            )


def test_runs_one_after_another_are_the_same_runs(whole: Path, tmp_path: Path):
    path = run(tmp_path, runs_at_once=1)
    mine, theirs = (json.loads((p / RESULTS).read_text()) for p in (path, whole))
    for method in theirs:
        assert mine[method]["selected"] == theirs[method]["selected"]
    eps = float(np.finfo(np.float32).eps)
    for a, b in zip(read_lines(path / METRICS), read_lines(whole / METRICS), strict=True):
        if a["split"] == "train":
            np.testing.assert_allclose(a["loss"], b["loss"], rtol=1000 * eps)


def test_tuned_rates_are_taken_from_a_finished_run(whole: Path, tmp_path: Path):
    results = json.loads((whole / RESULTS).read_text())
    path = run(tmp_path, tuned_by=whole, seeds=3)
    for method, result in json.loads((path / RESULTS).read_text()).items():
        assert result["selected"] == results[method]["selected"]
        assert len(result["runs"]) == 3
    with pytest.raises(ExperimentError, match="--tuned-by: .* has no finished mgda$"):
        run(tmp_path, tuned_by=whole, methods="mgda", name="other")


def test_a_model_without_a_common_representation_refuses_mgda_ub(tmp_path):
    apart = dataclasses.replace(tiny_problem(), common=False)
    with pytest.raises(ExperimentError, match="--methods: mgda_ub needs one representation"):
        run_experiment(apart, config(tmp_path), "tiny", {})
