"""Median of every coordinate."""

from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.middle_mean import middle_mean
from mgda_jax.weighting.origin import rule


@rule
def coordinate_median() -> RowRule:
    """The median of every coordinate: the mean of the two middle entries when T is even.

    A NaN or Inf entry makes its coordinate NaN.

    Returns:
      RowRule of scope "shared".

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 5.0], [2.0, -90.0], [60.0, 6.0], [4.0, 7.0]])
      >>> rule = coordinate_median()
      >>> rule.update(rule.init(jnp.zeros(2), 4), rows)[0]
      Array([3. , 5.5], dtype=float32)

    References:
      Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
      Rates", ICML 2018, Definition 1.
    """
    return middle_mean(lambda present: (present - 1) // 2)
