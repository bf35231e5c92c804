"""GradNorm, NTKMTL, Krum and CR-MOGM against explicit float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax._gramian import gramian
from mgda_jax.weighting import cr_mogm, gradnorm, krum, min_norm, ntkmtl, rlw
from tests.problems import FAMILIES, make

EPS = float(np.finfo(np.float32).eps)


def papers_gradnorm(norms, losses, alpha, rate):
    """Algorithm 1 in numpy, its loss in units of the mean norm, with plain gradient steps."""
    weights, used = np.ones(norms.shape[1]), []
    for n, loss in zip(norms, losses, strict=True):
        used.append(weights)
        weighted = weights * n
        ratio = loss / losses[0]
        target = weighted.mean() * (ratio / ratio.mean()) ** alpha
        weights = weights - rate * n / weighted.mean() * np.sign(weighted - target)
        weights = weights * len(weights) / weights.sum()
    return np.array(used)


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_gradnorm_is_the_papers_algorithm(alpha):
    rng = np.random.default_rng(0)
    norms = np.exp(rng.standard_normal((12, 3)))
    losses = np.exp(rng.standard_normal((12, 3)))
    rule = gradnorm(alpha=alpha, optimizer=optax.sgd(0.05))

    def step(state, inputs):
        n, loss = inputs
        weights, state = rule.update(state, gramian=jnp.diag(n**2), losses=loss)
        return state, weights

    inputs = (jnp.asarray(norms, jnp.float32), jnp.asarray(losses, jnp.float32))
    _, weights = jax.lax.scan(step, rule.init(3), inputs)
    np.testing.assert_allclose(weights, papers_gradnorm(norms, losses, alpha, 0.05), rtol=256 * EPS)


def test_gradnorm_comes_to_rest_at_norms_in_the_ratio_asked_for():
    """‖w_t g_t‖ ∝ r_t^α, which can be met exactly at α = 1: there the targets have the mean Ḡ."""
    norms, alpha = jnp.array([5.0, 1.0, 0.5]), 1.0
    rule = gradnorm(alpha=alpha, optimizer=optax.adam(optax.exponential_decay(0.05, 100, 0.3)))
    first, later = jnp.ones(3), jnp.array([1.0, 0.5, 2.0])

    def step(state, losses):
        weights, state = rule.update(state, gramian=jnp.diag(norms**2), losses=losses)
        return state, weights

    with jax.numpy_dtype_promotion("standard"):  # of optax's schedule
        state, _ = step(rule.init(3), first)
        _, weights = jax.lax.scan(step, state, jnp.broadcast_to(later, (600, 3)))
    weighted = weights[-1] * norms
    rate = later / jnp.mean(later)
    np.testing.assert_allclose(
        weighted / weighted.sum(), rate**alpha / (rate**alpha).sum(), rtol=2e-2
    )
    np.testing.assert_allclose(weights.sum(axis=1), 3, rtol=8 * EPS)


def test_gradnorm_keeps_its_weights_positive():
    rule = gradnorm(optimizer=optax.sgd(10.0))
    state = rule.init(2)
    for _ in range(3):
        weights, state = rule.update(
            state, gramian=jnp.diag(jnp.array([1e6, 1.0])), losses=jnp.ones(2)
        )
        assert (np.asarray(weights) > 0).all()
        np.testing.assert_allclose(weights.sum(), 2, rtol=8 * EPS)


def test_gradnorm_does_not_feel_the_size_of_the_gradients():
    norms = jnp.array([3.0, 1.0])

    def weigh(size):
        rule = gradnorm()
        state, losses = rule.init(2), jnp.array([1.0, 2.0])
        for _ in range(3):
            weights, state = rule.update(
                state, gramian=gramian(jnp.diag(norms * size)), losses=losses
            )
        return weights

    np.testing.assert_allclose(weigh(1e-30), weigh(1.0), rtol=8 * EPS)


@pytest.mark.parametrize("exponent", [0.5, 0.75])
def test_ntkmtl_is_the_ratio_of_the_kernels(exponent):
    rows = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    rule = ntkmtl(exponent=exponent)
    weights, _ = rule.update(rule.init(4), gramian=gramian(jnp.asarray(rows)))
    kernels = (rows.astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(weights, (kernels.sum() / kernels) ** exponent, rtol=8 * EPS)
    if exponent == 0.5:
        lengths = weights * np.sqrt(kernels)
        np.testing.assert_allclose(lengths, lengths[0], rtol=8 * EPS)


def test_ntkmtl_gives_zero_gradients_no_weight():
    rule = ntkmtl()
    weights, _ = rule.update(rule.init(3), gramian=jnp.diag(jnp.array([1.0, 0.0, 4.0])))
    assert weights[1] == 0 and np.isfinite(weights).all()


def brute_force_krum(rows, byzantine, selected):
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    nearest = max(len(rows) - byzantine - 2, 1)
    scores = np.sort(distances, axis=1)[:, 1 : nearest + 1].sum(axis=1)
    weights = np.zeros(len(rows))
    weights[np.argsort(scores, kind="stable")[:selected]] = 1 / min(selected, len(rows))
    return weights


@pytest.mark.parametrize(("byzantine", "selected"), [(0, 1), (1, 1), (2, 3), (0, 7)])
def test_krum_is_its_definition(byzantine, selected):
    rule = krum(num_byzantine=byzantine, num_selected=selected)
    run = jax.jit(
        lambda rows, active: rule.update(rule.init(7), gramian=gramian(rows), active=active)[0]
    )
    rng = np.random.default_rng(1)
    for active in (np.ones(7, bool), np.array([1, 1, 0, 1, 1, 0, 1], bool)):
        for _ in range(10):
            rows = rng.standard_normal((7, 5)).astype(np.float32)
            held = np.where(active[:, None], rows, np.nan)
            weights = np.asarray(run(jnp.asarray(held), jnp.asarray(active)))
            expected = brute_force_krum(rows[active].astype(np.float64), byzantine, selected)
            np.testing.assert_allclose(weights[active], expected, rtol=4 * EPS)
            assert (weights[~active] == 0).all()


def test_krum_avoids_what_is_far_away():
    rows = np.random.default_rng(2).standard_normal((6, 5)).astype(np.float32)
    rows[4:] *= 1e6
    rule = krum(num_byzantine=2, num_selected=2)
    weights, _ = rule.update(rule.init(6), gramian=gramian(jnp.asarray(rows)))
    assert (np.asarray(weights)[4:] == 0).all()


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_krum_of_one_or_two_tasks_takes_one(num_tasks):
    rule = krum(num_byzantine=0)
    weights, _ = rule.update(rule.init(num_tasks), gramian=jnp.eye(num_tasks))
    np.testing.assert_array_equal(weights, [1, 0][:num_tasks])


def test_cr_mogm_is_a_moving_average_of_the_rules_weights():
    alpha, rng = 0.8, np.random.default_rng(3)
    inner, rule = min_norm(), cr_mogm(min_norm(), alpha=alpha)
    state, average = rule.init(3), None
    step = jax.jit(lambda state, m: rule.update(state, gramian=m))
    fresh = jax.jit(lambda m: inner.update(inner.init(3), gramian=m)[0])
    for _ in range(5):
        matrix = gramian(jnp.asarray(rng.standard_normal((3, 6)), jnp.float32))
        weights, state = step(state, matrix)
        new = np.asarray(fresh(matrix), np.float64)
        average = new if average is None else alpha * average + (1 - alpha) * new
        np.testing.assert_allclose(weights, average, rtol=16 * EPS, atol=EPS)
    assert rule.reads == inner.reads and rule.scope == inner.scope


def test_cr_mogm_without_memory_is_the_rule_and_passes_the_key_on():
    rule, inner = cr_mogm(rlw(), alpha=0.0), rlw()
    key = jax.random.key(4)
    weights, _ = rule.update(rule.init(3), key=key)
    np.testing.assert_array_equal(weights, inner.update(inner.init(3), key=key)[0])
    assert rule.scope == "all" and not rule.reads


def test_cr_mogm_keeps_the_average_of_an_absent_task():
    rule = cr_mogm(min_norm(), alpha=0.5)
    matrix = jnp.diag(jnp.array([1.0, 1.0, 2.0]))
    _, state = rule.update(rule.init(3), gramian=matrix)
    active = jnp.array([True, False, True])
    weights, after = rule.update(state, gramian=matrix.at[1].set(jnp.nan), active=active)
    assert weights[1] == 0 and after.weights[1] == state.weights[1]
    _, late = rule.update(rule.init(3), gramian=matrix, active=active)
    assert not late.seen[1]
    first, _ = rule.update(late, gramian=matrix)
    np.testing.assert_allclose(first[1], 0.4, rtol=8 * EPS)  # its own first weight, unsmoothed


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: gradnorm(alpha=-1.0), "gradnorm: alpha must not be negative, got -1.0"),
        (lambda: ntkmtl(exponent=-1.0), "ntkmtl: exponent must not be negative"),
        (lambda: krum(num_byzantine=-1), "krum: num_byzantine must be an int >= 0, got -1"),
        (lambda: krum(num_selected=0), "krum: num_selected must be an int >= 1, got 0"),
        (lambda: cr_mogm(min_norm(), alpha=2.0), r"cr_mogm: alpha must be in \[0, 1\], got 2.0"),
        (lambda: cr_mogm(min_norm), "cr_mogm: weighting: expected a Weighting"),
    ],
)
def test_bad_arguments_are_named(make_rule, message):
    with pytest.raises(ValueError, match=message):
        make_rule()


@pytest.mark.parametrize("rule", [krum(), ntkmtl()], ids=["krum", "ntkmtl"])
def test_every_family_gives_finite_weights(rule):
    rows = [make(name, 5) for name in FAMILIES]
    stacked = np.stack([np.pad(r, ((0, 0), (0, 16 - r.shape[1]))) for r in rows])
    run = jax.jit(jax.vmap(lambda g: rule.update(rule.init(5), gramian=gramian(g))[0]))
    assert np.isfinite(run(jnp.asarray(stacked, jnp.float32))).all()
