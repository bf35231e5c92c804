"""What rules that draw their weights share: the key, and the softmax of the draw."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.keys import check_seed, draw_key, new_key
from mgda_jax.weighting.losses import softmax


class DrawState(NamedTuple):
    """State of a rule that draws.

    Attributes:
      key: data of the PRNG key of the next draw.
      ones: (T,) ones, which carry the number of tasks.
    """

    key: jax.Array
    ones: jax.Array


def drawn(seed: Any, draw: Callable[[jax.Array, jax.Array], jax.Array], rule: str) -> Weighting:
    """The rule w = softmax(draw(key, ones)) over the active tasks."""
    check_seed(seed, rule)

    def init(num_tasks: int) -> DrawState:
        return DrawState(new_key(seed), jnp.ones(num_tasks))

    def update(state, *, key=None, active=None, **_):
        next_key, key = draw_key(state.key, key)
        mask = active_mask(active, len(state.ones))
        return softmax(draw(key, state.ones), mask), state._replace(key=next_key)

    return Weighting(init, update, frozenset(), "all")
