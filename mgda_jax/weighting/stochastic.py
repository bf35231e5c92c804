"""Rules that draw their weights: random loss weighting and Dirichlet weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.positive import softmax


class DrawState(NamedTuple):
    """State of a rule that draws.

    Attributes:
      key: the PRNG key of the next draw.
      ones: (T,) ones, which carry the number of tasks.
    """

    key: jax.Array
    ones: jax.Array


def rlw(*, seed: int = 0) -> Weighting:
    """Random loss weighting: w = softmax(ε), ε ~ N(0, I), new at every step.

    Args:
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      Weighting of scope "all" that reads nothing. Its weights lie on the simplex.

    Examples:
      >>> rule = rlw(seed=1)
      >>> weights, state = rule.update(rule.init(3))
      >>> weights.shape, float(weights.sum().round(5))
      ((3,), 1.0)

    References:
      Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning", TMLR 2022.
    """
    return _drawn(seed, lambda key, ones: jax.random.normal(key, ones.shape, ones.dtype))


def random(*, concentration: float = 1.0, seed: int = 0) -> Weighting:
    """Dirichlet weights: w ~ Dirichlet(a, …, a), new at every step.

    Args:
      concentration: a > 0; 1 is uniform on the simplex, less prefers single tasks.
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      Weighting of scope "all" that reads nothing. Its weights lie on the simplex.

    Raises:
      ValueError: a concentration that is not positive.

    Examples:
      >>> rule = random(concentration=2.0)
      >>> weights, state = rule.update(rule.init(3))
      >>> weights.shape, float(weights.sum().round(5))
      ((3,), 1.0)
    """
    check_hyperparameter(concentration, lambda x: x > 0, "random: concentration must be positive")

    def draw(key, ones):
        # Normalised gamma variates, by their logarithms: for a small concentration they underflow.
        return jax.random.loggamma(key, jnp.asarray(concentration, ones.dtype) * ones)

    return _drawn(seed, draw)


def _drawn(seed: Any, draw: Callable[[jax.Array, jax.Array], jax.Array]) -> Weighting:
    def init(num_tasks: int) -> DrawState:
        return DrawState(jax.random.key(seed), jnp.ones(num_tasks))

    def update(state, *, key=None, active=None, **_):
        next_key = state.key
        if key is None:
            next_key, key = jax.random.split(state.key)
        mask = jnp.ones(state.ones.shape, bool) if active is None else active
        return softmax(draw(key, state.ones), mask), state._replace(key=next_key)

    return Weighting(init, update, frozenset(), "all")
