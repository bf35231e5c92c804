"""MoDo and SDMGrad against explicit steps, and the protocol of three batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax import aggregate, multitask_value_and_grad, per_task_decode, task_gradients
from mgda_jax.solvers.simplex import simplex_projection
from mgda_jax.weighting import cross_gramian, modo, sdmgrad
from mgda_jax.weighting.base import update_weights

EPS = float(np.finfo(np.float32).eps)


def project(y):
    """The simplex projection by bisection on θ, Σ max(y − θ, 0) = 1."""
    low, high = y.min() - 1.0, y.max()
    for _ in range(100):
        theta = (low + high) / 2
        low, high = (theta, high) if np.maximum(y - theta, 0).sum() > 1 else (low, theta)
    return np.maximum(y - theta, 0)


def test_simplex_projection_is_the_nearest_point():
    rng = np.random.default_rng(0)
    run = jax.jit(jax.vmap(simplex_projection, in_axes=(0, None)))
    points = rng.standard_normal((40, 6)) * 10 ** rng.uniform(-3, 3, (40, 1))
    mask = np.array([True, True, False, True, True, True])
    found = np.asarray(run(jnp.asarray(points, jnp.float32), jnp.asarray(mask)))
    for y, w in zip(points.astype(np.float32).astype(np.float64), found, strict=True):
        np.testing.assert_allclose(w[mask], project(y[mask]), atol=8 * EPS * max(1, abs(y).max()))
        assert w[2] == 0
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=8 * EPS)
    assert (np.asarray(simplex_projection(jnp.ones(3), jnp.zeros(3, bool))) == 0).all()
    ends = simplex_projection(jnp.array([3e38, 0.0, -3e38]), jnp.ones(3, bool))
    np.testing.assert_array_equal(ends, [1, 0, 0])


@pytest.mark.parametrize("num_tasks", [10, 40])
def test_simplex_projection_sums_to_one_within_half_of_what_every_rule_is_held_to(num_tasks):
    points = np.random.default_rng(0).uniform(-0.1, 0, (200, num_tasks))
    points[:, 0] += 0.7  # so that θ is far from the other entries, all of which are kept
    run = jax.jit(jax.vmap(lambda point: simplex_projection(point, jnp.ones(num_tasks, bool))))
    found = np.asarray(run(jnp.asarray(points, jnp.float32)), np.float64)
    assert np.max(np.abs(found.sum(axis=1) - 1)) <= 2 * EPS * np.sqrt(num_tasks)


def test_cross_gramian_is_the_product_of_two_jacobians():
    rng = np.random.default_rng(1)
    first, second = (
        {"a": rng.standard_normal((3, 2, 4)), "b": rng.standard_normal((3, 5))} for _ in range(2)
    )

    def flat(tree):
        return np.concatenate([leaf.reshape(3, -1) for leaf in tree.values()], axis=1)

    single = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), t) for t in (first, second)]
    matrix, exponent = cross_gramian(*single)
    np.testing.assert_allclose(
        matrix * 4.0**exponent, flat(first) @ flat(second).T, atol=32 * EPS * 10
    )
    held = jax.tree.map(lambda x: x.at[1].set(jnp.nan), single[0])
    active = jnp.array([True, False, True])
    masked, exponent = cross_gramian(held, single[1], active=active)
    assert np.isfinite(masked).all() and (np.asarray(masked)[1] == 0).all()


def crosses(rng, steps, num_tasks):
    first = rng.standard_normal((steps, num_tasks, 9))
    second = first + 0.5 * rng.standard_normal(first.shape)
    return first @ second.transpose(0, 2, 1)


def follow(rule, matrices, scale=1.0):
    """Weights and simplex states of consecutive updates."""

    def step(state, matrix):
        weights, state = rule.update(state, cross_gramian=matrix)
        return state, (weights, state.weights)

    matrices = jnp.asarray(matrices, jnp.float32)
    _, out = jax.jit(lambda m: jax.lax.scan(step, rule.init(m.shape[1]), m))(matrices)
    return [np.asarray(x, np.float64) for x in out]


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_modo_is_its_explicit_step(rho):
    matrices, gamma = crosses(np.random.default_rng(2), 6, 4), 0.02
    weights, _ = follow(modo(gamma=gamma, rho=rho), matrices)
    expected = np.full(4, 1 / 4)
    for matrix, found in zip(matrices, weights, strict=True):
        expected = project(expected - gamma * (matrix @ expected + rho * expected))
        np.testing.assert_allclose(found, expected, atol=256 * EPS)


@pytest.mark.parametrize("preference", [None, (1.0, 2.0, 0.0, 1.0)])
def test_sdmgrad_is_its_explicit_loop(preference):
    matrices, lam = crosses(np.random.default_rng(3), 4, 4), 0.3
    # A step at which the loop converges; a diverging one would amplify rounding.
    rule = sdmgrad(lam=lam, preference=preference, learning_rate=0.2, num_steps=7)
    weights, states = follow(rule, matrices)
    target = np.ones(4) if preference is None else np.array(preference)
    target = target / target.sum()
    w = np.full(4, 1 / 4)
    for matrix, found, state in zip(matrices, weights, states, strict=True):
        scaled = matrix / np.sqrt(np.maximum(np.diag(matrix), 0)).mean() ** 2
        velocity = np.zeros(4)
        for _ in range(7):
            velocity = 0.5 * velocity + scaled @ (w + lam * target)
            w = project(w - 0.2 * velocity)
        np.testing.assert_allclose(state, w, atol=1024 * EPS)
        np.testing.assert_allclose(found, (w + lam * target) / (1 + lam), atol=1024 * EPS)


@pytest.mark.parametrize("rule", [modo(gamma=0.1), sdmgrad()], ids=["modo", "sdmgrad"])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_gradients_of_any_size_give_weights_on_the_simplex(rule, size):
    rng = np.random.default_rng(4)
    first, second = (jnp.asarray(rng.standard_normal((3, 5)) * size, jnp.float32) for _ in "ab")
    weights, state = rule.update(rule.init(3), cross_gramian=cross_gramian(first, second))
    assert (np.asarray(weights) >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=8 * EPS)


def test_modo_of_huge_gradients_goes_to_the_best_task():
    rule = modo()
    first = jnp.diag(jnp.array([3e30, 1e30]))
    weights, _ = rule.update(rule.init(2), cross_gramian=cross_gramian(first, first))
    np.testing.assert_array_equal(weights, [0, 1])


def test_sdmgrad_where_every_batch_disagrees_with_itself():
    rule = sdmgrad()
    weights, _ = rule.update(rule.init(2), cross_gramian=-jnp.eye(2))
    assert np.isfinite(weights).all()
    weights, _ = rule.update(rule.init(2), cross_gramian=jnp.zeros((2, 2)))
    np.testing.assert_allclose(weights, 0.5)


@pytest.mark.parametrize("rule", [modo(gamma=0.1), sdmgrad(learning_rate=0.2)], ids=["m", "s"])
def test_inactive_tasks_are_as_if_absent_and_keep_their_weight(rule):
    matrices = crosses(np.random.default_rng(5), 3, 4).astype(np.float32)
    keep = np.array([0, 1, 3])
    small, _ = follow(rule, matrices[:, keep[:, None], keep])
    state = rule.init(4)
    active = jnp.array([True, True, False, True])
    for matrix, expected in zip(matrices, small, strict=True):
        held = matrix.copy()
        held[2], held[:, 2] = np.nan, np.nan
        weights, state = rule.update(state, cross_gramian=jnp.asarray(held), active=active)
        assert weights[2] == 0 and state.weights[2] == 0.25
        np.testing.assert_allclose(np.asarray(weights)[keep], expected, atol=64 * EPS)


def quadratic():
    """Two noisy regressions sharing a linear encoder."""
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.standard_normal((3, 8, 4)), jnp.float32)
    y = {name: jnp.asarray(rng.standard_normal((3, 8)), jnp.float32) for name in "ab"}
    shared = jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)
    own = {name: jnp.asarray(rng.standard_normal(3), jnp.float32) for name in "ab"}
    batches = [(x[k], {name: y[name][k] for name in "ab"}) for k in range(3)]
    return shared, own, batches


def test_the_protocol_of_three_batches():
    """Weights from batches one and two, direction from three: stacked, and in the oracle."""
    shared, own, batches = quadratic()

    def encode(shared, batch):
        return batch[0] @ shared

    def head(name):
        return lambda own, z, batch: jnp.mean((z @ own - batch[1][name]) ** 2)

    heads = {name: head(name) for name in "ab"}

    def losses(shared, batch):
        return {n: heads[n](own[n], encode(shared, batch), batch) for n in "ab"}

    rows = [task_gradients(losses)(shared, batch)[1] for batch in batches]
    cross = cross_gramian(rows[0], rows[1])
    rule = modo(gamma=0.1, rho=0.1)

    dense = np.asarray([r.reshape(2, -1) for r in rows], np.float64)
    start = np.full(2, 0.5)
    weights = project(start - 0.1 * (dense[0] @ dense[1].T @ start + 0.1 * start))
    direction = weights @ dense[2]

    tx = optax.chain(aggregate(rule, 2), optax.sgd(1.0))
    updates, _ = tx.update(rows[2], tx.init(shared), shared, cross_gramian=cross)
    np.testing.assert_allclose(updates.ravel(), -direction, atol=64 * EPS * abs(direction).max())

    oracle = multitask_value_and_grad(encode, per_task_decode(heads), rule, 2)
    _, (grads, _), state = oracle(shared, own, batches[2], oracle.init(), cross_gramian=cross)
    np.testing.assert_allclose(grads.ravel(), direction, atol=64 * EPS * abs(direction).max())
    np.testing.assert_allclose(state.task_weights, weights, atol=64 * EPS)
    with pytest.raises(ValueError, match="reads 'cross_gramian'"):
        oracle(shared, own, batches[2], oracle.init())


def test_double_sampling_is_unbiased():
    """The mean of J_1J_2ᵀ over independent noise is the Gramian of the mean; J_1J_1ᵀ's is not."""
    rng = np.random.default_rng(7)
    mean = rng.standard_normal((2, 3))
    draws = mean + rng.standard_normal((2, 4000, 2, 3))
    first, second = jnp.asarray(draws, jnp.float32)

    def product(one, two):
        matrix, exponent = cross_gramian(one, two)
        return matrix * 4.0 ** exponent.astype(matrix.dtype)

    independent = np.asarray(jax.vmap(product)(first, second)).mean(axis=0)
    one_batch = np.asarray(jax.vmap(product)(first, first)).mean(axis=0)
    # A deviation of an entry is about √(3 + 2·‖g‖²) ≈ 4, so five of the mean's are 0.3.
    np.testing.assert_allclose(independent, mean @ mean.T, atol=0.3)
    np.testing.assert_allclose(one_batch, mean @ mean.T + 3 * np.eye(2), atol=0.3)


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: modo(gamma=0.0), "modo: gamma must be > 0, got 0.0"),
        (lambda: modo(rho=-1.0), "modo: rho must be >= 0, got -1.0"),
        (lambda: sdmgrad(lam=-1.0), "sdmgrad: lam must be >= 0"),
        (lambda: sdmgrad(learning_rate=0.0), "sdmgrad: learning_rate must be > 0"),
        (lambda: sdmgrad(momentum=1.0), r"sdmgrad: momentum must be in \[0, 1\)"),
        (lambda: sdmgrad(num_steps=0), "sdmgrad: num_steps must be an int >= 1, got 0"),
        (lambda: sdmgrad(preference=(0.0,)), "sdmgrad: preference must be finite"),
        (lambda: modo().update(modo().init(2), cross_gramian=jnp.ones(3)), "cross_gramian: exp"),
    ],
)
def test_bad_arguments_are_named(make_rule, message):
    with pytest.raises(ValueError, match=message):
        make_rule()


