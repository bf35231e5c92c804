"""Weights that do not look at the gradients: uniform and fixed loss weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mgda_jax.tasks import task_vector
from mgda_jax.weighting.base import Weighting

PyTree = Any


class StaticState(NamedTuple):
    """State of `uniform` and `fixed`.

    Attributes:
      weights: (T,) the weights of all tasks, before inactive ones are set to zero.
    """

    weights: jax.Array


def uniform(*, reduction: str = "sum") -> Weighting:
    """Uniform scaling: the gradient of the sum, or of the mean, of the losses.

    w_t = 1 for "sum", 1/T for "mean" (of the active tasks).

    Args:
      reduction: "sum" or "mean".

    Returns:
      Weighting of scope "all" that reads nothing.

    Raises:
      ValueError: another reduction.

    Examples:
      >>> rule = uniform(reduction="mean")
      >>> rule.update(rule.init(4))[0]
      Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"uniform: reduction must be 'sum' or 'mean', got {reduction!r}")

    def init(num_tasks: int) -> StaticState:
        return StaticState(jnp.ones(num_tasks))

    def update(state, *, active=None, **_):
        weights = state.weights
        if active is not None:
            weights = jnp.where(active, weights, jnp.zeros_like(weights))
        if reduction == "mean":
            weights = weights / jnp.maximum(jnp.sum(weights), 1)
        return weights, state

    return Weighting(init, update, frozenset(), "all")


def fixed(weights: PyTree) -> Weighting:
    """Static loss weights: the gradient of Σ_t c_t L_t with the c given.

    Args:
      weights: c, (T,) array, sequence, or dict of T named scalars (sorted by
        key); any finite numbers, not normalised. May be traced (a grid of
        weights under vmap).

    Returns:
      Weighting of scope "all" that reads nothing.

    Raises:
      ValueError: not T entries, or a concrete entry that is not finite.

    Examples:
      >>> rule = fixed({"right": 0.25, "left": 0.75})
      >>> rule.update(rule.init(2))[0]
      Array([0.75, 0.25], dtype=float32)
    """
    leaves = jax.tree.leaves(weights)
    if not any(isinstance(leaf, Tracer) for leaf in leaves):
        if not all(np.all(np.isfinite(np.asarray(leaf, dtype=np.float64))) for leaf in leaves):
            raise ValueError(f"fixed: weights must be finite, got {weights!r}")

    def init(num_tasks: int) -> StaticState:
        default = jnp.zeros(()).dtype
        return StaticState(task_vector(weights, num_tasks, "fixed: weights", default))

    def update(state, **_):
        return state.weights, state

    return Weighting(init, update, frozenset(), "all")
