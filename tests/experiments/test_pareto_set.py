"""The hypernetwork: what it writes, what a step is, and a short run of it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pareto_set import command
from experiments.pareto_set.command import ParetoSetConfig, main, rules
from experiments.pareto_set.hypernetwork import dirichlet, hypernetwork, separate
from experiments.pareto_set.training import Recipe, chunks, fit, programs, volume
from experiments.toy.walk import preferences
from experiments.trainer.config import run_main
from experiments.trainer.problem import Problem
from mgda_jax import per_task_decode, weighting

A, B = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
EXAMPLES = 64
KEY = jax.random.key(0)


def paraboloids(**changes: Any) -> Problem:
    """‖θ − a‖² and ‖θ − b‖², whose weighted sum is least at c₁ a + c₂ b; no example matters."""
    targets = {"left": A, "right": B}

    def losses(theta: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum((theta - target) ** 2) for target in targets.values()])

    part = {"x": np.zeros((EXAMPLES, 1), np.float32)}
    described = {
        "tasks": ("left", "right"),
        "data": dict.fromkeys(("train", "validation", "test"), part),
        "init": lambda key: (jax.random.normal(key, (2,)), {"left": {}, "right": {}}),
        "prepare": lambda examples, key: examples,
        "encode": lambda theta, batch: theta,
        "decode": per_task_decode(
            {t: lambda own, z, batch, t=t: jnp.sum((z - targets[t]) ** 2) for t in targets}
        ),
        "tally": lambda theta, own, batch, valid: {
            "loss": losses(theta) * jnp.sum(valid),
            "count": jnp.sum(valid),
        },
        "metrics": lambda sums: {
            "loss": sums["loss"] / sums["count"],
            "accuracy": 0 * sums["loss"],
        },
        "score": "hypervolume",
        "score_label": "hypervolume",
    }
    return Problem(**(described | changes))


def trained(problem: Problem, networks: Any, make_rule: Any, epochs: int = 100) -> np.ndarray:
    """Losses (9, 2) at even preferences after training."""
    made = programs(problem, networks, make_rule, epochs, 8)
    recipe = Recipe(epochs, 8, 0.03, 0)
    front = preferences(2, 9)
    best = fit(made, recipe, chunks(problem, "validation"), front, 8, lambda epoch: None)
    assert best.failed_step is None
    return made.measure(best.params, chunks(problem, "test"), front)["loss"]


def test_the_networks_have_the_targets_shapes_and_begin_alike():
    def init(key: jax.Array) -> Any:
        return {"a": jax.random.normal(key, (3, 4)), "b": (jnp.ones(()), jnp.zeros(5))}

    networks = hypernetwork(init, 7, dirichlet(0.5, 3, 6), 3)
    params, drawn = jax.jit(networks.init)(KEY), jax.jit(networks.draw)(KEY)
    assert drawn.shape == (6, 3) and float(drawn.min()) > 0
    np.testing.assert_allclose(drawn.sum(axis=1), 1, rtol=1e-6)
    made = jax.jit(networks.networks)(params, drawn)
    like = jax.eval_shape(init, KEY)
    assert jax.tree.map(lambda a: (a.shape[1:], a.dtype), made) == jax.tree.map(
        lambda a: (a.shape, a.dtype), like
    )
    for leaf in jax.tree.leaves(made):  # one network before the first step, drawn as a target is
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    assert float(np.std(made["a"][0])) > 0.1


@pytest.mark.parametrize("spec", ["grid", "epo"])
def test_one_hypernetwork_learns_the_front(spec: str):
    """√L₁ + √L₂ = √2; weighted sums end at c₂ : c₁ there, EPO where c₁ L₁ = c₂ L₂."""
    problem = paraboloids()
    networks = hypernetwork(problem.init, 16, dirichlet(1.0, 2, 4), 2)
    losses = trained(problem, networks, rules(spec, problem.tasks)[spec])
    np.testing.assert_allclose(np.sqrt(losses / 2).sum(axis=1), 1, atol=0.05)
    assert (np.diff(losses[:, 0]) < 0).all() and (np.diff(losses[:, 1]) > 0).all()
    c = preferences(2, 9)
    shares = {"grid": c, "epo": np.sqrt(c) / np.sqrt(c).sum(axis=1, keepdims=True)}
    gaps = {k: np.abs(losses - 2 * s[:, ::-1] ** 2).max() for k, s in shares.items()}
    other = "epo" if spec == "grid" else "grid"
    assert gaps[spec] < 0.5 * gaps[other]


def test_networks_of_their_own_end_at_the_same_front():
    problem = paraboloids()
    c = preferences(2, 9)
    losses = trained(problem, separate(problem.init, c), weighting.fixed)
    np.testing.assert_allclose(losses, 2 * c[:, ::-1] ** 2, atol=0.05)


def test_a_step_is_the_gradient_of_the_weighted_sum_and_compiles_once():
    """Adam's first moment after one step is a tenth of the gradient, of φ by another way."""
    traces = []

    def encode(theta: jax.Array, batch: Any) -> jax.Array:
        traces.append(1)
        return theta

    problem = paraboloids(encode=encode)
    fixed = preferences(2, 4)
    networks = hypernetwork(problem.init, 5, lambda key: jnp.asarray(fixed), 2)
    made = programs(problem, networks, weighting.fixed, 3, EXAMPLES)
    state = made.init(np.uint32(0), np.float32(0.1))

    def mean_loss(params: Any) -> jax.Array:
        theta, _ = networks.networks(params, jnp.asarray(fixed))
        squares = jnp.stack([jnp.sum((theta - t) ** 2, axis=1) for t in (A, B)], axis=1)
        return jnp.mean(jnp.sum(fixed * squares, axis=1))

    moved = made.epoch(state, np.uint32(1))
    count = len(traces)
    for found, true in zip(
        jax.tree.leaves(moved.optimizer[0].mu),
        jax.tree.leaves(jax.jit(jax.grad(mean_loss))(state.params)),
        strict=True,
    ):
        np.testing.assert_allclose(10 * found, true, rtol=1e-4, atol=1e-6)
    made.epoch(moved, np.uint32(2))
    assert len(traces) == count > 0


