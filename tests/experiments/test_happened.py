"""What a run says of itself: weights on one task, rates at the edge, runs that stopped."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.report.dominance import FAR_BELOW, dominance
from experiments.report.happened import happened
from experiments.report.reading import Report
from experiments.report.writing import summary
from experiments.trainer.config import TrainingConfig
from experiments.trainer.experiment import run_experiment
from experiments.trainer.methods import parse_methods
from experiments.trainer.run_folder import RESULTS
from experiments.trainer.training import Recipe, Run, Trainer
from tests.experiments.tiny_problem import tiny_problem
from tests.experiments.tiny_run import CONFIG

TASKS = ("a", "b", "c")


def means(weight: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What a step with these weights of these gradients (T, P) logs."""
    direction = weight @ rows
    norm = np.linalg.norm(rows, axis=1)
    length = np.linalg.norm(direction)
    cosine = rows @ direction / (np.where(norm > 0, norm, 1) * (length or 1))
    return {"weight": weight, "norm": norm, "direction_cosine": cosine}


def orthogonal(norms: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal gradients and their min-norm weights, w_t ∝ 1/‖g_t‖²."""
    weight = 1 / np.square(norms)
    return weight / weight.sum(), np.diag(norms)


def test_the_min_norm_point_of_unequal_gradients_is_named_with_its_task():
    found = dominance(means(*orthogonal([0.01, 2.0, 1.0])))
    assert found is not None and found.task == 0 and found.shorter == pytest.approx(150)
    want = 0.01**-2 / (0.01**-2 + 0.25 + 1)
    assert found.share == pytest.approx(want)
    assert found.text(TASKS) == (
        "task 'a' held 100% of the weight, its gradient 1.5e+02 times shorter than the others'"
    )


def test_opposed_gradients_where_training_stands_still_are_named_too():
    rows = np.array([[0.01, 0.0], [-1.0, 1e-3]])
    weight = np.array([1.01, 0.01]) / 1.02  # nearly at the Pareto set: the direction is tiny
    found = dominance(means(weight, rows))
    assert found is not None and found.task == 0


def test_a_short_gradient_that_points_the_others_way_is_named_too():
    rows = np.array([[0.01, 0.0], [1.0, 1.0]])
    found = dominance(means(np.array([1.0, 0.0]), rows))
    assert found is not None and found.task == 0


def test_a_zero_gradient_that_takes_all_is_named():
    found = dominance(means(np.array([1.0, 0.0]), np.array([[0.0, 0.0], [3.0, 4.0]])))
    assert found is not None and found.text(TASKS).endswith("its gradient zero")


@pytest.mark.parametrize("num_tasks", [2, 40, 159])
def test_weights_that_make_up_for_the_lengths_are_not(num_tasks: int):
    norms = np.array([1e-5, *np.linspace(0.5, 2, num_tasks - 1)])
    weight = 1 / norms  # IMTL-G and Nash-MTL of orthogonal gradients
    assert dominance(means(weight / weight.sum(), np.diag(norms))) is None


def test_weights_of_like_gradients_are_not():
    weight, rows = orthogonal([1.01 * FAR_BELOW, 1.0, 1.0])
    assert dominance(means(weight, rows)) is None
    assert dominance(means(np.full(3, 1 / 3), rows)) is None


def test_without_gradients_there_is_the_share_alone():
    found = dominance({"weight": np.array([0.01, 0.98, 0.01])})
    assert found is not None and found.text(TASKS) == "task 'b' held 98% of the weight"
    # As GLS and FAMO weigh a loss in a unit a hundred times as large.
    balanced = {"weight": np.array([0.99, 0.01]), "loss": np.array([0.02, 2.0])}
    assert dominance(balanced) is None
    assert dominance({**balanced, "loss": np.array([2.0, 2.0])}) is not None
    assert dominance({"weight": np.array([np.nan, 1.0])}) is None
    assert dominance({"loss": np.array([1.0, 1.0])}) is None


def runs(rates: tuple[float, ...], stopped: int | None = None) -> list[dict]:
    return [
        {"variant": "", "learning_rate": rate, "seed": seed, "failed_step": None}
        | ({"failed_step": 7} if (rate, seed) == (rates[-1], stopped) else {})
        for rate in rates
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(("rate", "edge"), [(0.1, "smallest"), (0.2, None), (0.4, "largest")])
def test_a_learning_rate_at_the_edge_of_its_grid_is_named(rate: float, edge: str | None):
    result = {"selected": {"": rate}, "runs": runs((0.1, 0.2, 0.4))}
    lines = happened("mgda", result, [], TASKS)
    assert len(lines) == (edge is not None)
    if edge:
        assert lines[0].startswith(f"mgda: the {edge} learning rate tried, {rate:g}, was the best")


def test_one_rate_has_no_edge_and_a_run_that_stopped_is_named():
    result = {"selected": {"": 0.1}, "runs": runs((0.1,), stopped=1)}
    (line,) = happened("mgda", result, [], TASKS)
    assert line == "mgda: stopped at a number that is not finite: seed 1 (step 7)."


def records(weights: list[list[float]]) -> list[dict]:
    return [{"epoch": i, "weight": weight} for i, weight in enumerate(weights)]


def test_weights_on_one_task_for_half_the_epochs_are_named():
    result = {"selected": {"": 0.1}, "runs": runs((0.1,))}
    on, off = [0.0, 0.96, 0.04], [0.3, 0.3, 0.4]
    assert happened("famo", result, [records([on, off, off])], TASKS) == []
    (line,) = happened("famo", result, [records([on, off])], TASKS)
    assert line == (
        "famo: its weights sat on one task in 1 of 2 epochs of 1 runs: "
        "task 'b' held 96% of the weight."
    )
    assert happened("fixed", result, [records([[0.0, 1.0, 0.0]] * 3)], TASKS) == []  # as asked for


def test_a_run_warns_once_and_its_report_says_it(tmp_path: Path, capfd: pytest.CaptureFixture):
    plain = tiny_problem(num_test=16)

    def decode(own, zs, batch):
        losses = plain.decode(own, zs, batch)
        return {**losses, "left": 1e-3 * losses["left"]}

    problem = dataclasses.replace(plain, decode=decode)
    config = TrainingConfig(**{**CONFIG, "methods": "mgda"}, runs_dir=tmp_path, epochs=2)
    path = run_experiment(problem, config, "tiny", {})
    warned = [line for line in capfd.readouterr().err.splitlines() if "held" in line]
    assert len(warned) == 1 and "task 'left'" in warned[0] and "nash_mtl" in warned[0]
    assert warned[0].strip().startswith("mgda, learning rate 0.05, seed 0: epoch 1: task 'left'")
    (line,) = json.loads((path / RESULTS).read_text())["mgda"]["happened"]
    assert "in 4 of 4 epochs of 2 runs: task 'left'" in line
    assert f"What happened:\n\n- {line}" in summary(Report(path))


@pytest.mark.parametrize("spec", ["mgda", "graddrop", "trimmed_mean", "uncertainty"])
def test_what_is_logged_of_a_step(spec: str):
    (method,) = parse_methods(spec, ("left", "right"), 2, 3)
    recipe = Recipe(16, optax.sgd, lambda epoch: jnp.float32(1))
    trainer = Trainer(tiny_problem(), method, recipe)
    run = Run(jnp.uint32(0), jnp.float32(0.1), jnp.ones(2), jnp.ones(2, bool))

    def epoch() -> dict:
        data = jax.tree.map(jnp.asarray, trainer.problem.data["train"])
        return trainer.train_epoch(trainer.init(run), run, data, jnp.int32(0))[1]

    log = jax.eval_shape(epoch)  # nothing is compiled
    geometry = {"norm", "direction_cosine", "direction_norm", "cosine"}
    assert (geometry <= set(log)) == (spec != "uncertainty")
    assert ("weight" in log) == (spec in ("mgda", "uncertainty"))
