"""How far a point is from Pareto stationarity, in no unit."""

import jax

from mgda_jax._gramian import Gramian
from mgda_jax.solvers.min_norm import min_norm_point
from mgda_jax.weighting.unit_gramian import unit_gramian


def stationarity(
    gramian: Gramian | jax.typing.ArrayLike, *, active: jax.Array | None = None
) -> jax.Array:
    """‖Σ_t α_t g_t / ‖g_t‖‖ at its least over the simplex: 0 is Pareto stationary, 1 unanimous.

    A direction that lowers every loss exists exactly where it is positive, and by the same
    margin for all: max over unit d of min_t cos(d, g_t). Rescaling any of the losses
    changes nothing, unlike `Diagnostics.stationarity`, the length of one rule's
    direction by the longest gradient.

    Args:
      gramian: `Gramian`, or array (T, T).
      active: (T,) bool, tasks that take part; None for all.

    Returns:
      () in [0, 1]; 0 where an active gradient is zero, or none is active; NaN where an
      entry is.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[3.0, 0.0], [0.0, 0.01]])
      >>> round(float(stationarity(rows @ rows.T)), 4)
      0.7071
    """
    unit = unit_gramian(gramian, active)
    taking_part = unit.nonzero if active is None else unit.nonzero | ~active
    norm = min_norm_point(unit.matrix, active=active).norm
    return norm * jax.numpy.all(taking_part).astype(norm.dtype)
