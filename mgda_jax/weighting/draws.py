"""What rules that draw their weights share: the key, and the softmax of the draw."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.losses import softmax


class DrawState(NamedTuple):
    """State of a rule that draws.

    Attributes:
      key: the PRNG key of the next draw.
      ones: (T,) ones, which carry the number of tasks.
    """

    key: jax.Array
    ones: jax.Array


def drawn(seed: Any, draw: Callable[[jax.Array, jax.Array], jax.Array]) -> Weighting:
    def init(num_tasks: int) -> DrawState:
        return DrawState(jax.random.key(seed), jnp.ones(num_tasks))

    def update(state, *, key=None, active=None, **_):
        next_key = state.key
        if key is None:
            next_key, key = jax.random.split(state.key)
        mask = jnp.ones(state.ones.shape, bool) if active is None else active
        return softmax(draw(key, state.ones), mask), state._replace(key=next_key)

    return Weighting(init, update, frozenset(), "all")
