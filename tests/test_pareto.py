"""Dominance and hypervolume against brute force, and MGDA on problems with known Pareto sets."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax import mgda, task_gradients
from mgda_jax.pareto import dominates, hypervolume, non_dominated

EPS = float(np.finfo(np.float32).eps)


def test_non_dominated_against_brute_force():
    points = np.random.default_rng(0).integers(0, 4, (40, 3)).astype(np.float32)
    expected = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
    np.testing.assert_array_equal(non_dominated(jnp.asarray(points)), expected)


def test_nan_points_do_not_count():
    points = jnp.array([[jnp.nan, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(non_dominated(points), [False, True])
    assert not dominates(points[0], points[1])
    assert np.isnan(hypervolume(points, jnp.array([2.0, 2.0])))


@pytest.mark.parametrize("num_tasks", [2, 3, 4])
def test_hypervolume_by_inclusion_and_exclusion(num_tasks):
    rng = np.random.default_rng(num_tasks)
    points = rng.uniform(0, 1.2, (6, num_tasks))
    reference = np.ones(num_tasks)
    inside = [p for p in points if (p < reference).all()]
    assert 0 < len(inside) < 6 or num_tasks == 2
    expected = 0.0
    for size in range(1, len(inside) + 1):
        for subset in itertools.combinations(inside, size):
            expected -= (-1) ** size * np.prod(reference - np.max(subset, axis=0))
    actual = jax.jit(hypervolume)(jnp.asarray(points, jnp.float32), jnp.ones(num_tasks))
    np.testing.assert_allclose(actual, expected, rtol=64 * EPS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dominates(jnp.ones(2), jnp.ones(3)), "dominates: expected"),
        (lambda: non_dominated(jnp.ones(2)), r"points: expected shape \(N, T\)"),
        (lambda: hypervolume(jnp.ones((2, 1)), jnp.ones(1)), "hypervolume: expected"),
        (lambda: hypervolume(jnp.ones((2, 2)), jnp.ones(3)), "hypervolume: expected"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def paraboloids(x):
    """VLMOP1: Pareto set x = t·1 with |t| ≤ 1/√n; front √f1 + √f2 = 1."""
    center = 1 / jnp.sqrt(jnp.float32(x.size))
    return jnp.stack([jnp.sum((x - center) ** 2), jnp.sum((x + center) ** 2)]) / 4


def fonseca(x):
    """VLMOP2: the same set, a concave front that linear scalarisation cannot reach."""
    return 1 - jnp.exp(-4 * paraboloids(x))


@pytest.mark.parametrize("losses", [paraboloids, fonseca])
def test_mgda_walks_to_the_pareto_set(losses):
    tx = optax.chain(mgda(2), optax.sgd(0.3))
    starts = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (16, 3)), jnp.float32)

    def descend(x):
        def body(carry, _):
            x, state = carry
            values, rows = task_gradients(losses)(x)
            updates, state = tx.update(rows, state, x)
            return (optax.apply_updates(x, updates), state), values

        (x, state), values = jax.lax.scan(body, (x, tx.init(x)), length=400)
        return x, values, state[0].weighting.kkt

    ends, values, _ = jax.jit(jax.vmap(descend))(starts)
    along = jnp.mean(ends, axis=1, keepdims=True)
    assert float(jnp.max(jnp.abs(ends - along))) <= 1e-3
    assert float(jnp.max(jnp.abs(along))) <= 1 / np.sqrt(3) + 1e-3
    # A common descent: no loss of any start ever rises by more than rounding.
    assert float(jnp.max(jnp.diff(values, axis=1))) <= 8 * EPS
    final = jax.vmap(paraboloids)(ends)
    np.testing.assert_allclose(jnp.sum(jnp.sqrt(final), axis=1), 1.0, atol=1e-4)
    # Different starts end at different trade-offs, none better than another.
    assert non_dominated(jnp.round(final, 4)).sum() >= 12
