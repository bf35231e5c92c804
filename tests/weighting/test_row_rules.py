"""The row rules against numpy on the rows, coordinate by coordinate and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import aggregate
from mgda_jax.weighting import (
    coordinate_median,
    db_mtl,
    excess_mtl,
    graddrop,
    moco,
    sign_agreement,
    trimmed_mean,
)
from mgda_jax.weighting.base import apply_row_rule

EPS = float(np.finfo(np.float32).eps)
TASKS, STEPS = 5, 5


def random_rows(seed=0, *, steps=None, tasks=TASKS):
    """{"a": (T, 2, 3), "b": (T, 4)} in float32, of norms that differ by task."""
    rng = np.random.default_rng(seed)
    lead = (tasks,) if steps is None else (steps, tasks)
    norms = np.exp(rng.standard_normal(tasks))
    return {
        name: (rng.standard_normal((*lead, *shape)) * norms.reshape(-1, *(1,) * len(shape))).astype(
            np.float32
        )
        for name, shape in (("a", (2, 3)), ("b", (4,)))
    }


def flat(tree, lead):
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
    return np.concatenate([x.reshape(*x.shape[:lead], -1) for x in leaves], axis=-1)


def params_like(rows, lead):
    return jax.tree.map(lambda x: jnp.zeros(x.shape[lead:]), rows)


def once(rule, rows, **given):
    state = rule.init(params_like(rows, 1), jax.tree.leaves(rows)[0].shape[0])
    return flat(rule.update(state, jax.tree.map(jnp.asarray, rows), **given)[0], 0)


def follow(rule, rows, losses=None):
    """Directions (S, P) and states of S steps."""

    def step(state, inputs):
        g, loss = inputs
        direction, state = apply_row_rule(rule, state, g, losses=loss)
        return state, (direction, state)

    start = rule.init(params_like(rows, 2), jax.tree.leaves(rows)[0].shape[1])
    losses = jnp.ones((STEPS, TASKS)) if losses is None else jnp.asarray(losses)
    _, (directions, states) = jax.jit(lambda r, x: jax.lax.scan(step, start, (r, x)))(rows, losses)
    return flat(directions, 1), states


# Signs


def test_graddrop_is_one_of_its_two_outcomes_and_has_their_mean():
    rows = random_rows(1)
    g = flat(rows, 1)
    positive, negative = np.maximum(g, 0).sum(0), np.minimum(g, 0).sum(0)
    purity = (1 + g.sum(0) / np.abs(g).sum(0)) / 2
    rule = graddrop()
    state = rule.init(params_like(rows, 1), TASKS)
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(lambda key: rule.update(state, rows, key=key)[0]))
    directions = flat(draw(keys), 1)
    kept = np.isclose(directions, positive, rtol=1e-5, atol=1e-6)
    assert np.all(kept | np.isclose(directions, negative, rtol=1e-5, atol=1e-6))
    deviation = np.sqrt(purity * (1 - purity) / len(keys))
    np.testing.assert_array_less(np.abs(kept.mean(0) - purity), 5 * deviation + 1e-9)
    # Coordinates draw independently, in one leaf and across leaves.
    mixed = np.flatnonzero((purity > 0.2) & (purity < 0.8))
    correlation = np.corrcoef(kept[:, mixed].T)
    assert np.abs(correlation - np.eye(len(mixed))).max() < 5 / np.sqrt(len(keys))


def test_graddrop_leaks_what_it_is_told():
    rows = random_rows(2)
    g = flat(rows, 1)
    np.testing.assert_allclose(
        once(graddrop(leak=1.0), rows), g.sum(0), rtol=32 * EPS, atol=8 * EPS
    )
    leak = np.array([0.0, 1.0, 0.25, 0.0, 0.5])
    key = jax.random.key(3)
    dropped = once(graddrop(), rows, key=key)
    positive = np.isclose(dropped, np.maximum(g, 0).sum(0), rtol=1e-5)
    mask = np.where(g > 0, positive, ~positive)
    expected = ((leak + (1 - leak) * mask.T).T * g).sum(0)
    np.testing.assert_allclose(
        once(graddrop(leak=tuple(leak)), rows, key=key), expected, rtol=64 * EPS, atol=16 * EPS
    )


def test_graddrop_never_drops_where_all_agree():
    rows = {"a": np.abs(random_rows(3)["a"]) * np.sign(random_rows(4)["a"][:1])}
    g = flat(rows, 1)
    for seed in range(20):
        found = once(graddrop(), rows, key=jax.random.key(seed))
        np.testing.assert_allclose(found, g.sum(0), rtol=16 * EPS)


@pytest.mark.parametrize("threshold", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_sign_agreement_is_its_mask(threshold, reduction):
    rows = random_rows(5)
    rows["b"][:, 0] = np.abs(rows["b"][:, 0])
    rows["b"][0, 1] = 0.0
    g = flat(rows, 1)
    mask = np.abs(np.sign(g).sum(0)) >= threshold * TASKS - 1e-9
    total = g.mean(0) if reduction == "mean" else g.sum(0)
    found = once(sign_agreement(threshold=threshold, reduction=reduction), rows)
    np.testing.assert_allclose(found, mask * total, rtol=32 * EPS, atol=8 * EPS)
    assert found.any()


# Robust means


@pytest.mark.parametrize("tasks", [1, 2, 5, 6])
@pytest.mark.parametrize("num_trimmed", [0, 1, 2])
def test_trimmed_mean_sorts_and_cuts(tasks, num_trimmed):
    rows = random_rows(6, tasks=tasks)
    g = np.sort(flat(rows, 1), axis=0)
    cut = min(num_trimmed, (tasks - 1) // 2)
    found = once(trimmed_mean(num_trimmed=num_trimmed), rows)
    np.testing.assert_allclose(found, g[cut : tasks - cut].mean(0), rtol=32 * EPS, atol=8 * EPS)


@pytest.mark.parametrize("tasks", [1, 2, 5, 6])
def test_coordinate_median_is_the_median(tasks):
    rows = random_rows(7, tasks=tasks)
    found = once(coordinate_median(), rows)
    np.testing.assert_allclose(found, np.median(flat(rows, 1), axis=0), rtol=8 * EPS)


def test_robust_means_ignore_outliers_but_not_nan():
    rows = random_rows(8)
    rows["b"][2] = 1e30
    for rule in (trimmed_mean(num_trimmed=1), coordinate_median()):
        assert np.abs(once(rule, rows)).max() < 100
    rows["b"][2, 1] = np.nan
    rows["b"][2, 2] = np.inf
    for rule in (trimmed_mean(num_trimmed=1), coordinate_median()):
        found = once(rule, rows)
        assert np.isnan(found).nonzero()[0].tolist() == [7, 8]


# Rules with history


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def project(y):
    low, high = y.min() - 1.0, y.max()
    for _ in range(100):
        theta = (low + high) / 2
        low, high = (theta, high) if np.maximum(y - theta, 0).sum() > 1 else (low, theta)
    return np.maximum(y - theta, 0)


@pytest.mark.parametrize("projection", ["softmax", "simplex"])
@pytest.mark.parametrize("normalization", ["none", "loss"])
def test_moco_tracks_and_steps(projection, normalization):
    rows = random_rows(9, steps=STEPS)
    losses = np.exp(np.random.default_rng(9).standard_normal((STEPS, TASKS))).astype(np.float32)
    options = dict(beta=0.5, beta_decay=0.5, gamma=0.05, gamma_decay=0.3, rho=0.2)
    rule = moco(projection=projection, normalization=normalization, **options)
    directions, states = follow(rule, rows, losses)
    y, weights = 0.0, np.full(TASKS, 1 / TASKS)
    for k, g in enumerate(flat(rows, 2), start=1):
        if normalization == "loss":
            g = g * (losses[k - 1] / np.linalg.norm(g, axis=1))[:, None]
        y = y - 0.5 / k**0.5 * (y - g)
        step = 0.05 / k**0.3 * (y @ y.T + 0.2 * np.eye(TASKS)) @ weights
        weights = (softmax if projection == "softmax" else project)(weights - step)
        np.testing.assert_allclose(states.weights[k - 1], weights, atol=64 * EPS)
        np.testing.assert_allclose(directions[k - 1], weights @ y, atol=256 * EPS)


@pytest.mark.parametrize("log_losses", [True, False])
def test_db_mtl_averages_and_rescales(log_losses):
    rows = random_rows(10, steps=STEPS)
    losses = np.exp(np.random.default_rng(10).standard_normal((STEPS, TASKS))).astype(np.float32)
    rule = db_mtl(beta=0.9, beta_decay=0.5, log_losses=log_losses)
    directions, _ = follow(rule, rows, losses)
    y = 0.0
    for k, g in enumerate(flat(rows, 2), start=1):
        g = g / losses[k - 1][:, None] if log_losses else g
        y = g + 0.9 / k**0.5 * (y - g)
        norms = np.linalg.norm(y, axis=1)
        expected = (norms.max() / norms) @ y
        np.testing.assert_allclose(directions[k - 1], expected, atol=128 * EPS * norms.max())
    assert rule.reads == ({"losses"} if log_losses else set())


@pytest.mark.parametrize("warmup", [1, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_excess_mtl_is_its_exponentiated_gradient(warmup, reduction):
    rows = random_rows(11, steps=STEPS)
    rows["b"][:, :, 3] = 0.0  # a coordinate nobody uses
    rule = excess_mtl(step_size=0.5, warmup_steps=warmup, reduction=reduction)
    directions, _ = follow(rule, rows)
    squares, weights, initial = 0.0, np.full(TASKS, 1 / TASKS), []
    for k, g in enumerate(flat(rows, 2), start=1):
        squares = squares + g**2
        root = np.where(squares == 0, 1, np.sqrt(squares))
        risk = (g**2 / root).sum(axis=1)
        if k <= warmup:
            initial.append(risk)
        else:
            weights = weights * np.exp(0.5 * risk / np.mean(initial, axis=0))
            weights = weights / weights.sum()
        factor = TASKS if reduction == "sum" else 1
        expected = factor * weights @ g
        np.testing.assert_allclose(
            directions[k - 1], expected, rtol=0, atol=256 * EPS * np.abs(g).max()
        )


@pytest.mark.parametrize(
    "rule",
    [moco(gamma=0.05), moco(projection="simplex"), db_mtl(), excess_mtl(step_size=0.5)],
    ids=["moco", "moco_simplex", "db_mtl", "excess_mtl"],
)
def test_an_absent_task_keeps_its_history(rule):
    """Absent in the second of three steps: what the state holds of it does not move."""
    rows = random_rows(12, steps=3)
    rows["a"][1, 2] = np.nan
    state = rule.init(params_like(rows, 2), TASKS)
    update = jax.jit(
        lambda state, g, active: apply_row_rule(
            rule, state, g, losses=jnp.ones(TASKS), active=active
        )
    )
    states = []
    for k in range(3):
        active = jnp.ones(TASKS, bool).at[2].set(k != 1)
        direction, state = update(state, jax.tree.map(lambda x, k=k: x[k], rows), active)
        assert np.isfinite(flat(direction, 0)).all()
        states.append(state)
    for name in ("tracked", "root_squares", "initial", "counts", "weights"):
        if hasattr(state, name):
            before, after, end = (jax.tree.leaves(getattr(s, name)) for s in states)
            for b, a, e in zip(before, after, end, strict=True):
                np.testing.assert_array_equal(a[2], b[2])
                assert np.any(e[2] != a[2]) or name in ("initial",)


def test_row_rules_take_complex_bfloat16_integer_and_unshared_leaves():
    rng = np.random.default_rng(13)
    z = rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2))
    rows = {
        "complex": jnp.asarray(z, jnp.complex64),
        "half": jnp.asarray(rng.standard_normal((3, 4)), jnp.bfloat16),
        "integer": np.zeros((3, 2), jax.dtypes.float0),
        "own": None,
    }
    params = {
        "complex": jnp.zeros(2, jnp.complex64),
        "half": jnp.zeros(4, jnp.bfloat16),
        "integer": jnp.zeros(2, jnp.int32),
        "own": None,
    }
    rules = [graddrop(), sign_agreement(), trimmed_mean(), coordinate_median(), moco(), db_mtl(),
             excess_mtl()]  # fmt: skip
    for rule in rules:
        state = rule.init(params, 3)
        direction, new = rule.update(state, rows, losses=jnp.ones(3))
        assert direction["complex"].dtype == jnp.complex64
        assert direction["half"].dtype == jnp.bfloat16
        assert direction["integer"].dtype == jax.dtypes.float0
        assert direction["own"] is None
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    middle = coordinate_median()
    found = middle.update(middle.init(params, 3), rows)[0]["complex"]
    np.testing.assert_allclose(found, np.median(z.real, 0) + 1j * np.median(z.imag, 0), rtol=4e-7)


def test_row_rules_through_the_transformation_with_shared_leaves():
    rows = random_rows(14)
    params = {"shared": params_like(rows, 1), "head": jnp.zeros(3)}
    grads = {"shared": jax.tree.map(jnp.asarray, rows), "head": jnp.ones(3)}
    tx = aggregate(coordinate_median(), TASKS, shared={"shared": True, "head": False})
    updates, state = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(
        flat(updates["shared"], 0), np.median(flat(rows, 1), 0), rtol=8 * EPS
    )
    np.testing.assert_array_equal(updates["head"], 1)
    assert state.task_weights is None


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: graddrop(leak=2.0), r"graddrop: leak must be in \[0, 1\], got 2.0"),
        (lambda: graddrop(leak=(0.1, -1.0)), "graddrop: leak"),
        (lambda: once(graddrop(leak=(0.1, 0.2)), random_rows()), "graddrop: leak: expected 5"),
        (lambda: sign_agreement(threshold=1.5), r"threshold must be in \[0, 1\], got 1.5"),
        (lambda: sign_agreement(reduction="max"), "sign_agreement: reduction"),
        (lambda: trimmed_mean(num_trimmed=-1), "num_trimmed must be an int >= 0, got -1"),
        (lambda: moco(beta=0.0), r"moco: beta must be in \(0, 1\], got 0.0"),
        (lambda: moco(gamma=0.0), "moco: gamma must be > 0"),
        (lambda: moco(rho=-1.0), "moco: rho must be >= 0"),
        (lambda: moco(beta_decay=-1.0), "moco: beta_decay must be >= 0"),
        (lambda: moco(gamma_decay=-1.0), "moco: gamma_decay must be >= 0"),
        (lambda: moco(projection="none"), "moco: projection must be one of"),
        (lambda: moco(normalization="l2"), "moco: normalization must be one of"),
        (lambda: db_mtl(beta=1.0), r"db_mtl: beta must be in \[0, 1\), got 1.0"),
        (lambda: db_mtl(beta_decay=-0.5), "db_mtl: beta_decay must be >= 0"),
        (lambda: excess_mtl(step_size=0.0), "excess_mtl: step_size must be > 0"),
        (lambda: excess_mtl(warmup_steps=0), "excess_mtl: warmup_steps must be an int >= 1"),
        (lambda: excess_mtl(reduction="max"), "excess_mtl: reduction"),
    ],
)
def test_bad_arguments_are_named(make_rule, message):
    with pytest.raises(ValueError, match=message):
        make_rule()
