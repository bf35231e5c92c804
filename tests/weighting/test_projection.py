"""PCGrad and GradVac against the papers' loops, literally on the rows in float64."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax._gramian import gramian
from mgda_jax.weighting import gradvac, pcgrad
from mgda_jax.weighting.pairwise import random_orders
from tests.problems import FAMILIES, make

EPS = {"float32": np.finfo(np.float32).eps, "float64": np.finfo(np.float64).eps}
TASKS = 6


def literal_pcgrad(rows, orders):
    total = np.zeros(rows.shape[1])
    for i, order in enumerate(orders):
        p = rows[i].copy()
        for j in order:
            if j != i and p @ rows[j] < 0:
                p -= (p @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        total += p
    return total


def literal_gradvac(rows, orders, targets, beta):
    total, targets = np.zeros(rows.shape[1]), targets.copy()
    for i, order in enumerate(orders):
        p = rows[i].copy()
        for j in order:
            if j == i:
                continue
            g, rho = rows[j], targets[i, j]
            c = p @ g / (np.linalg.norm(p) * np.linalg.norm(g))
            if c < rho:
                turn = rho * np.sqrt(1 - c**2) - c * np.sqrt(1 - rho**2)
                p += np.linalg.norm(p) * turn / (np.linalg.norm(g) * np.sqrt(1 - rho**2)) * g
            targets[i, j] = (1 - beta) * rho + beta * c
        total += p
    return total, targets


@functools.cache
def program(factory, dtype, **options):
    """(N, S, T, P) rows and S keys → weights and states of S steps, one compiled program."""
    with jax.enable_x64(dtype == "float64"):
        rule = factory(**options)

        def run(rows, keys):
            def step(state, inputs):
                weights, state = rule.update(state, gramian=gramian(inputs[0]), key=inputs[1])
                return state, (weights, state)

            return jax.lax.scan(step, rule.init(TASKS), (rows, keys))[1]

        return jax.jit(jax.vmap(run, in_axes=(0, None)))


def orders_of(keys):
    return [np.asarray(random_orders(key, TASKS)) for key in keys]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pcgrad_is_the_papers_loop(dtype):
    keys = jax.random.split(jax.random.key(3), 2)
    drawn = {name: [make(name, TASKS, seed) for seed in range(2)] for name in FAMILIES}
    # One width, or there would be one program a family.
    drawn = {
        n: np.stack([np.pad(r, ((0, 0), (0, 16 - r.shape[1]))) for r in rows])
        for n, rows in drawn.items()
    }
    with jax.enable_x64(dtype == "float64"):
        run = program(pcgrad, dtype)
        weights, _ = run(jnp.asarray(np.stack(list(drawn.values())), dtype), keys)
    assert weights.dtype == dtype
    for name, rows, w in zip(drawn, drawn.values(), np.asarray(weights, np.float64), strict=True):
        for k, order in enumerate(orders_of(keys)):
            size = np.abs(w[k]) @ np.linalg.norm(rows[k], axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                expected = literal_pcgrad(rows[k], order)
            error = np.linalg.norm(w[k] @ rows[k] - expected) / size
            # Each of the T projections rounds sums of T products once.
            assert error < 8 * TASKS * EPS[dtype], (name, k, error)


def test_gradvac_is_the_papers_loop():
    beta, steps = 0.5, 4
    keys = jax.random.split(jax.random.key(5), steps)
    rng = np.random.default_rng(0)
    common = rng.standard_normal((1, 1, 16))
    for scale in (0.0, 1.0):  # conflicting rows, and rows with positive cosines to be kept
        rows = rng.standard_normal((steps, TASKS, 16)) + scale * common
        rows *= 10 ** rng.uniform(-2, 2, (1, TASKS, 1))
        with jax.enable_x64(True):
            weights, state = program(gradvac, "float64", beta=beta)(jnp.asarray(rows[None]), keys)
        weights, found = np.asarray(weights[0]), np.asarray(state.targets[0])
        targets = np.zeros((TASKS, TASKS))
        for k, order in enumerate(orders_of(keys)):
            expected, targets = literal_gradvac(rows[k], order, targets, beta)
            size = np.abs(weights[k]) @ np.linalg.norm(rows[k], axis=1)
            assert np.linalg.norm(weights[k] @ rows[k] - expected) < 1e-12 * size
            np.testing.assert_allclose(found[k], targets, atol=1e-12)
        assert (targets[~np.eye(TASKS, dtype=bool)] != 0).all()


def test_gradvac_in_float32_follows_float64():
    keys = jax.random.split(jax.random.key(5), 4)
    rows = np.random.default_rng(1).standard_normal((1, 4, TASKS, 16)).astype(np.float32)
    single, _ = program(gradvac, "float32")(jnp.asarray(rows), keys)
    with jax.enable_x64(True):
        double, _ = program(gradvac, "float64")(jnp.asarray(rows, jnp.float64), keys)
    double = np.asarray(double)
    np.testing.assert_allclose(single, double, rtol=0, atol=256 * EPS["float32"] * double.max())


def test_gradvac_without_history_is_pcgrad():
    keys = jax.random.split(jax.random.key(7), 1)
    rows = jnp.asarray(np.random.default_rng(2).standard_normal((1, 1, TASKS, 16)), jnp.float32)
    vaccine, _ = program(gradvac, "float32")(rows, keys)
    surgery, _ = program(pcgrad, "float32")(rows, keys)
    np.testing.assert_allclose(vaccine, surgery, rtol=64 * EPS["float32"])


def test_gradvac_stays_finite_when_targets_reach_one():
    """Duplicates for so long that the targets round to one, then opposed gradients."""
    keys = jax.random.split(jax.random.key(0), 60)
    base = np.ones((60, TASKS, 16), np.float32)
    base[40:, ::2] *= -1
    weights, state = program(gradvac, "float32", beta=0.9)(jnp.asarray(base[None]), keys)
    np.testing.assert_allclose(weights[0, :40], 1, rtol=1e-3)
    assert np.isfinite(weights).all() and np.isfinite(state.targets).all()


def test_orders_are_uniform_and_differ_by_task():
    keys = jax.random.split(jax.random.key(1), 2000)
    orders = np.asarray(jax.vmap(lambda key: random_orders(key, 3))(keys))
    assert (np.sort(orders, axis=2) == np.arange(3)).all()
    for task in range(3):
        seen = collections.Counter(map(tuple, orders[:, task].tolist()))
        assert len(seen) == 6
        # 2000 draws of six outcomes: five standard deviations are 83.
        assert max(abs(n - 2000 / 6) for n in seen.values()) < 83
    same = (orders[:, 0] == orders[:, 1]).all(axis=1).mean()
    assert abs(same - 1 / 6) < 5 * np.sqrt(5 / 36 / 2000)


@pytest.mark.parametrize("num_tasks", [1, 2, 64, 65, 128, 129])
def test_orders_are_permutations_at_any_number_of_tasks(num_tasks):
    orders = np.asarray(random_orders(jax.random.key(0), num_tasks))
    assert orders.dtype == np.int32
    assert (np.sort(orders, axis=1) == np.arange(num_tasks)).all()


def test_the_key_argument_and_the_state_draw_differently_each_time():
    rows = jnp.asarray(np.random.default_rng(0).standard_normal((TASKS, 4)), jnp.float32)
    rule = pcgrad(seed=1)
    update = jax.jit(lambda state, key=None: rule.update(state, gramian=gramian(rows), key=key))
    state = rule.init(TASKS)
    drawn = []
    for _ in range(3):
        weights, state = update(state)
        drawn.append(np.asarray(weights))
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    given, after = update(state, jax.random.key(9))
    again, _ = update(state, jax.random.key(9))
    np.testing.assert_array_equal(given, again)
    np.testing.assert_array_equal(after.key, state.key)


def test_inactive_tasks_are_left_out_of_every_order():
    """Any order of the active ones is one of the paper's: the answer is among theirs."""
    rows = np.random.default_rng(4).standard_normal((TASKS, 8)).astype(np.float32)
    active = np.array([True, False, True, True, False, True])
    held = rows.copy()
    held[~active] = np.nan
    key = jax.random.key(2)
    rule = pcgrad()
    weights, _ = rule.update(
        rule.init(TASKS),
        gramian=gramian(jnp.asarray(held)),
        active=jnp.asarray(active),
        key=key,
    )
    kept = np.flatnonzero(active)
    place = {task: k for k, task in enumerate(kept)}
    orders = np.asarray(random_orders(key, TASKS))
    small = [[place[j] for j in orders[i] if j in place] for i in kept]
    expected = literal_pcgrad(rows[kept].astype(np.float64), small)
    assert (np.asarray(weights)[~active] == 0).all()
    np.testing.assert_allclose(
        np.asarray(weights)[kept] @ rows[kept], expected, atol=64 * EPS["float32"] * 10
    )


def test_mean_is_the_sum_over_the_active_tasks():
    matrix = jnp.eye(3)
    for factory in (pcgrad, gradvac):
        rule = factory(reduction="mean")
        active = jnp.array([True, False, True])
        weights, _ = rule.update(rule.init(3), gramian=matrix, active=active)
        np.testing.assert_array_equal(weights, [0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: pcgrad(reduction="max"), "pcgrad: reduction must be 'sum' or 'mean', got 'max'"),
        (lambda: gradvac(reduction="max"), "gradvac: reduction"),
        (lambda: gradvac(beta=1.5), r"gradvac: beta must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_arguments_are_named(make_rule, message):
    with pytest.raises(ValueError, match=message):
        make_rule()
