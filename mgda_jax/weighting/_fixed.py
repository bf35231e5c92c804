"""Fixed weights of the losses."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from mgda_jax.tasks import task_vector
from mgda_jax.weighting.arguments import check_each
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.static import StaticState

PyTree = Any


@rule
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
    check_each(weights, np.isfinite, "fixed: weights must be finite numbers")

    def init(num_tasks: int) -> StaticState:
        default = jnp.zeros(()).dtype
        return StaticState(task_vector(weights, num_tasks, "fixed: weights", default))

    def update(state, **_):
        return state.weights, state

    return Weighting(init, update, frozenset(), "all")
