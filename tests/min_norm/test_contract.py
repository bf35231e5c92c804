"""What min_norm_point promises for any Gramian: degenerate, masked, scaled, broken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax._gramian import Gramian, gramian
from mgda_jax.solvers.min_norm import min_norm_point
from mgda_jax.solvers.min_norm.solution import gap, kkt, kkt_backward
from tests.half_precision import needs
from tests.problems import make, reference

METHODS = ("exact", "frank_wolfe")
# One per code path: closed forms, unrolled, library factorization, Frank–Wolfe.
PATHS = [(1, "exact"), (2, "exact"), (3, "exact"), (7, "exact"), (3, "frank_wolfe")]
EPS = float(np.finfo(np.float32).eps)


@functools.partial(jax.jit, static_argnames=("method", "max_steps"))
def solve(gramian, active=None, method="exact", max_steps=None):
    """Jitted here once, so that tests of one shape share their compiled program."""
    return min_norm_point(gramian, active=active, method=method, max_steps=max_steps)


@jax.jit
def solve_batch(gramians):
    return jax.vmap(min_norm_point)(gramians)


def random_gramian(num_tasks, seed=0, dtype=np.float32):
    rows = make("realistic", num_tasks, seed)
    return jnp.asarray(rows @ rows.T, dtype)


def check_simplex(weights):
    weights = np.asarray(weights, np.float64)
    assert np.all(weights >= 0)
    assert abs(weights.sum() - 1) <= 4 * EPS * np.sqrt(weights.size)


def test_one_task():
    solution = solve(jnp.array([[9.0]]))
    assert solution.weights.tolist() == [1.0]
    assert (float(solution.norm), float(solution.kkt), int(solution.steps)) == (3.0, 0.0, 0)


def test_example_rows_of_the_literature():
    rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    solution = solve(rows @ rows.T)
    np.testing.assert_allclose(solution.weights, [0.6, 0.4], rtol=EPS)
    np.testing.assert_allclose(solution.weights @ rows, [0.0, 1.0, 1.0], atol=8 * EPS)
    np.testing.assert_allclose(solution.norm, np.sqrt(2), rtol=16 * EPS)


@pytest.mark.parametrize("num_tasks", [2, 3, 8])
@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_an_inner_product_above_both_squares_gives_the_shorter_of_the_two(num_tasks, order):
    """As entries rounded to few decimals have it; the other tasks are orthogonal."""
    pair = np.array([[0.000368, 0.000368], [0.000368, 0.000366]], np.float32)[order, order]
    matrix = 0.1 * np.eye(num_tasks, dtype=np.float32)
    matrix[:2, :2] = pair
    weights = np.asarray(solve(matrix).weights, np.float64)
    longer = int(pair[1, 1] < pair[0, 0]) ^ 1
    assert weights[longer] <= 4 * EPS
    assert solve(matrix).kkt <= 4 * EPS
    assert true_kkt(matrix, weights) <= 4 * EPS


def true_kkt(matrix, weights):
    """The certificate in float64."""
    matrix, weights = np.float64(matrix), np.float64(weights)
    norms, along = np.sqrt(np.diag(matrix)), matrix @ weights
    return max(0.0, np.max((weights @ along - along) / (norms * (weights @ norms))))


@pytest.mark.parametrize("num_tasks", [2, 3, 7])
def test_the_certificate_is_right_near_the_smallest_normal_number(num_tasks):
    rng = np.random.default_rng(3)
    for _ in range(20):
        rows = rng.standard_normal((num_tasks, 4)) + 0.5
        rows *= np.exp2(rng.choice([0, -50, -59], num_tasks))[:, None]
        matrix = (rows @ rows.T).astype(np.float32)
        weights = rng.dirichlet(np.ones(num_tasks)) * np.diag(matrix).min() / np.diag(matrix)
        weights = (weights / weights.sum()).astype(np.float32)
        truth = true_kkt(matrix, weights)
        spread = np.sqrt(np.diag(matrix))
        noise = EPS * (1 + weights @ spread / spread.min())
        assert abs(kkt(matrix, weights) - truth) <= 4 * noise


def test_gradients_of_a_spread_that_one_scale_cannot_hold_are_solved_as_zero_rows():
    rows = make("gaussian", 3) * np.array([[1e-30], [1.0], [1e30]])
    solution = solve(gramian(rows.astype(np.float32)))
    assert solution.weights.tolist() == [0.5, 0.5, 0.0]
    assert (float(solution.norm), float(solution.kkt)) == (0.0, 0.0)


@pytest.mark.parametrize("ratio", [1.0, 1e-4, 1e-8, 1e-15])
def test_two_orthogonal_tasks_keep_both_weights_to_full_relative_accuracy(ratio):
    """w = (b², a²) / (a² + b²): the small weight is what 1 − w would lose."""
    matrix = np.diag([1.0, ratio**2])
    expected = np.array([ratio**2, 1.0]) / (1.0 + ratio**2)
    solution = solve(matrix.astype(np.float32))
    np.testing.assert_allclose(solution.weights, expected, rtol=4 * EPS)


@pytest.mark.parametrize("num_tasks", [2, 3, 7])
def test_equal_gradients(num_tasks):
    solution = solve(jnp.full((num_tasks, num_tasks), 4.0))
    check_simplex(solution.weights)
    np.testing.assert_allclose(solution.norm, 2.0, rtol=4 * EPS)
    assert solution.kkt <= 4 * EPS


@pytest.mark.parametrize("num_tasks", [2, 3, 7])
def test_opposed_gradients_are_stationary(num_tasks):
    signs = np.array([(-1.0) ** t for t in range(num_tasks)])
    solution = solve(np.outer(signs, signs).astype(np.float32))
    check_simplex(solution.weights)
    # √(eps): what a Gramian of this precision can tell apart.
    assert solution.norm <= np.sqrt(EPS)
    assert abs(solution.weights @ signs.astype(np.float32)) <= 2 * EPS


@pytest.mark.parametrize(("num_tasks", "method"), PATHS)
def test_zero_rows_share_the_weight(num_tasks, method):
    zero = np.arange(num_tasks) % 2 == 0
    matrix = np.array(random_gramian(num_tasks))
    matrix[zero, :] = matrix[:, zero] = 0
    solution = solve(matrix, method=method)
    np.testing.assert_allclose(solution.weights, zero / zero.sum(), rtol=EPS)
    assert (float(solution.norm), float(solution.kkt)) == (0.0, 0.0)


@pytest.mark.parametrize(("num_tasks", "method"), PATHS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "negative diagonal"])
def test_what_is_no_gramian_gives_nan(num_tasks, method, bad):
    matrix = np.array(random_gramian(num_tasks))
    matrix[-1, -1] = -1.0 if bad == "negative diagonal" else bad
    solution = solve(matrix, method=method)
    assert np.all(np.isnan(solution.weights))
    assert np.isnan(solution.norm) and np.isnan(solution.kkt)
    assert solution.steps <= 4


def test_a_broken_gramian_leaves_the_rest_of_its_batch_alone():
    matrices = np.stack([np.array(random_gramian(3, seed)) for seed in range(3)])
    good = solve_batch(matrices)
    matrices[1, 0, 0] = np.nan
    solution = solve_batch(matrices)
    assert np.all(np.isnan(solution.weights[1]))
    np.testing.assert_array_equal(solution.weights[::2], good.weights[::2])


def test_off_diagonal_nan_gives_nan():
    matrix = random_gramian(7).at[0, 1].set(jnp.nan)
    assert np.all(np.isnan(solve(matrix).weights))


@pytest.mark.parametrize(("num_tasks", "method"), PATHS[1:])
def test_active_tasks_are_the_sub_gramian(num_tasks, method):
    full = random_gramian(num_tasks, seed=1)
    for keep in ([0], [num_tasks - 1], list(range(0, num_tasks, 3)), list(range(num_tasks))):
        active = np.zeros(num_tasks, bool)
        active[keep] = True
        alone = solve(full[np.ix_(keep, keep)], method=method)
        for inactive_entry in (0.0, np.nan, np.inf, 1e30):
            both = active[:, None] & active[None, :]
            matrix = jnp.where(both, full, jnp.float32(inactive_entry))
            solution = solve(matrix, active, method=method)
            assert np.all(solution.weights[~active] == 0)
            np.testing.assert_allclose(solution.weights[active], alone.weights, atol=32 * EPS)
            np.testing.assert_allclose(solution.norm, alone.norm, rtol=32 * EPS)
            assert solution.kkt <= alone.kkt + 8 * EPS


@pytest.mark.parametrize(("num_tasks", "method"), PATHS)
def test_no_active_task_gives_zero(num_tasks, method):
    matrix = np.full((num_tasks, num_tasks), np.nan, np.float32)
    solution = solve(matrix, active=np.zeros(num_tasks, bool), method=method)
    assert solution.weights.tolist() == [0.0] * num_tasks
    assert (float(solution.norm), float(solution.kkt)) == (0.0, 0.0)


def test_a_masked_gramian_keeps_its_exponent():
    masked = Gramian(jnp.array([[4.0, jnp.nan], [jnp.nan, jnp.nan]]), jnp.int32(3))
    solution = solve(masked, np.array([True, False]))
    assert solution.weights.tolist() == [1.0, 0.0]
    assert solution.norm == 2 * 2**3


def test_active_zero_row_and_inactive_zero_row():
    matrix = np.array(random_gramian(3))
    matrix[0, :] = matrix[:, 0] = 0
    matrix[2, :] = matrix[:, 2] = 0
    solution = solve(matrix, np.array([True, True, False]))
    assert solution.weights.tolist() == [1.0, 0.0, 0.0]


def test_active_rows_far_below_the_inactive_ones_keep_their_scale():
    """Norms 1e-12 next to an inactive 1: the mask comes before the scale."""
    rows = make("gaussian", 7)
    rows[:3] *= 1e-12
    whole = solve((rows @ rows.T).astype(np.float32), np.arange(7) < 3)
    alone = solve((rows[:3] @ rows[:3].T * 1e24).astype(np.float32))
    np.testing.assert_allclose(whole.weights[:3], alone.weights, atol=16 * EPS)
    np.testing.assert_allclose(whole.norm * 1e12, alone.norm, rtol=16 * EPS)


@pytest.mark.parametrize("exponent", [-40, 0, 40])
def test_powers_of_two_leave_the_weights_as_they_are(exponent):
    rows = make("realistic", 3).astype(np.float32)
    plain = solve(gramian(rows))
    scaled = solve(gramian(np.ldexp(rows, exponent)))
    np.testing.assert_array_equal(scaled.weights, plain.weights)
    assert scaled.norm == np.ldexp(plain.norm, exponent)


def test_any_factor_leaves_the_solution_as_it_is():
    matrix = random_gramian(7)
    plain, scaled = solve(matrix), solve(matrix * 3e-5)
    np.testing.assert_allclose(scaled.weights, plain.weights, atol=16 * EPS)
    np.testing.assert_allclose(scaled.norm, plain.norm * np.sqrt(3e-5), rtol=16 * EPS)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_extreme_gradients_through_the_gramian(size):
    rows = (make("realistic", 3) * size).astype(np.float32)
    solution = solve(gramian(rows))
    expected = np.linalg.norm(reference(rows.astype(np.float64)) @ rows.astype(np.float64))
    np.testing.assert_allclose(solution.norm, expected, rtol=64 * EPS)


def test_permuting_tasks_permutes_weights():
    matrix = random_gramian(7)
    order = np.random.default_rng(0).permutation(7)
    weights = solve(matrix).weights
    permuted = solve(matrix[order][:, order]).weights
    np.testing.assert_allclose(permuted, weights[order], atol=16 * EPS)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_arrays_are_solved_in_float32(dtype):
    needs(dtype)
    solution = solve(jnp.array([[2.0, 0.0], [0.0, 1.0]], dtype))
    assert solution.weights.dtype == solution.norm.dtype == jnp.float32
    np.testing.assert_allclose(solution.weights, [1 / 3, 2 / 3], rtol=4 * EPS)


def test_only_the_symmetric_part_is_read():
    matrix = random_gramian(7)
    skew = jnp.triu(jnp.full((7, 7), 0.25), 1)
    skewed = solve(matrix + skew - skew.T)
    np.testing.assert_allclose(skewed.weights, solve(matrix).weights, atol=16 * EPS)


@pytest.mark.parametrize("method", METHODS)
def test_an_indefinite_matrix_ends_on_the_simplex(method):
    """No Gramian of anything, as rounding to bfloat16 makes them: no NaN, and kkt says so."""
    cosines = np.array([[1, -0.9, -0.9], [-0.9, 1, -0.9], [-0.9, -0.9, 1]], np.float32)
    solution = solve(cosines, method=method)
    check_simplex(solution.weights)
    assert np.isfinite(solution.kkt) and solution.norm == 0


def test_batches_scans_and_single_calls_agree():
    matrices = jnp.stack([random_gramian(3, seed) for seed in range(3)])
    single = [solve(matrix) for matrix in matrices]
    batch = solve_batch(matrices)
    _, scanned = jax.lax.scan(lambda c, m: (c, min_norm_point(m)), None, matrices)
    for i, solution in enumerate(single):
        np.testing.assert_allclose(batch.weights[i], solution.weights, atol=16 * EPS)
        np.testing.assert_allclose(scanned.weights[i], solution.weights, atol=16 * EPS)


def test_one_trace_a_shape():
    traces = []

    @jax.jit
    def counted(matrix, active):
        traces.append(None)
        return min_norm_point(matrix, active=active)

    for seed, active in enumerate(([True, True], [True, False], [False, False])):
        counted(random_gramian(2, seed), np.array(active))
    assert len(traces) == 1


@pytest.mark.parametrize("method", METHODS)
def test_max_steps_bounds_the_steps_and_more_steps_certify_better(method):
    family, num_tasks = ("spread_common", 7) if method == "exact" else ("cosine_0.99", 3)
    rows = make(family, num_tasks)
    matrix = (rows @ rows.T).astype(np.float32)
    one, many = solve(matrix, method=method, max_steps=1), solve(matrix, method=method)
    for solution in (one, many):
        check_simplex(solution.weights)
    assert one.steps == 1 < many.steps
    assert one.kkt > many.kkt


def test_certificates_by_hand():
    """g₁ = (3, 0), g₂ = (0, 4), w = (1, 0): d = g₁, so task 2 falls short by 9."""
    matrix, weights = jnp.diag(jnp.array([9.0, 16.0])), jnp.array([1.0, 0.0])
    assert gap(matrix, weights) == 9
    assert kkt(matrix, weights) == 9 / (4 * 3)
    np.testing.assert_allclose(kkt_backward(matrix, weights), 9 / ((4 + 3) * 3), rtol=EPS)
    only_first = jnp.array([True, False])
    for certificate in (gap, kkt, kkt_backward):
        assert certificate(matrix, weights, only_first) == 0


def test_a_zero_row_passed_over_is_certified_as_wrong():
    assert kkt(jnp.diag(jnp.array([1.0, 0.0])), jnp.array([1.0, 0.0])) == np.inf


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(gramian=np.ones((2, 3), np.float32)), r"expected a Gramian or an array \(T, T\)"),
        (dict(gramian=np.ones((2, 2), np.int32)), "expected a floating dtype, got int32"),
        (dict(gramian=Gramian(jnp.ones((2, 3, 3)), jnp.zeros(2, jnp.int32))), "vmap over a batch"),
        (dict(method="newton"), "method must be one of"),
        (dict(max_steps=0), "max_steps must be an int >= 1 or None, got 0"),
        (dict(max_steps=1.5), "max_steps must be an int >= 1 or None, got 1.5"),
        (dict(max_steps=True), "max_steps must be an int >= 1 or None, got True"),
        (dict(max_steps=float("nan")), "max_steps must be an int >= 1 or None, got nan"),
        (dict(active=np.ones(2, bool)), r"active: expected shape \(3,\) and dtype bool"),
        (dict(active=np.ones(3)), "got .* and float64"),
    ],
)
def test_errors_name_the_argument(kwargs, message):
    with jax.enable_x64(True), pytest.raises(ValueError, match=message):
        min_norm_point(**{"gramian": np.eye(3), **kwargs})
