"""Two tasks and their gradients, for the tests of the optax transformation."""

import jax
import jax.numpy as jnp
import numpy as np

EPS = float(np.finfo(np.float32).eps)
ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)
WEIGHTS = np.array([0.6, 0.4], np.float32)
PARAMS = {"encoder": {"w": np.ones(3, np.float32)}, "heads": np.zeros(2, np.float32)}
GRADS = {"encoder": {"w": ROWS}, "heads": np.array([10.0, 20.0], np.float32)}
SHARED = {"encoder": True, "heads": False}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=8 * EPS, atol=8 * EPS)


def as_jax(tree):
    return jax.tree.map(jnp.asarray, tree)


def step(tx, grads=GRADS, params=PARAMS, **extra):
    params = as_jax(params)
    return tx.update(as_jax(grads), tx.init(params), params, **extra)
