"""task_gradients and masked_mean against dense Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgda_jax
from mgda_jax import masked_mean
from tests.oracle_model import (
    BATCH,
    EPS,
    LOSSES,
    OWN,
    OWN_GRADS,
    ROWS,
    SHARED,
    TOL,
    close,
    losses_of,
)
from tests.problems import reference


@pytest.mark.parametrize("pullbacks", [None, "vmap", "map"])
def test_task_gradients_are_the_jacobian(pullbacks):
    def losses(params):
        return losses_of(params["shared"], params["own"]), {"mean": jnp.mean(params["shared"]["b"])}

    params = {"shared": SHARED, "own": OWN}
    shared = {"shared": True, "own": False}
    fn = mgda_jax.task_gradients(losses, shared=shared, has_aux=True, pullbacks=pullbacks)
    (values, aux), grads = jax.jit(fn)(params)
    close(values, LOSSES)
    close(grads, {"shared": ROWS, "own": OWN_GRADS})
    close(aux["mean"], jnp.mean(SHARED["b"]))


def test_task_gradients_leave_inactive_heads_out():
    fn = mgda_jax.task_gradients(
        lambda p: losses_of(SHARED, p["own"]) + p["w"], shared=lambda path: path == "w"
    )
    _, grads = fn({"own": OWN, "w": jnp.zeros(3)}, active={"x": True, "y": False, "z": True})
    close(grads["own"]["a"], OWN_GRADS["a"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads["own"]["b"]))
    np.testing.assert_array_equal(grads["w"], np.eye(3))


def test_task_gradients_feed_aggregate():
    """A regulariser as an objective: it reads the shared parameters directly."""

    def losses(p, x):
        return jnp.mean((x @ p - 1) ** 2), 0.5 * jnp.sum(p**2)

    params, x = jnp.array([0.5, -1.0]), BATCH["x"][:, :2]
    _, rows = mgda_jax.task_gradients(losses)(params, x)
    np.testing.assert_allclose(rows[1], params, rtol=8 * EPS)
    tx = mgda_jax.mgda(2)
    update, state = tx.update(rows, tx.init(params), params)
    weights = reference(np.asarray(rows))
    np.testing.assert_allclose(state.task_weights, weights, atol=TOL)
    np.testing.assert_allclose(update, weights @ np.asarray(rows, np.float64), atol=TOL)


def test_masked_mean():
    values = jnp.array([[1.0, jnp.nan], [3.0, 5.0]])
    mask = jnp.array([[True, False], [True, True]])
    value, grad = jax.value_and_grad(masked_mean)(values, mask)
    assert value == 3.0
    np.testing.assert_allclose(grad, np.where(mask, 1 / 3, 0), rtol=4 * EPS)
    value, grad = jax.value_and_grad(masked_mean)(values, jnp.zeros(2, bool))
    assert value == 0.0 and not np.any(grad)
    assert masked_mean(jnp.ones(3, jnp.bfloat16), jnp.ones(3, bool)).dtype == jnp.bfloat16
    for bad in (jnp.ones(2), jnp.ones(3, bool)):
        with pytest.raises(ValueError, match="mask: expected bool of shape"):
            masked_mean(values, bad)
