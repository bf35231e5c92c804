"""The volume that many points in several losses dominate, on the host."""

import numpy as np
from numpy.typing import ArrayLike

from mgda_jax.pareto._points import check_reference

_PAIRS = 128  # points of which all pairs are compared at once


def wfg_hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """`hypervolume` in float64 by the WFG algorithm, for more points and losses; exact.

    Σ_k λ[p_k, r] − λ( ∪_{j>k} [max(p_j, p_k), r] ), with the points sorted by the last loss,
    the worst first, so that every term is one of T − 1 losses times a thickness; what the
    maxima leave dominated is dropped before the recursion. Memory N T at each of at most
    N · T levels, numpy only: it is no part of a jitted program.

    Args:
      points: (N, T) losses, T ≥ 2; points beyond the reference add nothing.
      reference: (T,) the worst losses that still count.

    Returns:
      Volume; NaN when an entry is NaN.

    Raises:
      ValueError: shapes that do not fit.

    Examples:
      >>> wfg_hypervolume([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]], [3.0, 3.0, 2.0])
      6.0

    References:
      While, Bradstreet and Barone, "A Fast Way of Calculating Exact Hypervolumes", IEEE
      Transactions on Evolutionary Computation 2012.
    """
    found, corner = np.asarray(points, np.float64), np.asarray(reference, np.float64)
    check_reference(found, corner, "wfg_hypervolume")
    if np.isnan(found).any() or np.isnan(corner).any():
        return float("nan")
    return float(_volume(_kept(found[(found < corner).all(axis=1)]), corner))


def _volume(front: np.ndarray, corner: np.ndarray) -> np.float64:
    """Of points none of which dominates another, all of them better than the corner."""
    if front.shape[1] == 2:
        first, second = front[np.argsort(front[:, 0])].T
        return np.sum((np.append(first[1:], corner[0]) - first) * (corner[1] - second))
    total = np.float64(0)
    ordered = front[np.argsort(-front[:, -1])]
    flat, side = ordered[:, :-1], corner[:-1]
    for k, point in enumerate(flat):
        inside = _kept(np.maximum(flat[k + 1 :], point))
        area = np.prod(side - point) - (_volume(inside, side) if len(inside) else 0)
        total += (corner[-1] - ordered[k, -1]) * area
    return total


def _kept(points: np.ndarray) -> np.ndarray:
    """The non-dominated points, each once; in memory N T, give or take a constant."""
    # Whatever dominates a point comes before it in this order.
    ordered = points[np.lexsort(points.T[::-1])]
    if points.shape[1] == 2:
        best = np.minimum.accumulate(ordered[:, 1])
        return ordered[np.append(True, ordered[1:, 1] < best[:-1])] if len(ordered) else ordered
    if len(ordered) <= _PAIRS:
        above = (ordered[:, None] <= ordered[None]).all(axis=2)
        return ordered[~np.triu(above, 1).any(axis=0)]
    kept, count = np.empty_like(ordered), 0
    for point in ordered:
        if not (kept[:count] <= point).all(axis=1).any():
            kept[count] = point
            count += 1
    return kept[:count]
