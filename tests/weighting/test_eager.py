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


@pytest.mark.parametrize("name", VARIANTS)
def test_after_a_warm_up_eager_steps_lower_nothing(name):
    rule = VARIANTS[name]()
    rng = np.random.default_rng(0)
    state = rule.init(jnp.zeros(4), 3) if isinstance(rule, RowRule) else rule.init(3)
    lowered = []

    def listen(event, _, **names):
        if event == LOWERED:
            lowered.append(names)

    def step(state):
        rows = jnp.asarray(rng.standard_normal((3, 4)), jnp.float32)
        losses = jnp.asarray(np.exp(rng.standard_normal(3)), jnp.float32)
        given = {"losses": losses, "previous_losses": losses}
        if isinstance(rule, RowRule):
            return rule.update(state, rows, **given)[1]
        if "cross_gramian" in rule.reads:
            given["cross_gramian"] = cross_gramian(rows, rows)
        return rule.update(state, gramian=gramian(rows), **given)[1]

    state = step(step(state))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(5):
            state = step(state)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not lowered
