"""Shared and own leaves, and trees with holes, in the optax transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mgda_jax
from mgda_jax import Weighting, aggregate, mgda
from mgda_jax.weighting import (
    fixed,
    min_norm,
    moco,
    trimmed_mean,
    uniform,
)
from tests.aggregate_problem import GRADS, ROWS, SHARED, WEIGHTS, close, step


@pytest.fixture(autouse=True)
def adam_promotes():
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_shared_leaves_are_combined_and_own_leaves_pass():
    updates, state = step(mgda(2, shared=SHARED))
    close(updates["encoder"]["w"], [0.0, 1.0, 1.0])
    close(updates["heads"], GRADS["heads"])
    close(state.task_weights, WEIGHTS)
    close(state.weighting.min_norm, np.sqrt(2.0))


def test_scope_all_scales_each_own_leaf_by_its_task():
    tx = aggregate(fixed([2.0, 3.0]), 2, SHARED, owner={"encoder": None, "heads": 1})
    updates, _ = step(tx)
    close(updates["encoder"]["w"], 2 * ROWS[0] + 3 * ROWS[1])
    close(updates["heads"], 3 * GRADS["heads"])
    updates, _ = step(tx, active=[True, False])
    close(updates["heads"], [0.0, 0.0])
    with pytest.raises(ValueError, match="'heads'.*needs its task.*owner="):
        step(aggregate(uniform(), 2, SHARED))


OWN = {"w": np.ones(3, np.float32), "heads": {"a": np.ones(2, np.float32), "b": np.ones(1)}}
OWN_GRADS = {"w": ROWS, "heads": {"a": np.full(2, np.nan, np.float32), "b": np.full(1, 5.0)}}
OWNED = {"shared": {"w": True, "heads": False}, "owner": {"w": 0, "heads": {"a": 0, "b": 1}}}


@pytest.mark.parametrize("rule", [min_norm(), uniform(), trimmed_mean(), moco()])
def test_an_inactive_tasks_own_leaf_is_zero(rule):
    updates, _ = step(aggregate(rule, 2, **OWNED), OWN_GRADS, OWN, active=[False, True])
    np.testing.assert_array_equal(updates["heads"]["a"], [0, 0])
    close(updates["heads"]["b"], [5])
    assert np.isfinite(updates["w"]).all()


@pytest.mark.parametrize("rule", [fixed([2.0, 3.0]), trimmed_mean()])
def test_own_leaves_of_integers_have_no_gradient_and_none_is_made(rule):
    params = {**OWN, "heads": {"a": np.ones(2, np.float32), "b": np.ones(1, np.int32)}}
    none = np.zeros(1, jax.dtypes.float0)
    grads = {"w": ROWS, "heads": {"a": np.ones(2, np.float32), "b": none}}
    tx = aggregate(rule, 2, **OWNED)
    active = jnp.array([True, False])
    updates, _ = tx.update(grads, tx.init(params), params, active=active)
    assert updates["heads"]["b"].dtype == jax.dtypes.float0
    close(updates["heads"]["a"], np.full(2, 2.0 if isinstance(rule, Weighting) else 1.0))


BARE = {"encoder": {"w": np.ones(3, np.float32), "bias": None}, "heads": [None, np.zeros(2)]}
BARE_GRADS = {"encoder": {"w": ROWS, "bias": None}, "heads": [None, np.ones(2, np.float32)]}


@pytest.mark.parametrize(
    "shared", [{"encoder": True, "heads": False}, lambda path: path.startswith("encoder/")]
)
def test_parameters_may_hold_none(shared):
    tx = aggregate(min_norm(), 2, shared, scope="all", owner={"encoder": None, "heads": [0, 1]})
    updates, _ = step(optax.chain(tx, optax.sgd(1.0)), BARE_GRADS, BARE)
    assert updates["encoder"]["bias"] is None and updates["heads"][0] is None
    close(updates["encoder"]["w"], [0.0, -1.0, -1.0])
    close(updates["heads"][1], [-0.4, -0.4])


def test_whole_trees_may_hold_none():
    grads, params = {"w": ROWS, "bias": None}, {"w": np.ones(3, np.float32), "bias": None}
    for rule in (min_norm(), moco(), trimmed_mean()):
        updates, _ = step(aggregate(rule, 2), grads, params)
        assert updates["bias"] is None and updates["w"].shape == (3,)


def test_gradients_may_leave_parameters_out():
    """As those of a filtered model do: what has no gradient is None there, whatever it is."""
    params = {"w": np.ones(3, np.float32), "frozen": {"w": np.ones(2)}, "activation": None}
    updates, _ = step(mgda(2), {"w": ROWS, "frozen": None, "activation": None}, params)
    close(updates["w"], [0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"'w': expected shape \(2, 3\)"):
        step(mgda(2), {"w": ROWS[:, :2], "frozen": None, "activation": None}, params)


@jax.tree_util.register_pytree_node_class
class Layer:
    """A layer whose constructor wants arrays."""

    def __init__(self, kernel, head):
        if kernel is None or head is None:
            raise TypeError("expected arrays")
        self.kernel, self.head = kernel, head

    def tree_flatten(self):
        return (self.kernel, self.head), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


@pytest.mark.parametrize("rule", [min_norm(), moco(), trimmed_mean()])
def test_a_node_that_refuses_none_may_be_half_shared(rule):
    def losses(layer):
        return jnp.stack([jnp.sum(layer.kernel**2), jnp.sum(layer.kernel * layer.head)])

    params, mask = Layer(jnp.ones(3), jnp.ones(3)), Layer(True, False)
    _, grads = mgda_jax.task_gradients(losses, mask)(params)
    tx = aggregate(rule, 2, mask)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert isinstance(updates, Layer)
    assert updates.kernel.shape == (3,)
    close(updates.head, np.ones(3))
