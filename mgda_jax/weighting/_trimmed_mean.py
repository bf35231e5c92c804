"""Trimmed mean of every coordinate."""

import jax.numpy as jnp

from mgda_jax.tasks import check_int
from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.middle_mean import middle_mean
from mgda_jax.weighting.origin import rule


@rule
def trimmed_mean(*, num_trimmed: int = 1) -> RowRule:
    """The mean of every coordinate without its b largest and b smallest entries.

    T counts the active tasks; where T ≤ 2b it is the coordinate median. A NaN or Inf
    entry makes its coordinate NaN, it is not trimmed away.

    Args:
      num_trimmed: b ≥ 0, static; 0 is the mean.

    Returns:
      RowRule of scope "shared".

    Raises:
      ValueError: b is no int ≥ 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 5.0], [2.0, -90.0], [60.0, 6.0]])
      >>> rule = trimmed_mean(num_trimmed=1)
      >>> rule.update(rule.init(jnp.zeros(2), 3), rows)[0]
      Array([2., 5.], dtype=float32)

    References:
      Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
      Rates", ICML 2018, Definition 2.
    """
    num_trimmed = check_int(
        num_trimmed, lambda n: n >= 0, "trimmed_mean: num_trimmed must be an int >= 0"
    )
    return middle_mean(lambda present: jnp.minimum(num_trimmed, (present - 1) // 2))
