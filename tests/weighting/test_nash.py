"""Nash-MTL and FairGrad: the defining equations, scipy's root, invariants, singular Gramians."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from mgda_jax._gramian import Gramian, gramian
from mgda_jax.weighting import fair_grad, nash_mtl
from mgda_jax.weighting._nash_mtl import NashState
from tests.problems import FAMILIES, make
from tests.quick import quick_jit
from tests.weighting.solving import HULL_CONTAINS_ZERO, drawn, solve_families, unit

RULES = {"nash_mtl": (nash_mtl, 1.0), "fair_grad": (fair_grad, 0.5)}
SOLVABLE = tuple(f for f in FAMILIES if f not in (*HULL_CONTAINS_ZERO, "vandermonde"))
EPS = float(np.finfo(np.float32).eps)


@functools.cache
def compiled(factory, **options):
    rule = factory(**options)
    return jax.jit(
        lambda rows, active=None: rule.update(
            rule.init(rows.shape[0]), gramian=gramian(rows, active=active), active=active
        )
    )


def report_of(state):
    """That of the last solve: all of the state where a rule keeps nothing."""
    return state.report if isinstance(state, NashState) else state


def direction(rows, weights):
    return np.asarray(weights, np.float64) @ np.asarray(rows, np.float64)


def residual(rows, weights, power):
    """max_t |w_tᵖ ⟨g_t, d⟩ − 1| over the non-zero rows, in float64."""
    there = np.any(rows != 0, axis=1)
    gains = rows @ (weights @ rows)
    return np.max(np.abs(weights[there] ** power * gains[there] - 1))


def attainable(rows, weights, power):
    """What rounding weights and rows to float32 alone does to the residual, in eps."""
    units, norms = unit(rows)
    there = np.any(rows != 0, axis=1)
    parts = weights * norms
    terms = np.abs(units @ units.T) @ parts
    return np.max(weights[there] ** power * norms[there] * terms[there])


@pytest.mark.parametrize("num_tasks", [3, 10, 40, 100])
@pytest.mark.parametrize("name", RULES)
def test_residual_of_the_defining_equation(name, num_tasks):
    factory, power = RULES[name]
    for family, rows, weights, state in solve_families(factory, num_tasks, "float32"):
        if family in SOLVABLE:
            assert report_of(state).regularization == 0, family
            # 1e-5 except where weights rounded to float32 cannot reach it.
            floor = EPS * attainable(rows, weights, power)
            assert residual(rows, weights, power) <= max(1e-5, 2 * floor), family
            assert report_of(state).residual <= max(1e-5, 2 * floor), family
            if name == "nash_mtl":
                assert residual(rows, weights, power) <= 1e-5, family


@pytest.mark.parametrize("name", RULES)
def test_residual_in_float64(name):
    factory, power = RULES[name]
    for family, rows, weights, state in solve_families(factory, 10, "float64", seeds=1):
        if family in (*SOLVABLE, "vandermonde"):
            eps = np.finfo(np.float64).eps
            bound = 16 * eps * (1 + attainable(rows, weights, power))
            assert report_of(state).regularization == 0, family
            assert residual(rows, weights, power) <= bound, (
                family,
                residual(rows, weights, power) / bound,
            )


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("family", ["gaussian", "realistic", "spread_1e4", "cosine_0.9999"])
def test_agrees_with_scipy(name, family):
    factory, power = RULES[name]
    rows = make(family, 10)
    units, norms = unit(rows)

    cosines = units @ units.T
    # In a = ‖g‖∘w: minimise ½ aᵀCa − Σ q φ(a), φ' = a^−p, over x = log a.
    target = norms ** (power - 1) / np.max(norms ** (power - 1))

    def value_and_gradient(x):
        a = np.exp(x)
        utility = x if power == 1 else a ** (1 - power) / (1 - power)
        value = a @ cosines @ a / 2 - target @ utility
        return value, a * (cosines @ a - target * a**-power)

    start = np.log(target) / (1 + power) - np.log(np.mean(np.abs(cosines)) * 10) / (1 + power)
    reference = minimize(value_and_gradient, start, jac=True, method="BFGS", tol=1e-12)
    solution = np.exp(reference.x) / norms * np.max(norms ** (power - 1)) ** (1 / (1 + power))
    assert residual(rows, solution, power) <= 1e-5
    weights, _ = compiled(factory)(rows.astype(np.float32))
    np.testing.assert_allclose(weights, solution, rtol=1e-4)


@pytest.mark.parametrize("num_tasks", [3, 40])
@pytest.mark.parametrize("name", RULES)
def test_without_a_solution_the_regularised_equation_is_solved_and_lambda_reported(name, num_tasks):
    factory, power = RULES[name]
    solutions = solve_families(factory, num_tasks, "float32")
    for family, rows, weights, state in solutions:
        if family not in HULL_CONTAINS_ZERO:
            continue
        report = report_of(state)
        if family == "rank_deficient" and num_tasks == 3:
            continue  # one column: the signs may agree
        if np.min(direction(rows, weights) @ rows.T) > 0 and report.regularization == 0:
            continue
        np.testing.assert_allclose(
            float(report.regularization), np.sqrt(num_tasks) * EPS ** (2 / 3), rtol=1e-6
        )
        assert np.all(np.isfinite(weights)) and np.all(weights > 0), family
        gains = rows @ (weights @ rows) + report.regularization * np.sum(rows**2, axis=1) * weights
        true = np.max(np.abs(gains * weights**power - 1))
        assert true <= 0.1, (family, true)
        assert report.residual <= 0.1, family


def test_direction_tends_to_the_limit_of_vanishing_regularisation():
    """With an opposed pair the others bargain among themselves across the pair's line."""
    rows = make("opposed_pair", 5)
    weights, state = compiled(nash_mtl)(rows.astype(np.float32))
    regularization = state.report.regularization
    assert regularization > 0
    line = rows[0] / np.linalg.norm(rows[0])
    across = rows[1:4] - np.outer(rows[1:4] @ line, line)
    limit, _ = compiled(nash_mtl)(across.astype(np.float32))
    error = np.linalg.norm(direction(rows, weights) - direction(across, limit))
    assert error <= 4 * np.sqrt(regularization) * np.linalg.norm(direction(across, limit))


