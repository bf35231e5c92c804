"""GO4Align: one weight per group of tasks, groups found by clustering risk indicators."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter, check_int
from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import active_losses, count, raised_losses, softmax
from mgda_jax.weighting.origin import rule


class GO4AlignState(NamedTuple):
    """State of `go4align`.

    Attributes:
      log_smoothness: (T,) log q, up to a constant.
    """

    log_smoothness: jax.Array


@rule
def go4align(*, num_groups: int = 2, beta: float = 1e-4, reduction: str = "sum") -> Weighting:
    """GO4Align: risk-guided indicators, averaged over groups of similar tasks.

    q ← q exp(−β L) / Σ (q = 1/T at first) and γ_t = q_t L̄ / L_t, with L̄ the sum or
    the mean of the losses. The T numbers γ are clustered by K-means and w_t is the
    centre of its task's cluster. On a line the best clusters are intervals, so
    they are found exactly (dynamic programming), where the authors' code iterates
    from random centres. Losses must be positive; a zero loss counts as 1e-30 of the
    largest, a negative one gives NaN.

    Args:
      num_groups: K ≥ 1, static; 2 is the paper's for three tasks, 5 for eleven. With
        K ≥ T every task has its own γ.
      beta: β ≥ 0, of the authors' code.
      reduction: "sum" (the authors' code) or "mean" (the paper's equation 5, smaller
        by T).

    Returns:
      Weighting of scope "all" that reads "losses".

    Raises:
      ValueError: an argument out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = go4align(num_groups=2, beta=0.0)
      >>> rule.update(rule.init(3), losses=jnp.array([1.0, 3.0, 2.0]))[0]
      Array([2.       , 0.8333334, 0.8333334], dtype=float32)

    References:
      Shen et al., "GO4Align: Group Optimization for Multi-Task Alignment",
      NeurIPS 2024.
    """
    check_reduction(reduction, "go4align")
    num_groups = check_int(num_groups, lambda n: n >= 1, "go4align: num_groups must be an int >= 1")
    check_hyperparameter(beta, lambda x: x >= 0, "go4align: beta must not be negative")

    def init(num_tasks: int) -> GO4AlignState:
        return GO4AlignState(jnp.zeros(num_tasks))

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        decay = jnp.asarray(beta, values.dtype) * values
        logits = jnp.where(mask, state.log_smoothness - decay, state.log_smoothness)
        smoothness = softmax(logits, mask)
        positive = raised_losses(values, mask)
        total = jnp.sum(jnp.where(mask, positive, jnp.zeros_like(positive)))
        if reduction == "mean":
            total = total / count(mask, total.dtype)
        indicators = smoothness * (total / positive)
        weights = cluster_means(indicators, num_groups, mask)
        return weights, GO4AlignState(logits - jnp.max(logits))

    return Weighting(init, update, frozenset({"losses"}), "all")


@functools.partial(jax.jit, static_argnames="num_clusters")
def cluster_means(values: jax.Array, num_clusters: int, mask: jax.Array) -> jax.Array:
    """Every value replaced by the mean of its cluster, in the best K-means clustering.

    Minimises Σ_t (x_t − mean of t's cluster)² over all partitions into at most K
    clusters. In sorted order the clusters are intervals: with D_k(j) the least cost
    of the first j values in k clusters, D_k(j) = min_i D_{k−1}(i) + cost(i, j).

    Args:
      values: (T,) x ≥ 0.
      num_clusters: K, static.
      mask: (T,) bool, the values that count.

    Returns:
      (T,), zero where the mask is False; NaN everywhere when a value that counts is.

    References:
      Wang and Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by
      Dynamic Programming", The R Journal 2011.
    """
    size = values.shape[0]
    scale = one_for_zero(jnp.max(jnp.where(mask, values, jnp.zeros_like(values))))
    order = jnp.argsort(jnp.where(mask, values, jnp.inf))  # the masked come last
    points = jnp.where(mask, values / scale, jnp.zeros_like(values))[order]
    positions = jnp.arange(size)
    cost = _interval_costs(points)

    def add_cluster(best, _):
        total = best[:-1, None] + cost
        return jnp.concatenate([best[:1], jnp.min(total, axis=0)]), jnp.argmin(total, axis=0)

    # best[j]: least cost of the first j points; none is free, any needs a cluster.
    best = jnp.full(size + 1, jnp.inf, points.dtype).at[0].set(0.0)
    _, starts = jax.lax.scan(add_cluster, best, length=min(num_clusters, size))

    def mark_interval(carry, starts):
        end, means = carry
        start = jnp.where(end > 0, starts[jnp.maximum(end - 1, 0)], 0)
        chosen = (positions >= start) & (positions < end)
        total = jnp.sum(jnp.where(chosen, points, jnp.zeros_like(points)))
        return (start, jnp.where(chosen, total / count(chosen, points.dtype), means)), None

    last = (jnp.sum(mask), jnp.zeros_like(points))
    (_, means), _ = jax.lax.scan(mark_interval, last, starts, reverse=True)
    ok = jnp.all(jnp.isfinite(values) | ~mask)
    means = jnp.where(ok, means * scale, jnp.nan)
    return jnp.where(mask, jnp.zeros_like(means).at[order].set(means), jnp.zeros_like(means))


def _interval_costs(points: jax.Array) -> jax.Array:
    """Σ (x − mean)² over the points i..j, (T, T), Inf below the diagonal.

    Summed as Σ_{a<b} (x_a − x_b)² / (j − i + 1): sums of squares alone, so that nothing cancels.
    """
    row, column = jnp.indices((points.shape[0], points.shape[0]))
    upper = row <= column
    square = jnp.where(upper, (points[:, None] - points[None, :]) ** 2, 0)
    from_start = jax.lax.cumsum(square, axis=0, reverse=True)  # Σ_{a ≥ i} (x_a − x_j)²
    pairs = jnp.cumsum(jnp.where(upper, from_start, 0), axis=1)
    return jnp.where(upper, pairs / jnp.maximum(column - row + 1, 1).astype(points.dtype), jnp.inf)
