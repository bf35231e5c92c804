"""The loss-based rules against their published formulas, written again in float64 numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax.weighting import (
    dwa,
    famo,
    gls,
    go4align,
    imtl_l,
    random,
    rlw,
    scale_invariant,
    stch,
    tchebycheff,
    uncertainty,
)
from mgda_jax.weighting._go4align import cluster_means
from mgda_jax.weighting.losses import softmax as masked_softmax

EPS = float(jnp.finfo(jnp.float32).eps)
LOSSES = np.exp(np.random.default_rng(0).normal(size=(12, 3))).astype(np.float32)
PATH = 0.025 * len(LOSSES)  # Adam's way: steps of about its rate, each rounded, may cancel


def run(rule, losses=LOSSES, **extra):
    """The weights (S, T) of S updates and the last state."""

    def step(state, inputs):
        weights, state = rule.update(state, **inputs)
        return state, weights

    inputs = {"losses": jnp.asarray(losses)} | {k: jnp.asarray(v) for k, v in extra.items()}
    state, weights = jax.lax.scan(step, rule.init(losses.shape[1]), inputs)
    return np.asarray(weights), state


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def adam(gradient, first=0.0, second=0.0, count=0, lr=0.025):
    """One step of Adam with its published constants: the update and the new moments."""
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient**2
    count += 1
    step = (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
    return -lr * step, (first, second, count)


@pytest.mark.parametrize(
    ("rule", "objective"),
    [
        (gls(), lambda x: jnp.prod(x) ** (1 / 3)),
        (scale_invariant(), lambda x: jnp.sum(jnp.log(x))),
        (scale_invariant(reduction="mean"), lambda x: jnp.mean(jnp.log(x))),
    ],
    ids=["gls", "scale_invariant", "scale_invariant-mean"],
)
def test_weights_are_the_gradient_of_the_objective(rule, objective):
    expected = jax.vmap(jax.grad(objective))(jnp.asarray(LOSSES))
    np.testing.assert_allclose(run(rule)[0], expected, rtol=16 * EPS)


def test_the_softmax_of_products_of_any_size_sums_to_one():
    """Of products fused with a difference, which are not those whose maximum is subtracted."""
    rng = np.random.default_rng(0)
    values = rng.uniform(1, 2, (256, 3)).astype(np.float32)
    factors = rng.uniform(1e12, 2e12, 256).astype(np.float32)
    weights = jax.jit(jax.vmap(lambda a, b: masked_softmax(a * b, jnp.ones(3, bool))))
    weights = weights(values, factors)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=4 * EPS)
    assert (np.argmax(weights, axis=1) == np.argmax(values, axis=1)).all()
    for bad in (np.nan, np.inf):
        spoilt = jax.jit(masked_softmax)(np.array([1, bad, 2], np.float32), np.ones(3, bool))
        assert np.isnan(spoilt[1])
    kept = jax.jit(masked_softmax)(np.array([1, np.inf, 1], np.float32), np.array([1, 0, 1], bool))
    np.testing.assert_array_equal(kept, [0.5, 0, 0.5])
    none = jax.jit(masked_softmax)(np.ones(3, np.float32), np.zeros(3, bool))
    assert not none.any()


@pytest.mark.parametrize("mu", [0.0, 1e-30, 0.2])
def test_tchebycheff_is_the_gradient_of_its_objective(mu):
    preference, ideal = np.array([2.0, 0.0, 6.0]), np.array([-1.0, 0.0, -0.25])
    weights, _ = run(tchebycheff(preference=preference, ideal=ideal, mu=mu))
    share = preference / 8
    weighed = share * (LOSSES.astype(np.float64) - ideal)
    if mu < 0.1:
        expected = share * (weighed == weighed.max(axis=1, keepdims=True))
    else:
        expected = share * np.stack([softmax(x / mu) for x in weighed])
    np.testing.assert_allclose(weights, expected, rtol=64 * EPS / max(mu, 1 / 64), atol=0)
    tied, _ = run(tchebycheff(), np.array([[1.0, 3.0, 3.0]], np.float32))
    np.testing.assert_allclose(tied, [[0, 1 / 6, 1 / 6]], rtol=4 * EPS)
    below, _ = run(tchebycheff(ideal=(2.0, 0.0, 0.0)), np.ones((1, 3), np.float32))
    assert np.isnan(below).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_stch_is_the_gradient_of_its_objective_after_the_warm_up(mu, reduction):
    # Epochs of 3: two of warm-up, the third measures the nadir.
    rule = stch(steps_per_epoch=3, warmup_epochs=2, mu=mu, reduction=reduction)
    weights, _ = run(rule)
    size = 3 if reduction == "sum" else 1
    np.testing.assert_allclose(weights[:9], size / 3 / LOSSES[:9], rtol=4 * EPS)

    nadir = LOSSES[6:9].astype(np.float64).mean(0)
    shares = np.stack([softmax(np.log(x / nadir) / mu) for x in LOSSES[9:].astype(np.float64)])
    np.testing.assert_allclose(weights[9:], size * shares / LOSSES[9:], rtol=32 * EPS / mu)

    def objective(x):
        return size * mu * jnp.log(jnp.sum(jnp.exp(jnp.log(x / nadir.astype("f4")) / mu)))

    expected = jax.vmap(jax.grad(objective))(jnp.asarray(LOSSES[9:]))
    np.testing.assert_allclose(weights[9:], expected, rtol=64 * EPS / mu)


def test_dwa_follows_the_epoch_means():
    weights, _ = run(dwa(steps_per_epoch=3, temperature=2.0))
    means = LOSSES.astype(np.float64).reshape(4, 3, 3).mean(1)
    expected = np.ones((4, 3))
    expected[2:] = [3 * softmax(means[k - 1] / means[k - 2] / 2.0) for k in (2, 3)]
    np.testing.assert_allclose(weights, np.repeat(expected, 3, axis=0), rtol=16 * EPS)


def test_uncertainty_follows_adam_on_its_objective():
    weights, state = run(uncertainty())
    s, moments = np.zeros(3), ()
    for losses, got in zip(LOSSES.astype(np.float64), weights, strict=True):
        np.testing.assert_allclose(got, 0.5 * np.exp(-s), rtol=64 * EPS)
        update, moments = adam(0.5 * (1 - losses * np.exp(-s)), *moments)
        s = s + update
    np.testing.assert_allclose(state.parameters, s, rtol=64 * EPS, atol=PATH * EPS)


def test_imtl_l_follows_adam_on_its_objective():
    weights, state = run(imtl_l())
    s, moments = np.zeros(3), ()
    for losses, got in zip(LOSSES.astype(np.float64), weights, strict=True):
        np.testing.assert_allclose(got, np.exp(s), rtol=64 * EPS)
        update, moments = adam(np.exp(s) * losses - 1, *moments)
        s = s + update
    np.testing.assert_allclose(state.parameters, s, rtol=64 * EPS, atol=PATH * EPS)


@pytest.mark.parametrize(
    ("factory", "rest"), [(uncertainty, lambda x: 0.5 / x), (imtl_l, lambda x: 1 / x)]
)
def test_learned_scales_come_to_rest_at_the_inverse_loss(factory, rest):
    losses = np.array([0.5, 1.0, 4.0], np.float32)
    weights, _ = run(factory(optimizer=optax.sgd(0.2)), np.tile(losses, (400, 1)))
    np.testing.assert_allclose(weights[-1], rest(losses), rtol=1e-4)


def test_famo_follows_its_published_update():
    # previous[k] are the losses of batch k - 1 after step k - 1.
    previous = LOSSES[np.r_[0, :11]] * np.array([0.9, 0.7, 1.1], np.float32)
    minima = np.array([0.01, 0.0, 0.02])
    rule = famo(min_losses=tuple(minima))
    weights, state = run(rule, previous_losses=previous)
    logits, moments = np.zeros(3), ()
    for k in range(12):
        if k > 0:
            old, new = LOSSES[k - 1] - minima, previous[k] - minima
            z, drop = softmax(logits), np.log(old) - np.log(new)
            gradient = (np.diag(z) - np.outer(z, z)) @ drop + 1e-3 * logits
            update, moments = adam(gradient, *moments)
            logits = logits + update
        ratio = softmax(logits) / (LOSSES[k] - minima)
        np.testing.assert_allclose(weights[k], ratio / ratio.sum(), rtol=256 * EPS)
    np.testing.assert_allclose(state.logits.parameters, logits, rtol=512 * EPS, atol=64 * EPS)


def test_famo_ignores_the_first_previous_losses():
    rule = famo()
    losses = jnp.asarray(LOSSES[0])
    first, _ = rule.update(rule.init(3), losses=losses, previous_losses=losses)
    other, state = rule.update(rule.init(3), losses=losses, previous_losses=jnp.full(3, jnp.nan))
    np.testing.assert_array_equal(first, other)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state))


def test_famo_takes_previous_losses_by_name():
    rule = famo()
    losses = jnp.asarray(LOSSES[0, :2])
    named = {"right": losses[1], "left": losses[0]}
    weights, _ = rule.update(rule.init(2), losses=losses, previous_losses=named)
    expected, _ = rule.update(rule.init(2), losses=losses, previous_losses=losses)
    np.testing.assert_array_equal(weights, expected)
    with pytest.raises(ValueError, match="expected 2 tasks, got 3"):
        rule.update(rule.init(2), losses=losses, previous_losses=jnp.ones(3))


def best_clustering(x, num_clusters):
    """K-means by trying every partition of the sorted values into at most K intervals."""
    order = np.argsort(x)
    candidates = []
    for k in range(1, min(num_clusters, len(x)) + 1):
        for cuts in itertools.combinations(range(1, len(x)), k - 1):
            means = np.empty(len(x))
            for part in np.split(order, cuts):
                means[part] = x[part].mean()
            candidates.append(means)
    return min(candidates, key=lambda means: np.sum((x - means) ** 2))


@pytest.mark.parametrize("num_clusters", [1, 2, 3, 7, 9])
def test_cluster_means_is_the_best_clustering(num_clusters):
    rng = np.random.default_rng(num_clusters)
    points = np.exp(rng.normal(size=(8, 7))).astype(np.float32)
    mask = jnp.ones(7, bool)
    got = jax.jit(jax.vmap(lambda x: cluster_means(x, num_clusters, mask)))(points)
    for x, means in zip(points.astype(np.float64), np.asarray(got), strict=True):
        expected = best_clustering(x, num_clusters)
        np.testing.assert_allclose(means, expected, rtol=16 * EPS)


def test_cluster_means_joins_duplicates():
    x = jnp.array([2.0, 5.0, 2.0, 5.0, 2.0])
    np.testing.assert_allclose(cluster_means(x, 2, jnp.ones(5, bool)), x, rtol=4 * EPS)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_go4align_clusters_the_indicators(reduction):
    beta = 0.1
    weights, _ = run(go4align(num_groups=2, beta=beta, reduction=reduction))
    smoothness = np.full(3, 1 / 3)
    for losses, got in zip(LOSSES.astype(np.float64), weights, strict=True):
        smoothness = smoothness * np.exp(-beta * losses)
        smoothness = smoothness / smoothness.sum()
        total = losses.sum() if reduction == "sum" else losses.mean()
        expected = best_clustering(smoothness * total / losses, 2)
        np.testing.assert_allclose(got, expected, rtol=64 * EPS)


def test_go4align_with_a_group_per_task_keeps_the_weighted_loss():
    weights, _ = run(go4align(num_groups=3))
    np.testing.assert_allclose((weights * LOSSES).sum(1), LOSSES.sum(1), rtol=16 * EPS)


def moments_of(rule, draws=4000, size=3):
    keys = jax.random.split(jax.random.key(3), draws)
    state = rule.init(size)
    return np.asarray(jax.vmap(lambda key: rule.update(state, key=key)[0])(keys))


def test_rlw_is_a_softmax_of_normals():
    # With two tasks the log ratio of the weights is N(0, 2).
    weights = moments_of(rlw(), size=2).astype(np.float64)
    ratio = np.log(weights[:, 0] / weights[:, 1])
    assert abs(ratio.mean()) < 4 * np.sqrt(2 / 4000)
    assert abs(ratio.var() / 2 - 1) < 4 * np.sqrt(2 / 4000)


@pytest.mark.parametrize("concentration", [0.1, 1.0, 5.0])
def test_random_has_the_moments_of_a_dirichlet(concentration):
    weights = moments_of(random(concentration=concentration)).astype(np.float64)
    variance = (2 / 9) / (3 * concentration + 1)
    assert np.all(abs(weights.mean(0) - 1 / 3) < 4 * np.sqrt(variance / 4000))
    np.testing.assert_allclose(weights.var(0), variance, rtol=0.1)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=8 * EPS)


@pytest.mark.parametrize("factory", [rlw, random])
def test_draws_move_on_and_depend_on_the_seed(factory):
    rule = factory(seed=1)
    first, state = rule.update(rule.init(3))
    second, _ = rule.update(state)
    again, _ = rule.update(rule.init(3))
    other = factory(seed=2)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other.update(other.init(3))[0])
    key = jax.random.key(7)
    given, kept = rule.update(state, key=key)
    np.testing.assert_array_equal(given, other.update(other.init(3), key=key)[0])
    np.testing.assert_array_equal(kept.key, state.key)
