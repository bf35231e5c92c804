"""Implicit derivatives of the min-norm point against finite differences in float64."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax._gramian import Gramian
from mgda_jax.solvers.min_norm import min_norm_point
from tests.problems import make

TASKS = (2, 3, 8)
STEP = 1e-6


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def problem(num_tasks, seed=0):
    """A Gramian whose face is stable, a symmetric change of it, a probe of the weights."""
    rows = make("gaussian", num_tasks, seed) + 0.5
    rng = np.random.default_rng(seed)
    change = rng.standard_normal((num_tasks, num_tasks))
    probe = rng.standard_normal(num_tasks)
    return jnp.asarray(rows @ rows.T), jnp.asarray(change + change.T), jnp.asarray(probe)


class Derivatives(NamedTuple):
    """Value, change along one direction, and gradients of ⟨probe, w⟩ and of ‖d‖²."""

    weights: jax.Array
    norm: jax.Array
    weights_change: jax.Array
    norm_change: jax.Array
    probe_gradient: jax.Array
    squared_gradient: jax.Array


def outputs(matrix):
    solution = min_norm_point(matrix)
    return solution.weights, solution.norm


@jax.jit
def differentiate(matrix, change, probe):
    """All of them from one linearization, so that each shape compiles one solver."""
    (weights, norm), forward = jax.linearize(outputs, matrix)
    weights_change, norm_change = forward(change)
    backward = jax.linear_transpose(forward, matrix)
    (probe_gradient,) = backward((probe, jnp.zeros_like(norm)))
    (squared_gradient,) = backward((jnp.zeros_like(weights), 2 * norm))
    return Derivatives(weights, norm, weights_change, norm_change, probe_gradient, squared_gradient)


def differences(matrix, change, probe, step=STEP):
    """Central differences of every field of `Derivatives` along change."""
    ahead = differentiate(matrix + step * change, change, probe)
    behind = differentiate(matrix - step * change, change, probe)
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)


@pytest.mark.parametrize("num_tasks", TASKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_and_norm_against_finite_differences(num_tasks, seed):
    matrix, change, probe = problem(num_tasks, seed)
    at, expected = differentiate(matrix, change, probe), differences(matrix, change, probe)
    assert np.abs(expected.weights).max() > 1e-4
    np.testing.assert_allclose(at.weights_change, expected.weights, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(at.norm_change, expected.norm, rtol=1e-6, atol=1e-8)
    # On the simplex the weights' changes cancel; a task off the face stays off it.
    assert abs(np.sum(at.weights_change)) <= 1e-13
    assert np.all(np.asarray(at.weights_change)[np.asarray(at.weights) == 0] == 0)


def test_some_problem_has_tasks_off_the_face():
    assert np.any(np.asarray(differentiate(*problem(8)).weights) == 0)


@pytest.mark.parametrize("num_tasks", TASKS)
def test_reverse_mode_is_the_transpose_of_forward_mode_and_symmetric(num_tasks):
    matrix, change, probe = problem(num_tasks)
    at = differentiate(matrix, change, probe)
    forward = jnp.dot(at.weights_change, probe)
    np.testing.assert_allclose(jnp.sum(at.probe_gradient * change), forward, rtol=1e-11)
    np.testing.assert_allclose(at.probe_gradient, at.probe_gradient.T, rtol=1e-12)


@pytest.mark.parametrize("num_tasks", TASKS)
def test_the_squared_norm_has_the_envelope_gradient(num_tasks):
    """∂‖d*‖²/∂M = w wᵀ."""
    at = differentiate(*problem(num_tasks))
    expected = jnp.outer(at.weights, at.weights)
    np.testing.assert_allclose(at.squared_gradient, expected, rtol=1e-13, atol=1e-15)


def test_second_derivatives_against_finite_differences_of_the_gradient():
    matrix, change, probe = problem(3)

    @jax.jit
    def curvature(matrix, change):
        squared = jax.grad(lambda m: min_norm_point(m).norm ** 2)
        return jax.jvp(squared, (matrix,), (change,))[1]

    expected = differences(matrix, change, probe).squared_gradient
    np.testing.assert_allclose(curvature(matrix, change), expected, rtol=1e-6, atol=1e-9)


def test_tasks_whose_norms_are_six_decades_apart():
    matrix, change, probe = problem(3)
    scale = jnp.array([1.0, 1e-3, 1e-6])
    matrix, change = (part * scale[:, None] * scale[None, :] for part in (matrix, change))
    # The change is as small as the smallest row, or the face would not hold.
    actual = differentiate(matrix, change, probe).weights_change
    expected = differences(matrix, change, probe).weights
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)


def test_inactive_tasks_have_no_derivative_and_the_others_that_of_the_sub_gramian():
    matrix, change, _ = problem(4)
    probe = jnp.array([1.0, -2.0, 7.0, 0.5])
    active = np.array([True, True, False, True])
    spoilt = matrix.at[2, :].set(jnp.nan).at[:, 2].set(jnp.nan)

    @jax.jit
    @jax.grad
    def masked_gradient(matrix):
        return jnp.dot(min_norm_point(matrix, active=active).weights, probe)

    masked = masked_gradient(spoilt)
    sub, sub_change = (part[active][:, active] for part in (matrix, change))
    alone = differentiate(sub, sub_change, probe[active]).probe_gradient
    assert np.abs(alone).max() > 1e-4
    np.testing.assert_allclose(masked[active][:, active], alone, rtol=1e-10, atol=1e-12)
    assert np.all(masked[2] == 0) and np.all(masked[:, 2] == 0)


def test_through_the_gramian_type_and_a_batch():
    matrix = problem(2)[0]

    @jax.jit
    @jax.vmap
    @jax.grad
    def batch_gradient(matrix):
        return min_norm_point(Gramian(matrix, jnp.int32(2))).norm ** 2

    batch = batch_gradient(jnp.stack([matrix, 2 * matrix]))
    expected = 16 * differentiate(*problem(2)).squared_gradient
    np.testing.assert_allclose(batch, jnp.stack([expected, expected]), rtol=1e-13)


@pytest.mark.parametrize(
    "matrix",
    [
        np.ones((3, 3)),
        np.zeros((3, 3)),
        np.diag([0.0, 1.0, 2.0]),
        np.outer([1.0, -1.0, 1.0], [1.0, -1.0, 1.0]),
        np.diag([1.0, 1e-8, 1e-16]),
    ],
    ids=["equal", "zero", "zero row", "opposed", "spread"],
)
def test_derivatives_stay_finite_where_they_do_not_exist(matrix):
    _, change, probe = problem(3)
    for value in differentiate(jnp.asarray(matrix), change, probe):
        assert np.all(np.isfinite(value))
