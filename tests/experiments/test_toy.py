"""The toy of two losses: its published landmarks, and a short run of it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.toy.command import STARTS, TASKS, ToyConfig, losses, main, pareto_set, walk
from experiments.trainer.config import run_main
from experiments.trainer.methods import parse_methods


def call(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        run_main(main, ToyConfig, "toy", args)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


@jax.jit
def slopes(theta: jax.Array) -> jax.Array:
    return jax.jacrev(losses)(theta)


def test_the_minima_are_the_published_ones():
    for task, x in enumerate((7.0, -7.0)):
        before, after = (float(slopes(jnp.array([x, y]))[task, 1]) for y in (-8.435, -8.434))
        assert before < 0 < after  # the minimum in θ₂ lies between
        assert abs(float(slopes(jnp.array([x, -8.4345]))[task, 0])) < 1e-6


def test_the_pareto_set_is_the_published_arc_of_opposed_gradients():
    arc = np.asarray(pareto_set())
    assert arc.shape == (279, 2)
    for x, y in ((0.0, -8.355), (3.5, -8.376), (-3.5, -8.376)):
        np.testing.assert_allclose(np.interp(x, *arc.T), y, atol=5e-4)
    first, second = np.moveaxis(np.asarray(jax.vmap(slopes)(jnp.asarray(arc))), 1, 0)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    assert ((first * second).sum(axis=1) / lengths).max() < -0.999


def test_mgda_lowers_both_losses_and_comes_nearer():
    (mgda,) = parse_methods("mgda", TASKS, 1, 1)
    short, long = walk(mgda, 400, 1e-3), walk(mgda, 4000, 1e-3)
    assert short.paths.shape == (len(STARTS), 401, 2)
    np.testing.assert_array_equal(short.paths[:, 0], STARTS)
    assert (long.distance < short.distance).all()
    assert (long.losses < np.asarray(jax.vmap(losses)(STARTS))).all()


def test_a_short_run_leaves_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = ["--steps", "400", "--methods", "uniform", "--runs-dir", str(tmp_path)]
    code, out, _ = call(args, capsys)
    assert code == 0 and "| uniform |  0 of 6 |" in out
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {"table.md", "paths.png"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--methods single", "--methods: single is not a rule on gradients of θ"),
        ("--methods mgda_ub", "--methods: mgda_ub is not a rule on gradients of θ"),
        ("--methods nosuch", "--methods: no method 'nosuch'"),
        ("--steps 3", "--steps: expected 400 to 1000000000, got 3"),
        ("--learning-rate 0", "--learning-rate: expected positive numbers of float32"),
        ("--name a/b", "--name: expected the name of one folder, got 'a/b'"),
    ],
)
def test_what_is_wrong_is_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(args.split(), capsys)
    assert code == 2 and out == "" and err.startswith(f"toy: {message}") and err.count("\n") == 1
