"""PCD against quadprog in float64, its moving average, and where nothing is feasible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadprog

from mgda_jax._gramian import gramian
from mgda_jax.weighting import pcd
from tests.problems import make

EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}


def papers_direction(rows, squares, tau, primary=0):
    """Algorithm 1 on rows with the averages v̂; d̃ by quadprog in the space of the parameters."""
    scaled = rows / np.sqrt(squares)[:, None]
    others = np.delete(scaled, primary, axis=0)
    bound = np.delete(np.broadcast_to(tau, len(rows)), primary) * (others**2).sum(axis=1)
    width = rows.shape[1]
    d = quadprog.solve_qp(np.eye(width), scaled[primary], others.T, bound)[0]
    return d * np.linalg.norm(rows[primary]) / np.linalg.norm(d)


def weigh(rows, dtype="float32", **options):
    with jax.enable_x64(dtype == "float64"):
        rule = pcd(**options)
        run = jax.jit(lambda g: rule.update(rule.init(len(rows)), gramian=gramian(g)))
        weights, state = run(jnp.asarray(rows, dtype))
    return np.asarray(weights, np.float64), state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_direction_is_the_papers_quadratic_program(dtype):
    families = ("gaussian", "realistic", "spread_1e4", "orthogonal")
    problems = [make(name, 5, seed) for seed in range(4) for name in families]

    def run(tau, rows):
        rule = pcd(tau=tau)
        return rule.update(rule.init(5), gramian=gramian(rows))[0]

    with jax.enable_x64(dtype == "float64"):
        # τ is traced, as under a schedule.
        batched = jax.jit(jax.vmap(run, in_axes=(None, 0)))
        rows = jnp.asarray(np.stack(problems), dtype)
        found = {
            tau: np.asarray(batched(jnp.asarray(tau, dtype), rows)) for tau in (0.0, 0.02, 0.5)
        }
    for tau, weights in found.items():
        for g, w in zip(problems, weights.astype(np.float64), strict=True):
            expected = papers_direction(g, (g**2).sum(axis=1), tau)
            error = np.linalg.norm(w @ g - expected) / np.linalg.norm(expected)
            assert error < 512 * EPS[dtype], tau


def test_the_primary_and_one_fraction_per_task():
    rows = np.random.default_rng(0).standard_normal((4, 6))
    tau = {"a": 0.1, "b": 0.9, "c": 0.0, "d": 0.3}
    weights, state = weigh(rows, primary=2, tau=tau)
    expected = papers_direction(rows, (rows**2).sum(axis=1), list(tau.values()), 2)
    np.testing.assert_allclose(weights @ rows, expected, atol=512 * EPS["float32"])
    assert state.report.feasible and state.report.residual < 32 * EPS["float32"]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert state.counts.tolist() == [1] * 4
    d = expected / np.linalg.norm(expected)
    assert unit[2] @ d > 0.1


def test_norms_are_averaged_as_adam_does():
    beta, tau, rng = 0.9, 0.2, np.random.default_rng(1)
    rule = pcd(tau=tau, beta=beta)
    state, average = rule.init(3), np.zeros(3)
    step = jax.jit(lambda state, g: rule.update(state, gramian=gramian(g)))
    for k in range(1, 6):
        rows = rng.standard_normal((3, 6)) * 10 ** rng.uniform(-1, 1, (3, 1))
        average = beta * average + (1 - beta) * (rows**2).sum(axis=1)
        squares = average / (1 - beta**k)
        weights, state = step(state, jnp.asarray(rows, jnp.float32))
        np.testing.assert_allclose(state.norms, np.sqrt(squares), rtol=32 * EPS["float32"])
        expected = papers_direction(rows, squares, tau)
        np.testing.assert_allclose(
            weights @ rows, expected, atol=1e3 * EPS["float32"] * abs(expected).max()
        )


def test_rescaling_a_secondary_task_changes_nothing():
    rows = np.random.default_rng(2).standard_normal((3, 5))
    one, _ = weigh(rows, tau=0.3)
    factors = np.array([1.0, 2.0**20, 2.0**-30])
    two, _ = weigh(rows * factors[:, None], tau=0.3)
    np.testing.assert_allclose(two * factors, one, rtol=64 * EPS["float32"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constraints_without_a_solution_are_dropped(dtype):
    rows = np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, -3.0, 0.0]])
    weights, state = weigh(rows, dtype, tau=0.1)
    np.testing.assert_allclose(weights, [1, 0, 0], rtol=8 * EPS[dtype])
    assert not state.report.feasible
    assert weigh(rows[:2], dtype, tau=0.1)[1].report.feasible


def test_duplicates_and_dependent_rows_are_feasible():
    rows = np.random.default_rng(3).standard_normal((5, 3))
    rows[:, 0] = np.abs(rows[:, 0]) + 0.5
    rows[4] = rows[3]
    weights, state = weigh(rows, tau=0.1)
    expected = papers_direction(rows, (rows**2).sum(axis=1), 0.1)
    assert state.report.feasible
    np.testing.assert_allclose(weights @ rows, expected, atol=1e3 * EPS["float32"])


def test_the_primary_gradient_opposed_or_zero_gives_zero():
    weights, _ = weigh(np.array([[1.0, 0.0], [-2.0, 0.0]]), tau=0.0)
    np.testing.assert_array_equal(weights, 0)
    weights, _ = weigh(np.array([[0.0, 0.0], [-2.0, 0.0]]))
    np.testing.assert_array_equal(weights, 0)


def test_a_zero_secondary_constrains_nothing():
    rows = np.array([[1.0, 2.0], [0.0, 0.0], [1.0, -1.0]])
    weights, _ = weigh(rows, tau=0.5)
    alone, _ = weigh(rows[[0, 2]], tau=0.5)
    np.testing.assert_allclose(weights[[0, 2]], alone, rtol=32 * EPS["float32"])
    assert weights[1] == 0


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: pcd(tau=1.5), r"pcd: tau must be in \[0, 1\], got 1.5"),
        (lambda: pcd(tau=(0.1, -0.2)), "pcd: tau"),
        (lambda: pcd(beta=1.0), r"pcd: beta must be in \[0, 1\), got 1.0"),
        (lambda: pcd(primary=-1), "pcd: primary must be the index of a task, got -1"),
        (lambda: pcd(primary=3).init(3), "pcd: primary must be one of 3 tasks, got 3"),
    ],
)
def test_bad_arguments_are_named(make_rule, message):
    with pytest.raises(ValueError, match=message):
        make_rule()
