"""Random loss weighting: the softmax of normal variates."""

import jax

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.draws import drawn
from mgda_jax.weighting.origin import rule


@rule
def rlw(*, seed: int = 0) -> Weighting:
    """Random loss weighting: w = softmax(ε), ε ~ N(0, I), new at every step.

    Args:
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      Weighting of scope "all" that reads nothing. Its weights lie on the simplex.

    Raises:
      ValueError: a seed that is no int.

    Examples:
      >>> rule = rlw(seed=1)
      >>> weights, state = rule.update(rule.init(3))
      >>> weights.shape, float(weights.sum().round(5))
      ((3,), 1.0)

    References:
      Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning", TMLR 2022.
    """
    return drawn(seed, lambda key, ones: jax.random.normal(key, ones.shape, ones.dtype), "rlw")
