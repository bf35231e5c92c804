"""Dirichlet weights."""

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.draws import drawn
from mgda_jax.weighting.origin import rule


@rule
def random(*, concentration: float = 1.0, seed: int = 0) -> Weighting:
    """Dirichlet weights: w ~ Dirichlet(a, …, a), new at every step.

    Args:
      concentration: a > 0; 1 is uniform on the simplex, less prefers single tasks.
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      Weighting of scope "all" that reads nothing. Its weights lie on the simplex.

    Raises:
      ValueError: a concentration that is not positive, a seed that is no int.

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

    return drawn(seed, draw, "random")
