"""Every loss-based rule × the invariants that hold for all of them."""

import functools
from typing import cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax.weighting import (
    dwa,
    famo,
    gls,
    imtl_l,
    random,
    rlw,
    scale_invariant,
    stch,
    uncertainty,
)
from mgda_jax.weighting._go4align import go4align
from mgda_jax.weighting.base import update_weights

EPS = float(jnp.finfo(jnp.float32).eps)
STEPS, TASKS = 6, 4
RULES = {
    "dwa": lambda: dwa(steps_per_epoch=2),
    "famo": famo,
    "gls": gls,
    "go4align": lambda: go4align(beta=0.1),
    "imtl_l": imtl_l,
    "random": random,
    "rlw": rlw,
    "scale_invariant": scale_invariant,
    "stch": lambda: stch(steps_per_epoch=1, warmup_epochs=1, mu=0.5),
    "uncertainty": uncertainty,
}
DRAWN = {"random", "rlw"}
DETERMINISTIC = sorted(set(RULES) - DRAWN)
LOSSES = np.exp(np.random.default_rng(1).normal(size=(STEPS, TASKS))).astype(np.float32)


@functools.cache
def runner(name: str):
    """One compiled program a rule and shape: (S, T) losses and masks → (S, T) weights, state."""
    rule = RULES[name]()

    @jax.jit
    def run(losses, active):
        # Any losses of the previous batch will do, here between its own and the next one's.
        values = losses.astype(jnp.zeros(()).dtype)
        after = jnp.concatenate([values[:1], 0.5 * values[:-1] + 0.5 * values[1:]])

        def step(state, inputs):
            losses, after, active = inputs
            given = {"losses": losses, "previous_losses": after}
            weights, state = update_weights(
                rule, state, num_tasks=losses.shape[0], active=active, **given
            )
            return state, weights

        return jax.lax.scan(step, rule.init(losses.shape[1]), (losses, after, active))[::-1]

    return run


def run(name, losses, active=None):
    losses = jnp.asarray(losses)
    active = jnp.ones(losses.shape, bool) if active is None else jnp.asarray(active)
    weights, state = runner(name)(losses, active)
    return np.asarray(weights), state


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_permuting_tasks_permutes_weights(name):
    order = np.array([2, 0, 3, 1])
    weights, _ = run(name, LOSSES)
    permuted, _ = run(name, LOSSES[:, order])
    np.testing.assert_allclose(permuted, weights[:, order], rtol=32 * EPS)


# A power of two, so that the scaled losses have the same digits.
SCALE = np.float32(2.0**90)
DEGREE = {"dwa": 0, "famo": 0, "gls": 0, "scale_invariant": -1, "stch": -1, "rlw": 0, "random": 0}


@pytest.mark.parametrize("name", sorted(DEGREE))
@pytest.mark.parametrize("scale", [SCALE, 1 / SCALE], ids=["2^90", "2^-90"])
def test_scaling_all_losses(name, scale):
    weights, _ = run(name, LOSSES)
    scaled, _ = run(name, LOSSES * scale)
    # Logarithms near 90 log 2 leave that many more units of rounding.
    np.testing.assert_allclose(scaled, weights * scale ** DEGREE[name], rtol=512 * EPS)


@pytest.mark.parametrize("name", sorted({"scale_invariant", "gls", "stch", "dwa"}))
def test_rescaling_one_task_leaves_the_weighted_losses(name):
    factors = np.array([1, 64, 1, 1 / 1024], np.float32)
    weighted = run(name, LOSSES)[0] * LOSSES
    rescaled = run(name, LOSSES * factors)[0] * LOSSES * factors
    if name == "gls":  # the value of the objective scales, the shares do not
        weighted, rescaled = (x / x.sum(1, keepdims=True) for x in (weighted, rescaled))
    if name == "dwa":  # the weights are unchanged
        weighted, rescaled = weighted / LOSSES, rescaled / (LOSSES * factors)
    np.testing.assert_allclose(rescaled, weighted, rtol=64 * EPS)


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_extreme_losses_give_finite_weights(name, size):
    spread = LOSSES * np.array([1, size, 1, 1], np.float32)
    for losses in (LOSSES * np.float32(size), spread, LOSSES * np.array([0, 1, 0, 1], np.float32)):
        weights, state = run(name, losses)
        assert np.all(np.isfinite(weights))
        assert np.all(weights >= 0)
        chex.assert_tree_all_finite([x for x in jax.tree.leaves(state) if _is_number(x)])