def test_volume_is_that_of_the_staircase():
    assert volume(np.array([[0.5, 1.0], [1.0, 0.5], [3.0, 0.0]])) == pytest.approx(2.0)
    assert np.isnan(volume(np.array([[0.5, np.nan]])))


def call(args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        run_main(main, ParetoSetConfig, "pareto_set", args.split())
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_leaves_table_picture_and_numbers_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "problem_of", lambda config: paraboloids())
    args = f"--epochs 2 --batch-size 16 --runs-dir {tmp_path} --cache-dir .cache --name run"
    args += " --methods separate,grid --seeds 2 --points 4 --separate 2"
    code, out, err = call(args, capsys)
    assert code == 0, err
    assert "| separate | " in out and "| grid     | " in out and "of 2 preferences" in out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"table.md", "front.png", "results.json", "config.json", "scores.csv"} <= names
    monkeypatch.setattr(command, "programs", None)  # nothing is trained again
    assert call(args, capsys)[0] == 0
    code, _, err = call(args.replace("--points 4", "--points 5"), capsys)
    assert code == 2 and "holds a run with points 4, not 5" in err


def test_a_loss_that_is_no_number_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "problem_of", lambda config: paraboloids())
    args = f"--epochs 2 --batch-size 16 --runs-dir {tmp_path} --cache-dir .cache --methods grid"
    code, _, err = call(f"{args} --learning-rate 1e30", capsys)
    assert code == 2
    last = err.splitlines()[-1]
    assert last.startswith("pareto_set: grid, learning rate 1e+30, seed 0: a loss is not finite")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--methods mgda", "expected separate or one of grid, tchebycheff, pbi, epo, got 'mgda'"),
        ("--methods grid,grid", "a method is named twice"),
        ("--methods epo(preference=[1,2])", "does not take the preferences given"),
        ("--batch-size 30", "--batch-size: expected a multiple of the 4 --preferences, got 30"),
        ("--batch-size 8000", "--batch-size: expected at most the 5985 training examples"),
        ("--alpha 0", "--alpha: expected a positive number of float32, got 0.0"),
        ("--dropout 1", "--dropout: expected a number in [0, 1), got 1.0"),
        ("--points 0", "--points: expected at least 1, got 0"),
        ("--dataset mnist --data-dir nowhere", "--data-dir: no such folder nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(args, capsys)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert message in err and err.startswith("pareto_set: ")
