"""Implicit derivatives of the min-norm point against finite differences in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax.gramian import Gramian
from mgda_jax.min_norm import min_norm_point
from tests.problems import make

TASKS = (2, 3, 8)
STEP = 1e-6


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def problem(num_tasks, seed=0):
    """A Gramian whose face is stable, some tasks off it, and a symmetric change of it."""
    rows = make("gaussian", num_tasks, seed) + 0.5
    change = np.random.default_rng(seed).standard_normal((num_tasks, num_tasks))
    return jnp.asarray(rows @ rows.T), jnp.asarray(change + change.T)


@functools.cache
def functions(method="exact"):
    """The value, its directional derivative and its gradients, each compiled once a shape."""

    def outputs(matrix):
        solution = min_norm_point(matrix, method=method)
        return solution.weights, solution.norm

    directional = jax.jit(lambda m, c: jax.jvp(outputs, (m,), (c,))[1])
    gradient = jax.jit(jax.grad(lambda m, p: jnp.dot(outputs(m)[0], p)))
    squared = jax.jit(jax.grad(lambda m: outputs(m)[1] ** 2))
    return jax.jit(outputs), directional, gradient, squared


def central_difference(function, matrix, change, step=STEP):
    ahead, behind = function(matrix + step * change), function(matrix - step * change)
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)


@pytest.mark.parametrize("num_tasks", TASKS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_and_norm_against_finite_differences(num_tasks, seed):
    outputs, directional, _, _ = functions()
    matrix, change = problem(num_tasks, seed)
    weights_change, norm_change = directional(matrix, change)
    expected_weights, expected_norm = central_difference(outputs, matrix, change)
    assert np.abs(expected_weights).max() > 1e-4
    np.testing.assert_allclose(weights_change, expected_weights, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(norm_change, expected_norm, rtol=1e-6, atol=1e-8)
    # On the simplex the weights' changes cancel; a task off the face stays off it.
    assert abs(np.sum(weights_change)) <= 1e-13
    assert np.all(np.asarray(weights_change)[np.asarray(outputs(matrix)[0]) == 0] == 0)


def test_some_problem_has_tasks_off_the_face():
    outputs = functions()[0]
    assert np.any(np.asarray(outputs(problem(8)[0])[0]) == 0)


@pytest.mark.parametrize("num_tasks", TASKS)
def test_reverse_mode_is_the_transpose_of_forward_mode_and_symmetric(num_tasks):
    _, directional, gradient, _ = functions()
    matrix, change = problem(num_tasks)
    probe = jnp.asarray(np.random.default_rng(1).standard_normal(num_tasks))
    reverse = gradient(matrix, probe)
    np.testing.assert_allclose(
        jnp.sum(reverse * change), jnp.dot(directional(matrix, change)[0], probe), rtol=1e-11
    )
    np.testing.assert_allclose(reverse, reverse.T, rtol=1e-12)


@pytest.mark.parametrize("num_tasks", TASKS)
def test_the_squared_norm_has_the_envelope_gradient(num_tasks):
    """∂‖d*‖²/∂M = w wᵀ."""
    outputs, _, _, squared = functions()
    matrix, _ = problem(num_tasks)
    weights = outputs(matrix)[0]
    np.testing.assert_allclose(squared(matrix), jnp.outer(weights, weights), rtol=1e-13, atol=1e-15)


def test_second_derivatives_against_finite_differences_of_the_gradient():
    _, _, _, squared = functions()
    matrix, change = problem(3)
    curvature = jax.jit(lambda m, c: jax.jvp(squared, (m,), (c,))[1])(matrix, change)
    expected = central_difference(squared, matrix, change)
    np.testing.assert_allclose(curvature, expected, rtol=1e-6, atol=1e-9)


def test_tasks_whose_norms_are_six_decades_apart():
    outputs, directional, _, _ = functions()
    matrix, change = problem(3)
    scale = jnp.array([1.0, 1e-3, 1e-6])
    matrix, change = (part * scale[:, None] * scale[None, :] for part in (matrix, change))
    # The change is as small as the smallest row, or the face would not hold.
    actual = directional(matrix, change)[0]
    expected = central_difference(outputs, matrix, change)[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)


def test_inactive_tasks_have_no_derivative_and_the_others_that_of_the_sub_gramian():
    matrix, _ = problem(4)
    probe = jnp.array([1.0, -2.0, 7.0, 0.5])
    active = np.array([True, True, False, True])
    spoilt = matrix.at[2, :].set(jnp.nan).at[:, 2].set(jnp.nan)

    @jax.jit
    @jax.grad
    def masked_gradient(matrix):
        return jnp.dot(min_norm_point(matrix, active=active).weights, probe)

    masked = masked_gradient(spoilt)
    alone = functions()[2](matrix[active][:, active], probe[active])
    assert np.abs(alone).max() > 1e-4
    np.testing.assert_allclose(masked[active][:, active], alone, rtol=1e-10, atol=1e-12)
    assert np.all(masked[2] == 0) and np.all(masked[:, 2] == 0)


def test_through_the_gramian_type_and_a_batch():
    matrix, _ = problem(3)
    squared = functions()[3]

    def through(matrix):
        return min_norm_point(Gramian(matrix, jnp.int32(2))).norm ** 2

    batch = jax.jit(jax.vmap(jax.grad(through)))(jnp.stack([matrix, 2 * matrix]))
    np.testing.assert_allclose(batch[0], 16 * squared(matrix), rtol=1e-13)
    np.testing.assert_allclose(batch[1], batch[0], rtol=1e-13)


def test_frank_wolfe_has_the_same_derivative_where_it_converges():
    matrix, change = problem(2)
    actual = functions("frank_wolfe")[1](matrix, change)
    np.testing.assert_allclose(actual[0], functions()[1](matrix, change)[0], rtol=1e-8)


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
    _, directional, gradient, squared = functions()
    change = problem(3)[1]
    for value in jax.tree.leaves(directional(matrix, change)):
        assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(gradient(matrix, jnp.arange(3.0))))
    assert np.all(np.isfinite(squared(matrix)))
