"""The oracle with weights renewed every k steps, where tasks come and go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import multitask_value_and_grad, per_task_decode
from mgda_jax.oracle import Lean
from mgda_jax.weighting import min_norm, nash_mtl

SHARED = jnp.array([[0.5, -1.0], [0.25, 2.0], [1.0, 0.5]])
OWN = {"a": jnp.array([1.0, -1.0]), "b": jnp.array([0.5, 2.0])}
X = jnp.array([[1.0, 2.0, -1.0], [0.5, -0.25, 3.0]])
MODES = [dict(), dict(mode="exact"), dict(mode=Lean())]
DECODE = per_task_decode({name: lambda own, z, x: jnp.mean((z @ own - 1) ** 2) for name in "ab"})


def encode(shared, x):
    return jnp.tanh(jnp.matmul(x, shared, precision="highest"))


def make(rule, **options):
    oracle = multitask_value_and_grad(encode, DECODE, rule, 2, **options)
    return oracle, jax.jit(functools.partial(oracle, SHARED, OWN, X))


@pytest.mark.parametrize("options", MODES)
def test_tasks_in_turn_all_train_the_encoder(options):
    oracle, step = make(min_norm(), every=2, **options)
    state = oracle.init()
    for active in ([True, False], [False, True]) * 3:
        active = np.array(active)
        _, (shared, _), state = step(state, active=active)
        np.testing.assert_array_equal(state.task_weights, active.astype(np.float32))
        assert np.any(shared)


def test_the_weights_are_kept_while_no_task_is_new():
    oracle, step = make(min_norm(), every=3)
    both, one = np.array([True, True]), np.array([True, False])
    _, _, state = step(oracle.init(), active=both)
    first = state.task_weights
    _, _, state = step(state, active=one)
    np.testing.assert_array_equal(state.task_weights, [first[0], 0])
    counts = []
    for active in (one, one, both, both):
        _, _, state = step(state, active=active)
        counts.append(int(state.weighting.count))
    # The fourth step renews for one task, the fifth at once for both, and the count starts anew.
    assert counts == [0, 1, 1, 2]


@pytest.mark.parametrize("options", MODES[:2])
def test_a_rule_that_keeps_weights_itself_renews_for_a_task_that_comes_back(options):
    oracle, step = make(nash_mtl(every=2), **options)
    state = oracle.init()
    for active in ([True, False], [False, True]) * 2:
        active = np.array(active)
        _, (shared, _), state = step(state, active=active)
        assert (np.asarray(state.task_weights) > 0).tolist() == active.tolist()
        assert np.any(shared)
