"""Three tasks on one encoder with two representations: losses, and dense Jacobians by JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax import per_task_decode

EPS = float(np.finfo(np.float32).eps)
TOL = 256 * EPS  # a dozen sums of tens of products each, between two programs
NUM_TASKS = 3


def data():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    shared = {"w": normal(4, 5), "b": normal(5)}
    own = {name: {"w": normal(5), "b": normal()} for name in "abc"}
    batch = {"x": normal(6, 4), "y": normal(3, 6)}
    return shared, own, batch


SHARED, OWN, BATCH = data()


def encode(shared, batch):
    hidden = jnp.tanh(batch["x"] @ shared["w"] + shared["b"][None])
    return {"hidden": hidden, "input": batch["x"] * jnp.sum(shared["b"])}


def head(t, own, z, batch):
    """Each task reads the hidden layer; task 0 also the second representation."""
    out = z["hidden"] @ own["w"] + own["b"]
    if t == 0:
        out = out + jnp.sum(z["input"], axis=1)
    return jnp.mean((out - batch["y"][t]) ** 2)


HEADS = {name: functools.partial(head, t) for t, name in enumerate("abc")}
DECODE = per_task_decode(HEADS)


def losses_of(shared, own):
    z = encode(shared, BATCH)
    return jnp.stack([HEADS[name](own[name], z, BATCH) for name in "abc"])


def dense():
    """Losses, per-task rows of shared parameters, of the representation, and own gradients."""
    losses = losses_of(SHARED, OWN)
    rows = jax.jacobian(losses_of)(SHARED, OWN)
    z = encode(SHARED, BATCH)
    z_rows = jax.jacobian(
        lambda z: jnp.stack([HEADS[name](OWN[name], z, BATCH) for name in "abc"])
    )(z)
    own = jax.grad(lambda own: jnp.sum(losses_of(SHARED, own)))(OWN)
    return losses, rows, z_rows, own


LOSSES, ROWS, Z_ROWS, OWN_GRADS = dense()


def close(actual, expected, tol=TOL):
    def compare(a, b):
        scale = max(1.0, float(np.max(np.abs(b), initial=0)))
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * scale)

    jax.tree.map(compare, actual, expected)
