"""Quadratic programs over the non-negative orthant against their optimality conditions and nnls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mgda_jax.solvers.box_qp import nonnegative_qp
from tests.problems import FAMILIES, disturb, make
from tests.weighting.solving import unit

MAX_STEPS = {"float32": 48, "float64": 96}
DTYPES = tuple(MAX_STEPS)
EPS = float(np.finfo(np.float32).eps)
WELL_CONDITIONED = ("gaussian", "realistic", "orthogonal", "spread_1e8", "duplicates")


@functools.cache
def compiled():
    return jax.jit(nonnegative_qp)


@functools.cache
def compiled_batch():
    return jax.jit(jax.vmap(nonnegative_qp))


def projections(rows, dtype):
    """π(u_t) = u_t + Σ_j x_tj u_j of every unit row: float64 rows, the solution as numpy."""
    units, _ = unit(rows)
    rounded = units.astype(dtype)
    matrix = rounded @ rounded.T
    np.fill_diagonal(matrix, 1)
    with jax.enable_x64(dtype == "float64"):
        solution = jax.tree.map(np.asarray, compiled()(matrix, matrix))
    assert solution.x.dtype == dtype
    return rounded.astype(np.float64), solution


def violation(units, x):
    """The natural residual of every problem, in float64."""
    x = x.astype(np.float64)
    slope = (np.eye(len(x)) + x) @ units @ units.T
    worst = np.max(np.abs(np.minimum(x, slope)), axis=1)
    return worst / (1 + np.linalg.norm(x, axis=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_tasks", [3, 10, 40])
def test_minimisers_satisfy_the_optimality_conditions(num_tasks, dtype):
    bound = 64 * np.finfo(dtype).eps
    for family in FAMILIES:
        if family == "zero_row":  # no unit diagonal; the rules leave such rows out
            continue
        units, solution = projections(make(family, num_tasks), dtype)
        assert np.all(solution.x >= 0), family
        assert np.all(solution.steps <= MAX_STEPS[dtype]), family
        true = violation(units, solution.x)
        assert true.max() <= bound, (family, true.max() / bound)
        # The certificate tells the truth, up to what rounding of C does.
        gap = np.abs(true - solution.residual)
        assert gap.max() <= 8 * np.finfo(dtype).eps, (family, gap.max())


@pytest.mark.parametrize(("num_tasks", "count"), [(10, 20), (40, 4)])
def test_the_certificate_holds_for_rows_in_any_order_and_last_bit(num_tasks, count):
    """With a factor of two to spare of what one draw of each family is held to."""
    rng = np.random.default_rng(0)
    families = [family for family in FAMILIES if family != "zero_row"]
    for family in families:
        rows = [disturb(make(family, num_tasks), rng) for _ in range(count)]
        draws = [unit(r)[0].astype(np.float32) for r in rows]
        matrices = np.stack([u @ u.T for u in draws])
        matrices[:, range(num_tasks), range(num_tasks)] = 1
        solution = jax.tree.map(np.asarray, compiled_batch()(matrices, matrices))
        true = [violation(u.astype(np.float64), solution.x[i]).max() for i, u in enumerate(draws)]
        assert max(true) <= 32 * EPS, (family, max(true) / EPS)
        assert solution.residual.max() <= 32 * EPS, (family, solution.residual.max() / EPS)


def test_nearly_singular_problems_carry_half_of_the_allowed_residual():
    """Unit rows of numerical rank below 20: λ stays 8 eps, and a factor of two is to spare.

    15 eps where products and sums are fused; up to 29 where each is rounded (SSE4_2).
    """
    rng = np.random.default_rng(1)
    units = np.stack([unit(disturb(make("vandermonde", 40), rng))[0] for _ in range(12)])
    units = units.astype(np.float32)
    matrices = units @ units.swapaxes(1, 2)
    matrices[:, range(40), range(40)] = 1
    solution = jax.tree.map(np.asarray, compiled_batch()(matrices, matrices))
    assert solution.residual.max() <= 32 * EPS
    assert np.all(solution.regularization == 8 * EPS)


def test_undetermined_minimisers_are_not_far_from_the_shortest():
    units = np.stack([unit(make("rank_deficient", 40, seed))[0] for seed in range(12)])
    units = units.astype(np.float32)
    matrices = units @ units.swapaxes(1, 2)
    matrices[:, range(40), range(40)] = 1
    linear = matrices.mean(axis=1, keepdims=True)
    solution = jax.tree.map(np.asarray, compiled_batch()(matrices, linear))
    for matrix, h, x in zip(matrices.astype(np.float64), linear[:, 0], solution.x, strict=True):
        lower = np.linalg.cholesky(matrix + 32 * EPS * np.eye(40))
        shortest = nnls(lower.T, -np.linalg.solve(lower, h))[0]
        assert 1 + np.linalg.norm(x[0]) <= 4 * (1 + np.linalg.norm(shortest))


def test_hard_problems_in_many_variables_are_solved_as_before():
    """Faces that conjugate gradients do not find are left to the factorisations."""
    hard = ("near_duplicates", "rank_deficient", "rank_deficient_away", "stationary",
            "stationary_face", "opposed_pair", "spread_tied_opposed")  # fmt: skip
    for family in hard:
        units, solution = projections(make(family, 72), "float32")
        assert np.all(solution.x >= 0), family
        assert violation(units, solution.x).max() <= 16 * EPS, family
        assert np.all(solution.steps <= MAX_STEPS["float32"]), family


@pytest.mark.parametrize("family", [*WELL_CONDITIONED, "cosine_0.9999999"])
def test_well_conditioned_problems_in_many_variables_need_no_factorisation(family):
    rng = np.random.default_rng(0)
    for _ in range(3):
        units, solution = projections(disturb(make(family, 72), rng), "float32")
        assert np.all(solution.steps == 0)
        assert violation(units, solution.x).max() <= 16 * EPS
        for t in range(0, 72, 8):
            reference = units[t] + units.T @ nnls(units.T, -units[t])[0]
            assert np.linalg.norm(units[t] + solution.x[t] @ units - reference) <= 64 * EPS


def test_inner_products_of_rounding_size_need_no_factorisation():
    """Exact zeros among them: what sums without fused multiplication leave of orthogonal rows."""
    rng = np.random.default_rng(0)
    noise = np.tril(rng.integers(-4, 5, (72, 72)), -1)
    matrix = (np.eye(72) + EPS / 16 * (noise + noise.T)).astype(np.float32)
    solution = compiled()(matrix, matrix)
    assert np.all(solution.steps == 0)
    assert np.all(solution.x >= 0) and np.max(solution.x) <= EPS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", WELL_CONDITIONED)
def test_projections_agree_with_least_squares(family, dtype):
    units, solution = projections(make(family, 10), dtype)
    for row, x in zip(units, solution.x.astype(np.float64), strict=True):
        reference = row + units.T @ nnls(units.T, -row)[0]
        assert np.linalg.norm(row + x @ units - reference) <= 32 * np.finfo(dtype).eps


def test_singular_matrix_gives_the_shortest_minimiser():
    units = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], np.float32)
    solution = compiled()(units @ units.T, units @ units.T)
    expected = [[0, 0, 1, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(solution.x, expected, atol=1e-5)


def test_already_optimal_problems_return_exact_zeros_at_once():
    units, _ = unit(make("spread_common", 10))
    matrix = (units @ units.T).astype(np.float32)
    solution = compiled()(matrix, np.abs(matrix))
    np.testing.assert_array_equal(solution.x, np.zeros_like(solution.x))
    np.testing.assert_array_equal(solution.steps, np.ones(10, np.int32))


def test_large_positive_linear_terms_do_no_harm():
    units, _ = unit(make("gaussian", 10))
    matrix = (units @ units.T).astype(np.float32)
    linear = matrix.copy()
    linear[:, 3] = 1e12
    rest = [i for i in range(10) if i != 3]
    solution = compiled()(matrix, linear)
    smaller = jax.jit(nonnegative_qp)(matrix[np.ix_(rest, rest)], linear[:, rest])
    np.testing.assert_array_equal(solution.x[:, 3], 0)
    np.testing.assert_allclose(solution.x[:, jnp.array(rest)], smaller.x, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_in_means_nan_out_without_a_step(bad):
    units, _ = unit(make("gaussian", 3))
    matrix = (units @ units.T).astype(np.float32)
    linear = matrix.copy()
    linear[1, 2] = bad
    solution = compiled()(matrix, linear)
    assert np.all(np.isnan(solution.x[1]))
    assert solution.steps[1] == 0
    np.testing.assert_array_equal(solution.x[0], compiled()(matrix, matrix).x[0])
    matrix[0, 1] = bad
    assert np.all(np.isnan(compiled()(matrix, linear).x))


def test_vmap_agrees_with_single_calls():
    matrices = np.stack(
        [np.float32(u @ u.T) for u, _ in map(unit, [make("gaussian", 5, s) for s in (0, 1)])]
    )
    batched = compiled_batch()(matrices, matrices)
    for i, matrix in enumerate(matrices):
        single = compiled()(matrix, matrix)
        np.testing.assert_allclose(batched.x[i], single.x, atol=1e-6)
        np.testing.assert_array_equal(batched.steps[i], single.steps)


def test_a_thousand_problems_under_vmap_come_back():
    # Independent factorisations in one step have hung the CPU runtime at this size.
    matrices = np.stack(
        [np.float32(u @ u.T) for u, _ in (unit(make("gaussian", 40, s)) for s in range(24))]
    )
    solve = jax.jit(jax.vmap(lambda m: nonnegative_qp(m, m).residual))
    assert np.max(solve(matrices)) <= 16 * np.finfo(np.float32).eps