CROSS_RULES = {"modo": modo(gamma=0.01), "sdmgrad": sdmgrad(num_steps=2)}


@functools.cache
def steps(name):
    """A batch of raw cross Gramians → weights and states of the first step."""
    rule = CROSS_RULES[name]

    def step(matrix):
        return update_weights(rule, rule.init(3), num_tasks=3, cross_gramian=matrix)

    return jax.jit(jax.vmap(step))


@pytest.mark.parametrize("name", CROSS_RULES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch", [2, 1024, 16384])
def test_one_bad_entry_shows_in_batches_of_any_size(name, bad, batch):
    """XLA's max and min on the CPU drop a NaN where they are vectorised over a batch."""
    cross = np.tile(np.eye(3, dtype=np.float32), (batch, 1, 1))
    cross[:, 0, 1] = bad
    cross[-1, 0, 1] = 0.5
    weights, state = steps(name)(cross)
    assert np.isnan(weights[:-1]).all() and np.isfinite(weights[-1]).all()
    kept = np.broadcast_to(CROSS_RULES[name].init(3).weights, (batch - 1, 3))
    np.testing.assert_array_equal(state.weights[:-1], kept)


project_without_the_fifth = jax.jit(
    jax.vmap(lambda point: simplex_projection(point, np.arange(10) != 4))
)


@pytest.mark.parametrize("size", [1024, 16384])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_projection_hands_one_bad_entry_on(size, bad):
    points = np.zeros((size, 10), np.float32)
    points[:, 3] = bad
    found = np.asarray(project_without_the_fifth(points))
    assert np.isnan(np.delete(found, 4, axis=1)).all() and (found[:, 4] == 0).all()


@pytest.mark.parametrize("name", CROSS_RULES)
def test_huge_gradients_weigh_the_same_jitted_eager_and_in_a_batch(name):
    rule = CROSS_RULES[name]
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((32, 3, 4))
    scales = 10.0 ** rng.uniform(20, 37, (32, 1, 1))
    rows = (rows * scales).astype(np.float32)

    def weigh(rows):
        cross = cross_gramian(rows, rows)
        return update_weights(rule, rule.init(3), num_tasks=3, cross_gramian=cross)[0]

    together = np.asarray(jax.jit(jax.vmap(weigh))(rows))
    jitted = np.stack([jax.jit(weigh)(x) for x in rows])
    eager = np.stack([weigh(jnp.asarray(x)) for x in rows[:4]])
    np.testing.assert_allclose(together, jitted, atol=64 * EPS)
    np.testing.assert_allclose(eager, jitted[:4], atol=64 * EPS)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=16 * EPS)
    if name == "modo":
        # Steps beyond the simplex end in the vertex of the least pull.
        units = rows.astype(np.float64) / scales
        pull = np.einsum("nsp,ntp->ns", units, units)
        np.testing.assert_array_equal(together.argmax(axis=1), pull.argmin(axis=1))
        np.testing.assert_array_equal(together.max(axis=1), 1)
