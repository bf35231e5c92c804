"""Rules whose update is called outside any jit: nothing is lowered twice."""

import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import RowRule, gramian, weighting
from mgda_jax.weighting import cross_gramian
from tests.weighting.rules import RULES

VARIANTS = {
    **{name: functools.partial(entry.make, (0, 1, 2)) for name, entry in RULES.items()},
    "min_norm-frank_wolfe": functools.partial(weighting.min_norm, method="frank_wolfe"),
    "nash_mtl-every": functools.partial(weighting.nash_mtl, every=2, max_norm=1.0),
    "fair_grad-array": lambda: weighting.fair_grad(alpha=jnp.float32(2.0), max_norm=1.0),
}
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


def lowerings(function, count):
    """What JAX lowers in so many calls, two calls of warm-up before them."""
    lowered = []

    def listen(event, _, **names):
        if event == LOWERED:
            lowered.append(names)

    function(), function()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(count):
            function()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return lowered


def step_of(rule):
    """(state, rows, losses) → what `update` gives, nothing of it jitted here."""

    def step(state, rows, losses):
        rows, losses = jnp.asarray(rows, jnp.float32), jnp.asarray(losses, jnp.float32)
        given = {"losses": losses, "previous_losses": losses}
        if isinstance(rule, RowRule):
            return rule.update(state, rows, **given)
        if "cross_gramian" in rule.reads:
            given["cross_gramian"] = cross_gramian(rows, rows)
        return rule.update(state, gramian=gramian(rows), **given)

    return step


@pytest.mark.parametrize("name", VARIANTS)
def test_after_a_warm_up_eager_steps_lower_nothing_and_what_is_bad_shows(name):
    rule = VARIANTS[name]()
    rng = np.random.default_rng(0)
    state = start = rule.init(jnp.zeros(4), 3) if isinstance(rule, RowRule) else rule.init(3)
    step = step_of(rule)

    def draw():
        return rng.standard_normal((3, 4)), np.exp(rng.standard_normal(3))

    def go_on():
        nonlocal state
        state = step(state, *draw())[1]

    assert not lowerings(go_on, 5)

    for value in (np.nan, np.inf):
        rows, losses = draw()
        if isinstance(rule, RowRule) or rule.reads & {"gramian", "cross_gramian"}:
            rows[1] = value
            assert not np.isfinite(step(start, rows, losses)[0]).any()
        rows, losses = draw()
        if "losses" in rule.reads:
            losses[1] = value
            assert not np.isfinite(step(start, rows, losses)[0]).any()


def test_the_gramian_of_a_long_leaf_is_lowered_once():
    rows = jnp.ones((2, 70_000))
    assert not lowerings(lambda: gramian(rows), 2)
