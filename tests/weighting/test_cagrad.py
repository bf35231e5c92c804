"""CAGrad: optimality by weak duality, scipy's minimiser, the cases the formula leaves open."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mgda_jax._gramian import gramian
from mgda_jax.weighting import cagrad, dual_proj
from tests.problems import make, reference
from tests.quick import quick_jit
from tests.weighting.solving import solve_families, unit

DTYPES = ("float32", "float64")
EPS = float(np.finfo(np.float32).eps)
# Rows whose hull comes as close to the origin as the Gramian can tell: there the level is
# known to the square root of the precision only.
ILL_CONDITIONED = ("vandermonde", "spread_tied_opposed")


@functools.cache
def compiled(factory=cagrad, jit=quick_jit, **options):
    rule = factory(**options)
    return jit(
        lambda rows, active=None: rule.update(
            rule.init(rows.shape[0]), gramian=gramian(rows, active=active), active=active
        )
    )


def of_radius(c):
    return cagrad(c=c)


class Outcome:
    """What weights w = 1/T + y/… on rows achieve, in float64 and in units of ‖g_0‖."""

    def __init__(self, rows, weights, c):
        self.rows = rows / np.linalg.norm(rows, axis=1).max()
        num_tasks = len(rows)
        self.mean = self.rows.mean(axis=0)
        self.length = np.linalg.norm(self.mean)
        self.radius = c * self.length
        added = (weights - 1 / num_tasks) @ self.rows
        self.excess = np.linalg.norm(added) - self.radius
        self.gain = np.min(self.rows @ (self.mean + added))
        self.y = np.maximum(weights - 1 / num_tasks, 0)
        # Rounding of the Gramian is seen by ‖g_0‖ as a fraction of the sum of the norms.
        self.rounding = np.linalg.norm(self.rows, axis=1).sum() / num_tasks

    def bound(self, w):
        """Any w on the simplex bounds the least gain from above."""
        combined = w @ self.rows
        return combined @ self.mean + self.radius * np.linalg.norm(combined)


@pytest.mark.parametrize(("num_tasks", "dtype"), [(3, DTYPES[1]), (10, DTYPES[0]), (40, DTYPES[0])])
@pytest.mark.parametrize("c", [0.4, 1.5])
def test_least_gain_is_the_largest_possible(c, num_tasks, dtype):
    eps = np.finfo(dtype).eps
    for family, rows, weights, state in solve_families(of_radius, num_tasks, dtype, c, seeds=1):
        assert np.all(weights >= 1 / num_tasks * (1 - 2 * eps)), family
        out = Outcome(rows, weights, c)
        tolerance = 32 * eps * out.rounding
        assert out.excess <= tolerance, (family, out.excess / eps)
        candidates = [reference(rows)]
        if out.y.sum() > 0:
            candidates.append(out.y / out.y.sum())
        gap = min(out.bound(w) for w in candidates) - out.gain
        ill = family in ILL_CONDITIONED
        assert gap <= (np.sqrt(eps) if ill else tolerance), (family, gap / eps)
        assert state.residual <= (1024 if ill else 64) * eps, (family, state.residual / eps)
        assert 0 < state.regularization <= 64 * eps, family


@pytest.mark.parametrize("family", ["gaussian", "realistic", "spread_1e4", "duplicates"])
def test_direction_agrees_with_scipy(family):
    c = 0.4
    rows = make(family, 5)
    rows = rows / np.linalg.norm(rows, axis=1).max()
    mean = rows.mean(axis=0)
    radius = c * np.linalg.norm(mean)

    def bound(w):
        return w @ rows @ mean + radius * np.linalg.norm(w @ rows)

    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(
        bound,
        np.full(5, 0.2),
        method="SLSQP",
        bounds=[(0, 1)] * 5,
        constraints=[constraint],
        options={"ftol": 1e-15, "maxiter": 500},
    )
    combined = best.x @ rows
    expected = mean + radius * combined / np.linalg.norm(combined)
    weights, _ = compiled(c=c)(rows.astype(np.float32))
    assert np.linalg.norm(weights @ rows - expected) <= 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("num_tasks", [1, 4])
def test_zero_radius_is_the_mean_exactly(num_tasks):
    rows = make("gaussian", 4)[:num_tasks].astype(np.float32)
    weights, _ = compiled(c=0.0)(rows)
    np.testing.assert_array_equal(weights, np.full(num_tasks, np.float32(1 / num_tasks)))


def test_one_task_and_equal_tasks_move_by_the_whole_radius():
    np.testing.assert_allclose(compiled(c=0.4)(np.ones((1, 3), np.float32))[0], [1.4], rtol=1e-6)
    weights, _ = compiled(c=0.4)(np.ones((4, 3), np.float32))
    np.testing.assert_allclose(np.sum(weights), 1.4, rtol=1e-6)


@pytest.mark.parametrize(("rescale", "factor"), [("1+c", 1.4), ("1+c^2", 1.16)])
def test_rescale(rescale, factor):
    rows = make("gaussian", 4).astype(np.float32)
    plain, _ = compiled(c=0.4)(rows)
    np.testing.assert_allclose(compiled(c=0.4, rescale=rescale)(rows)[0] * factor, plain, rtol=1e-6)


@pytest.mark.parametrize("family", ["opposed_pair", "stationary_face", "zero_row"])
def test_where_the_formula_is_open_the_nearest_direction_to_the_mean_is_taken(family):
    rows = make(family, 10).astype(np.float32)
    weights, _ = compiled(c=1.5)(rows)
    expected, _ = compiled(dual_proj)(rows)
    scale = np.linalg.norm(rows, axis=1).max()
    assert np.linalg.norm(weights @ rows - expected @ rows) <= 1e-5 * scale


def test_radius_above_one_stops_at_stationary_points_and_below_one_does_not():
    rows = make("stationary", 5).astype(np.float32)
    mean = np.linalg.norm(rows.mean(axis=0))
    assert np.linalg.norm(compiled(c=1.5)(rows)[0] @ rows) <= 1e-4 * mean
    assert np.linalg.norm(compiled(c=0.4)(rows)[0] @ rows) >= 0.6 * mean * (1 - 1e-5)


def test_opposed_gradients_of_equal_length_have_no_mean_to_follow():
    rows = np.array([[1.0, 2.0], [-1.0, -2.0]], np.float32)
    weights, _ = compiled(c=0.4)(rows)
    np.testing.assert_allclose(weights @ rows, 0, atol=1e-6)


def test_preference_moves_the_centre():
    rows = np.eye(2, dtype=np.float32)
    rule = cagrad(c=0.5, preference={"second": 1.0, "first": 3.0})
    weights, _ = quick_jit(lambda g: rule.update(rule.init(2), gramian=gramian(g)))(rows)
    # The task with the smaller gain is the second: d = g_0 + c‖g_0‖ g_2/‖g_2‖, gains
    # 0.75 and 0.25 + 0.5 · √0.625.
    np.testing.assert_allclose(weights, [0.75, 0.25 + 0.5 * np.sqrt(0.625)], rtol=1e-5)


def test_gains_at_full_spread_are_those_of_the_rows_measured_one_by_one():
    """In units of each row's own length, where the absolute gap says little."""
    rows = make("spread_1e8", 10)
    weights, state = compiled(c=0.4, jit=jax.jit)(rows.astype(np.float32))
    units, norms = unit(rows)
    mean = rows.mean(axis=0)
    length = np.linalg.norm(mean)
    y = (np.asarray(weights, np.float64) - 0.1) * norms / length
    y[y < 1e-6 * y.max()] = 0
    gains = units @ (np.asarray(weights, np.float64) @ rows) / length
    slope = norms.min() / norms
    level = y @ gains / (y @ slope)
    off = np.abs(np.minimum(y, gains - level * slope)) / (1 + np.linalg.norm(y))
    assert off.max() <= 1e-5
    assert state.residual <= 1e-5


def test_radius_may_be_traced():
    rows = make("gaussian", 3).astype(np.float32)

    def weights(c):
        rule = cagrad(c=c)
        return rule.update(rule.init(3), gramian=gramian(rows))[0]

    batched = quick_jit(jax.vmap(weights))(jnp.array([0.0, 0.4]))
    np.testing.assert_array_equal(batched[0], np.full(3, np.float32(1 / 3)))
    np.testing.assert_allclose(batched[1], compiled(c=0.4)(rows)[0], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"c": -0.1}, {"c": np.inf}, {"rescale": "c"}, {"preference": [0.0, 0.0]}]
)
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=f"cagrad: {next(iter(options))}"):
        cagrad(**options)