def test_nash_norm_and_task_rescaling():
    rows = make("gaussian", 10).astype(np.float32)
    weights, _ = compiled(nash_mtl)(rows)
    np.testing.assert_allclose(np.sum(direction(rows, weights) ** 2), 10, rtol=4e-6)
    scale = np.float32(2.0) ** np.arange(-5, 5)
    rescaled, _ = compiled(nash_mtl)(rows * scale[:, None])
    np.testing.assert_allclose(rescaled * scale, weights, rtol=4e-6)


def test_nash_two_tasks_in_closed_form():
    rows = np.array([[3.0, 0.0, 4.0], [-1.0, 2.0, 0.5]], np.float32)
    norms = np.linalg.norm(rows, axis=1)
    cosine = rows[0] @ rows[1] / np.prod(norms)
    weights, _ = compiled(nash_mtl)(rows)
    np.testing.assert_allclose(weights, 1 / (norms * np.sqrt(1 + cosine)), rtol=1e-6)


def test_fair_grad_with_alpha_one_is_nash():
    rows = make("realistic", 10).astype(np.float32)
    nash, _ = compiled(nash_mtl)(rows)
    np.testing.assert_allclose(compiled(fair_grad, alpha=1.0)(rows)[0], nash, rtol=4e-6)


@pytest.mark.parametrize("alpha", [0.5, 1.5, 4.0])
def test_fair_grad_solves_its_equation_for_other_alpha(alpha):
    rows = make("realistic", 10)
    weights, state = compiled(fair_grad, alpha=alpha)(rows.astype(np.float32))
    assert residual(rows, np.asarray(weights, np.float64), 1 / alpha) <= 1e-5
    assert state.residual <= 1e-5


def test_larger_alpha_favours_the_task_that_gains_least():
    rows = make("spread_common", 5)

    def weights(alpha, rows):
        rule = fair_grad(alpha=alpha)
        return rule.update(rule.init(5), gramian=gramian(rows))[0]

    alphas = np.array([0.5, 1.0, 2.0, 4.0], np.float32)
    found = quick_jit(jax.vmap(weights, in_axes=(0, None)))(alphas, rows.astype(np.float32))
    gains = direction(rows, found) @ rows.T
    assert np.all(np.diff(gains.min(axis=1) / gains.mean(axis=1)) > 0)


