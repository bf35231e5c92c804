"""A small model with BatchNorm, dropout and several representations, read in part by its heads."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax import Weighting
from tests.weighting.rules import RULES

NAMES = ("a", "b", "c")
EPS = float(np.finfo(np.float32).eps)
GRAMIAN_RULES = {
    name: rule
    for name, rule in ((name, entry.make((0, 1, 2))) for name, entry in RULES.items())
    if isinstance(rule, Weighting) and rule.reads == {"gramian"}
}


def _normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


SHARED = {"w": _normal(0, 4, 5), "b": _normal(1, 5)}
OWN = {"a": _normal(2, 5), "b": _normal(3, 5), "c": _normal(4, 4)}
BATCH = {"x": _normal(5, 6, 4), "a": _normal(6, 6), "b": _normal(7, 6), "c": _normal(8, 6)}


def encode(shared: Any, batch: Any) -> tuple[Any, jax.Array]:
    """Two representations, and the statistics of the batch as auxiliary output."""
    hidden = batch["x"] @ shared["w"] + shared["b"][None]
    mean = jnp.mean(hidden, axis=0)
    hidden = (hidden - mean[None]) * jax.lax.rsqrt(jnp.var(hidden, axis=0) + 1e-3)[None]
    kept = jax.random.bernoulli(jax.random.key(0), 0.7, hidden.shape)
    hidden = jnp.where(kept, jnp.tanh(hidden), jnp.zeros_like(hidden))
    return {"hidden": hidden, "skip": batch["x"] * jnp.sum(shared["b"])}, mean


def head(name: str, own: Any, z: Any, batch: Any) -> jax.Array:
    """a reads one representation, c the other, b both."""
    out = z["skip"] @ own if name == "c" else z["hidden"] @ own
    if name == "b":
        out = out + jnp.sum(z["skip"], axis=1)
    return jnp.mean((out - batch[name]) ** 2)


HEADS = {name: lambda own, z, batch, name=name: head(name, own, z, batch) for name in NAMES}


def losses_of(copies: Any, own: Any, batch: Any) -> dict[str, jax.Array]:
    """Loss t of copy t."""
    return {name: HEADS[name](own[name], copies[name], batch) for name in NAMES}


def assert_close(actual: Any, expected: Any, eps: float = 16) -> None:
    """Within eps · the largest entry of each leaf."""

    def compare(a, b):
        scale = max(float(np.max(np.abs(b), initial=0)), np.finfo(np.float32).tiny)
        np.testing.assert_allclose(a, b, rtol=0, atol=eps * EPS * scale)

    jax.tree.map(compare, actual, expected)
