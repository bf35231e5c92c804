"""UPGrad and DualProj: non-conflict at every spread, published values, projections by nnls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadprog
from scipy.optimize import nnls

from mgda_jax._gramian import gramian
from mgda_jax.weighting import dual_proj, upgrad
from tests.problems import make
from tests.weighting.solving import solve_families, unit

DTYPES = ("float32", "float64")
RULES = {"upgrad": upgrad, "dual_proj": dual_proj}
EXAMPLE = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)


@functools.cache
def compiled(name, **options):
    rule = RULES[name](**options)
    return jax.jit(
        lambda rows, active=None: rule.update(
            rule.init(rows.shape[0]), gramian=gramian(rows, active=active), active=active
        )
    )


def conflict(rows, weights):
    """max_i −⟨g_i, d⟩ / (‖g_i‖ Σ_j w_j ‖g_j‖): what the guarantee is relative to."""
    units, norms = unit(rows)
    parts = weights * norms
    return np.max(-units @ (parts @ units) / np.sum(parts))


@pytest.mark.parametrize(("num_tasks", "dtype"), [(3, DTYPES[1]), (10, DTYPES[0]), (40, DTYPES[0])])
@pytest.mark.parametrize("name", RULES)
def test_direction_conflicts_with_no_task_and_certificate_is_small(name, num_tasks, dtype):
    eps = np.finfo(dtype).eps
    for solved in solve_families(RULES[name], num_tasks, dtype, seeds=1):
        assert np.all(solved.weights >= 0), solved.family
        assert conflict(solved.rows, solved.weights) <= 16 * eps, solved.family
        # In float64 down to rounding too, and never above the 1e-5 asked of float32.
        assert solved.state.residual <= 32 * eps, solved.family
        assert 0 < solved.state.regularization <= 64 * eps, solved.family


@pytest.mark.parametrize("spread", [1.0, 10.0, 100.0, 1e4])
@pytest.mark.parametrize("name", RULES)
def test_no_conflict_at_any_spread_of_the_row_norms(name, spread):
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        rows = (
            rng.standard_normal((10, 16)) * np.geomspace(1, spread, 10)[rng.permutation(10), None]
        )
        rows = rows.astype(np.float32)
        weights, _ = compiled(name)(rows)
        worst = max(worst, conflict(rows.astype(np.float64), np.asarray(weights, np.float64)))
    assert worst <= 8 * np.finfo(np.float32).eps


def test_upgrad_is_the_mean_of_the_projections():
    for family in ("gaussian", "realistic", "orthogonal", "duplicates"):
        rows = make(family, 10)
        units, norms = unit(rows)
        projected = [row + units.T @ nnls(units.T, -row)[0] for row in units]
        reference = norms @ np.stack(projected) / 10
        weights, _ = compiled("upgrad")(rows.astype(np.float32))
        error = np.linalg.norm(np.float64(weights) @ rows - reference)
        assert error <= 64 * np.finfo(np.float32).eps * np.sum(weights * norms), family


@pytest.mark.parametrize("preference", [None, np.linspace(1, 3, 10)])
def test_dual_proj_is_the_quadratic_program_of_gem(preference):
    rows = make("gaussian", 10)
    share = np.ones(10) if preference is None else preference
    share = share / share.sum()
    reference = quadprog.solve_qp(rows @ rows.T, np.zeros(10), np.eye(10), share)[0]
    rule = dual_proj(preference=preference)
    weights, _ = rule.update(rule.init(10), gramian=jnp.asarray(rows @ rows.T, jnp.float32))
    np.testing.assert_allclose(weights, reference, atol=2e-6)


def test_published_example():
    # The printed direction (0.2929, 1.9004, 1.9004) is that of M + 1e-4·I on the normalised
    # Gramian; without the regulariser it is (5/17.1, 32.5/17.1, 32.5/17.1).
    weights, _ = compiled("upgrad")(EXAMPLE)
    np.testing.assert_allclose(weights @ EXAMPLE, np.array([5, 32.5, 32.5]) / 17.1, rtol=2e-6)
    np.testing.assert_allclose(weights @ EXAMPLE, [0.2929, 1.9004, 1.9004], atol=6e-4)


def test_sum_is_mean_times_tasks_and_pcgrad_for_two():
    mean, _ = compiled("upgrad")(EXAMPLE)
    total, _ = compiled("upgrad", reduction="sum")(EXAMPLE)
    np.testing.assert_allclose(total, 2 * mean, rtol=1e-6)
    # PCGrad: each row minus its component along the other, since they conflict.
    inner = EXAMPLE @ EXAMPLE.T
    np.testing.assert_allclose(
        total, [1 - inner[0, 1] / inner[0, 0], 1 - inner[0, 1] / inner[1, 1]], rtol=1e-6
    )


def test_preference_weighs_the_projections():
    rows = make("gaussian", 3).astype(np.float32)
    alone = [upgrad(preference=np.eye(3)[t]) for t in range(3)]
    single = [rule.update(rule.init(3), gramian=gramian(rows))[0] for rule in alone]
    rule = upgrad(preference={"b": 2.0, "a": 1.0, "c": 1.0})
    weights, _ = rule.update(rule.init(3), gramian=gramian(rows))
    np.testing.assert_allclose(weights, (single[0] + 2 * single[1] + single[2]) / 4, rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_agreeing_gradients_get_the_mean_exactly(name):
    weights, _ = compiled(name)(make("spread_common", 10).astype(np.float32))
    np.testing.assert_array_equal(weights, np.full(10, np.float32(1) / 10))


@pytest.mark.parametrize("name", RULES)
def test_zero_gradients_get_their_share_and_change_nothing(name):
    rows = make("gaussian", 10).astype(np.float32)
    rows[4] = 0
    rest = np.delete(np.arange(10), 4)
    weights, _ = compiled(name, reduction="sum")(rows)
    others, _ = compiled(name, reduction="sum")(rows[rest])
    assert weights[4] == 1
    np.testing.assert_allclose(weights[rest], others, rtol=1e-5)
    np.testing.assert_array_equal(
        compiled(name)(np.zeros_like(rows))[0], np.full(10, np.float32(0.1))
    )


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [{"reduction": "median"}, {"preference": [1.0, -1.0]}])
def test_wrong_options_are_named(name, options):
    with pytest.raises(ValueError, match=f"{name}: {next(iter(options))}"):
        RULES[name](**options)


@pytest.mark.parametrize("name", RULES)
def test_preference_of_another_length_is_named(name):
    with pytest.raises(ValueError, match=f"{name}: preference: expected shape .2,."):
        rule = RULES[name](preference=np.ones(3))
        rule.update(rule.init(2), gramian=EXAMPLE @ EXAMPLE.T)