@pytest.mark.parametrize("name", RULES)
def test_preference_solves_the_weighted_equation(name):
    factory, power = RULES[name]
    rows = make("gaussian", 3)
    preference = np.array([1.0, 2.0, 0.5])
    rule = factory(preference={"a": 1.0, "c": 0.5, "b": 2.0})
    solve = jax.jit(lambda rows: rule.update(rule.init(3), gramian=gramian(rows))[0])
    weights = solve(rows.astype(np.float32))
    weights = np.asarray(weights, np.float64)
    gains = rows @ (weights @ rows)
    np.testing.assert_allclose(gains * (weights / preference) ** power, 1, rtol=2e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("shift", [-115, -96, -40, 40, 93, 100, 115])
def test_scale_of_the_gradients(name, shift):
    """Where weights leave the range of float32 they do so together: the direction is as before."""
    factory, power = RULES[name]
    rows = make("gaussian", 5).astype(np.float32) * np.float32(2.0) ** np.arange(-4, 1)[:, None]
    weights, _ = compiled(factory)(rows)
    scaled, _ = compiled(factory)(np.ldexp(rows, shift))
    expected = np.float64(weights) * 2.0 ** (-2 * shift / (1 + power))
    info = np.finfo(np.float32)
    ratio = np.float64(scaled) / expected
    np.testing.assert_allclose(ratio / ratio[0], 1, rtol=8 * EPS)
    bearable = expected.max() < info.max and expected.min() > info.tiny
    if bearable:
        np.testing.assert_allclose(scaled, expected, rtol=32 * EPS)
    else:
        assert (scaled.max() > info.max / 4) if shift < 0 else (scaled.min() < 4 * info.tiny)
    clipped, _ = compiled(factory, max_norm=0.5)(np.ldexp(rows, shift))
    length = np.linalg.norm(direction(np.ldexp(rows, shift), clipped))
    unclipped = np.linalg.norm(expected @ np.ldexp(np.float64(rows), shift))
    if bearable or unclipped > 0.5:
        np.testing.assert_allclose(length, min(0.5, unclipped), rtol=32 * EPS)
    assert length <= 0.5 * (1 + 32 * EPS)


@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_with_max_norm_one_it_is_the_public_code(factor):
    """The authors' program: minimise Σ(Ĝα) + Σ log(α∘Ĝα)/n subject to nα_t(Ĝα)_t ≥ 1.

    Ĝ = M/n and n = ‖M‖_F. At its minimum all constraints hold with equality, so n is back in
    the solution: the length is √T whatever the gradients', and is then clipped.
    """
    rows = make("gaussian", 3) * factor
    matrix = rows @ rows.T
    size = np.linalg.norm(matrix)

    # In x = log(√n α), of order one.
    def slack(x):
        return x + np.log(matrix / size @ np.exp(x))

    found = minimize(
        lambda x: np.sum(matrix / size @ np.exp(x)) + np.sum(slack(x)) / size**0.5,
        np.full(3, 2.0),
        constraints={"type": "ineq", "fun": slack},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    alpha = np.exp(found.x) / size**0.5
    length = np.linalg.norm(alpha @ rows)
    np.testing.assert_allclose(length, 3**0.5, rtol=1e-3)
    weights, _ = compiled(nash_mtl, max_norm=1.0)(rows.astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(direction(rows, weights)), 1, rtol=16 * EPS)
    np.testing.assert_allclose(weights, alpha / length, rtol=1e-3)


def test_a_task_that_comes_back_is_solved_for_at_once():
    """Two tasks in turn, and a third that is there from the third update on."""
    rule, plain = nash_mtl(every=8), nash_mtl()
    gram = gramian(make("gaussian", 3).astype(np.float32))
    state = rule.init(3)
    for active in ([1, 0, 0], [0, 1, 0], [1, 1, 1]):
        active = jnp.array(active, bool)
        weights, state = rule.update(state, gramian=gram, active=active)
        expected, _ = plain.update(plain.init(3), gramian=gram, active=active)
        np.testing.assert_array_equal(weights, expected)
        assert (np.asarray(weights) > 0).tolist() == active.tolist()
    kept, state = rule.update(state, gramian=gramian(2 * jnp.eye(3)), active=active)
    np.testing.assert_array_equal(kept, weights)
    kept, _ = rule.update(state, gramian=gramian(2 * jnp.eye(3)), active=active.at[0].set(False))
    np.testing.assert_array_equal(kept[1:], weights[1:])


def test_every_keeps_the_weights_in_between_and_clips_each_time():
    rule = nash_mtl(every=2, max_norm=1.0)
    traces = []

    @jax.jit
    def step(state, gramian):
        traces.append(None)
        return rule.update(state, gramian=gramian)

    rows = make("gaussian", 3).astype(np.float32)
    state = rule.init(3)
    kept, lengths = [], []
    for k in range(4):
        now = rows * np.float32(3.0) ** -k
        weights, state = step(state, gramian(now))
        kept.append(state.weights)
        lengths.append(np.linalg.norm(direction(now, weights)))
    assert len(traces) == 1
    assert state.count == 4
    np.testing.assert_array_equal(kept[0], kept[1])
    np.testing.assert_array_equal(kept[2], kept[3])
    np.testing.assert_allclose(kept[2], 9 * kept[0], rtol=1e-5)
    # ‖d‖ = √3 when solved, a third of it one step later.
    np.testing.assert_allclose(lengths, [1, 3**-0.5, 1, 3**-0.5], rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_zero_gradients_stay_out_of_the_bargain(name):
    factory, _ = RULES[name]
    rows = make("gaussian", 5).astype(np.float32)
    rows[2] = 0
    weights, _ = compiled(factory)(rows)
    others, _ = compiled(factory)(rows[[0, 1, 3, 4]])
    assert weights[2] == 0
    np.testing.assert_allclose(weights[jnp.array([0, 1, 3, 4])], others, rtol=4e-6)
    np.testing.assert_array_equal(compiled(factory)(np.zeros_like(rows))[0], np.zeros(5))


def test_singular_gramians_among_many_are_solved():
    """In a batch this large the compiler's maximum drops a NaN: a failed step must still show."""
    rows = np.random.default_rng(0).standard_normal((16384, 10, 5)).astype(np.float32)
    rule = fair_grad()
    solve = jax.jit(jax.vmap(lambda rows: rule.update(rule.init(10), gramian=gramian(rows))))
    weights, state = jax.device_get(solve(rows))
    assert np.all(np.isfinite(weights)) and np.all(weights > 0)
    assert np.all(np.isfinite(state.residual) & (state.residual >= 0))


def test_hyperparameters_may_be_traced():
    rows = make("gaussian", 3).astype(np.float32)

    def weights(alpha, max_norm):
        rule = fair_grad(alpha=alpha, max_norm=max_norm)
        return rule.update(rule.init(3), gramian=gramian(rows))[0]

    alphas = jnp.array([1.0, 2.0])
    batched = quick_jit(jax.vmap(weights))(alphas, jnp.array([0.5, 100.0]))
    np.testing.assert_allclose(batched[1], compiled(fair_grad)(rows)[0], rtol=4e-6)
    np.testing.assert_allclose(np.linalg.norm(direction(rows, batched[0])), 0.5, rtol=4e-6)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (nash_mtl, {"preference": [1.0, 0.0]}, "nash_mtl: preference"),
        (nash_mtl, {"max_norm": 0.0}, "nash_mtl: max_norm"),
        (nash_mtl, {"every": 0}, "nash_mtl: every"),
        (fair_grad, {"alpha": 0.0}, "fair_grad: alpha"),
        (fair_grad, {"max_norm": -1.0}, "fair_grad: max_norm"),
    ],
)
def test_wrong_options_are_named(factory, options, message):
    with pytest.raises(ValueError, match=message):
        factory(**options)


def test_families_that_are_drawn_are_those_named():
    assert {family for family, _ in drawn(3, HULL_CONTAINS_ZERO, 1)} == set(HULL_CONTAINS_ZERO)
    assert set(HULL_CONTAINS_ZERO) < set(FAMILIES)


def test_exponent_is_used():
    matrix = jnp.eye(2)
    rule = nash_mtl()
    weigh = quick_jit(lambda m: rule.update(rule.init(2), gramian=Gramian(m, jnp.int32(3)))[0])
    weights = weigh(matrix)
    np.testing.assert_array_equal(weights, [0.125, 0.125])