@pytest.mark.parametrize("name", sorted(RULES))
def test_all_zero_losses_give_finite_weights(name):
    assert np.all(np.isfinite(run(name, np.zeros_like(LOSSES))[0]))


@pytest.mark.parametrize("name", sorted(RULES))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_step_leaves_the_state_clean(name, bad):
    poisoned = LOSSES.copy()
    poisoned[2, 1] = bad
    weights, state = run(name, poisoned)
    chex.assert_tree_all_finite([x for x in jax.tree.leaves(state) if _is_number(x)])
    finite_after = np.isfinite(np.delete(weights, [2, 3], axis=0))
    assert finite_after.all()
    if name in {"gls", "go4align", "scale_invariant", "famo", "stch"} and np.isnan(bad):
        assert np.isnan(weights[2]).any()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_inactive_tasks_are_as_if_absent(name):
    kept = np.array([True, False, True, True])
    losses = LOSSES.copy()
    losses[:, ~kept] = np.nan
    weights, _ = run(name, losses, np.tile(kept, (STEPS, 1)))
    alone, _ = run(name, LOSSES[:, kept])
    np.testing.assert_array_equal(weights[:, ~kept], 0)
    np.testing.assert_allclose(weights[:, kept], alone, rtol=32 * EPS)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_drawn_weights_stay_on_the_simplex_of_active_tasks(name):
    active = np.tile([True, False, True, False], (STEPS, 1))
    weights, _ = run(name, LOSSES, active)
    np.testing.assert_array_equal(weights[:, [1, 3]], 0)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=4 * EPS)
    full, _ = run(name, LOSSES)
    np.testing.assert_allclose(
        weights[:, 0] / weights[:, 2], full[:, 0] / full[:, 2], rtol=32 * EPS
    )


@pytest.mark.parametrize("name", sorted(RULES))
def test_no_active_task_gives_zero_weights(name):
    active = np.zeros((STEPS, TASKS), bool)
    active[:2] = True
    weights, state = run(name, LOSSES, active)
    np.testing.assert_array_equal(weights[2:], 0)
    chex.assert_tree_all_finite([x for x in jax.tree.leaves(state) if _is_number(x)])


@pytest.mark.parametrize("name", ["famo", "imtl_l", "uncertainty"])
def test_what_is_learned_about_an_inactive_task_stays(name):
    active = np.ones((STEPS, TASKS), bool)
    active[3:, 1] = False
    _, state = run(name, LOSSES, active)
    # FAMO learns about step k at step k + 1, so it still learns from step 2 at step 3.
    until = np.ones((STEPS, TASKS), bool)
    until[3:, :] = False
    _, stopped = run(name, LOSSES, until)
    end, start = (s.logits.parameters if name == "famo" else s.parameters for s in (state, stopped))
    assert end[1] == start[1]
    assert np.all(np.delete(end, 1) != np.delete(start, 1))


