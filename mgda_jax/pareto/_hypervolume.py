"""The volume that points dominate, differentiable and in one program."""

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.pareto._points import check_reference


def hypervolume(points: jax.Array, reference: jax.Array) -> jax.Array:
    """The volume that the points dominate, up to a reference point; exact.

    λ( ∪_i [p_i, r] ), by slicing along the last loss: O(N log N) for T = 2, a factor of N
    in time for every further loss, and memory N² T for any number of them. It works under
    jit and vmap and is differentiable almost everywhere. For many points in four losses and
    more `wfg_hypervolume` is faster.

    Args:
      points: (N, T) losses, T ≥ 2; points beyond the reference add nothing.
      reference: (T,) the worst losses that still count.

    Returns:
      () volume in the product of the losses' units; NaN when an entry is NaN.

    Raises:
      ValueError: shapes that do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> hypervolume(jnp.array([[1.0, 2.0], [2.0, 1.0]]), jnp.array([3.0, 3.0]))
      Array(3., dtype=float32)

    References:
      Zitzler and Thiele, "Multiobjective Optimization Using Evolutionary
      Algorithms – A Comparative Case Study", PPSN 1998.
    """
    check_reference(points, reference, "hypervolume")
    top = jnp.broadcast_to(reference, points.shape)
    outside = jnp.any(points >= top, axis=1)
    # The reference itself dominates nothing, so it stands in for points that do not count.
    volume = _sliced(jnp.where(outside[:, None], top, points), reference)
    known = ~(jnp.any(jnp.isnan(points)) | jnp.any(jnp.isnan(reference)))
    return jnp.where(known, volume, jnp.nan)


def _sliced(points: jax.Array, reference: jax.Array) -> jax.Array:
    ordered = points[jnp.argsort(points[:, -1])]
    last = jnp.append(ordered[:, -1], reference[-1])
    thickness = last[1:] - last[:-1]
    if points.shape[1] == 2:
        return jnp.sum(thickness * (reference[0] - lax.cummin(ordered[:, 0])))
    front, corner = ordered[:, :-1], reference[:-1]

    def section(count):
        inside = (jnp.arange(len(front)) <= count)[:, None]
        return _sliced(jnp.where(inside, front, jnp.broadcast_to(corner, front.shape)), corner)

    counts = jnp.arange(len(front))
    # Side by side only where that takes N² numbers; beyond, one after the other.
    areas = jax.vmap(section)(counts) if points.shape[1] == 3 else lax.map(section, counts)
    return jnp.sum(thickness * areas)