@pytest.mark.parametrize("name", sorted(RULES))
def test_one_task_has_a_positive_weight(name):
    weights, _ = run(name, LOSSES[:, :1])
    assert np.all(weights > 0)
    if name in {"dwa", "famo", "gls", "random", "rlw", "go4align"}:
        np.testing.assert_allclose(weights, 1, rtol=4 * EPS)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_low_precision_losses_are_weighed_in_full_precision(name):
    low = jnp.asarray(LOSSES, jnp.bfloat16)
    weights, _ = run(name, low)
    assert weights.dtype == np.float32
    exact, _ = run(name, low.astype(jnp.float32))
    np.testing.assert_allclose(weights, exact, rtol=8 * EPS)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_double_precision(name):
    single, _ = run(name, LOSSES)
    with jax.enable_x64(True):
        double, _ = run(name, LOSSES.astype(np.float64))
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=256 * EPS)


@pytest.mark.parametrize("name", sorted(RULES))
def test_vmap_over_runs(name):
    batch = np.stack([LOSSES, LOSSES[:, ::-1]])
    active = jnp.ones(batch.shape, bool)
    together, _ = jax.vmap(runner(name))(jnp.asarray(batch), active)
    apart = np.stack([run(name, losses)[0] for losses in batch])
    np.testing.assert_allclose(together, apart, rtol=32 * EPS)


@pytest.mark.parametrize("name", sorted(RULES))
def test_one_trace_and_no_shared_buffers(name):
    rule = RULES[name]()
    state = rule.init(TASKS)
    traces = []

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, losses):
        traces.append(losses)
        given = {"losses": losses, "previous_losses": losses}
        return update_weights(rule, state, num_tasks=TASKS, **given)

    for losses in LOSSES[:3]:
        weights, state = step(state, losses)
    assert len(traces) == 1
    assert weights.shape == (TASKS,)
    assert rule.scope == "all"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: dwa(steps_per_epoch=0),
            "steps_per_epoch must be a whole number, 1 or more, got 0",
        ),
        (lambda: dwa(steps_per_epoch=cast(int, 2.5)), "got 2.5"),
        (lambda: dwa(steps_per_epoch=2, temperature=0.0), "temperature must be positive"),
        (lambda: stch(steps_per_epoch=1, mu=-1.0), "mu must be positive, got -1.0"),
        (lambda: stch(steps_per_epoch=1, warmup_epochs=-1), "warmup_epochs must be"),
        (lambda: stch(steps_per_epoch=1, reduction="max"), "'sum' or 'mean', got 'max'"),
        (lambda: scale_invariant(reduction="max"), "'sum' or 'mean', got 'max'"),
        (lambda: go4align(num_groups=0), "num_groups must be an int >= 1, got 0"),
        (lambda: go4align(beta=-1.0), "beta must not be negative"),
        (lambda: random(concentration=0.0), "concentration must be positive"),
        (lambda: famo(min_losses=(0.0,)).update(famo().init(2), **_two()), "min_losses"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def _two():
    return {"losses": jnp.ones(2), "previous_losses": jnp.ones(2)}


@pytest.mark.parametrize("name", sorted({"gls", "scale_invariant", "stch", "go4align"}))
def test_negative_losses_are_outside_the_rule(name):
    losses = LOSSES.copy()
    losses[:, 0] = -1.0
    assert np.all(np.isnan(run(name, losses)[0]).any(1))


def test_hyperparameters_may_be_traced():
    def weigh(mu):
        rule = stch(steps_per_epoch=1, warmup_epochs=0, mu=mu)
        _, state = rule.update(rule.init(3), losses=jnp.ones(3))
        return rule.update(state, losses=jnp.array([1.0, 2.0, 3.0]))[0]

    swept = jax.jit(jax.vmap(weigh))(jnp.array([0.5, 1.0]))
    apart = jnp.stack([weigh(0.5), weigh(1.0)])
    np.testing.assert_allclose(swept, apart, rtol=8 * EPS)


def test_the_learned_parameters_take_any_optimiser():
    rule = imtl_l(optimizer=optax.sgd(0.1, momentum=0.9))
    weights, state = rule.update(rule.init(2), losses=jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(state.parameters, [0.0, -0.1], rtol=4 * EPS)
    np.testing.assert_array_equal(weights, 1)


def _is_number(leaf) -> bool:
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
