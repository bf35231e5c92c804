"""PCGrad and GradVac: each gradient corrected against the others, one by one, in random order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.positive import check_reduction, count
from mgda_jax.weighting.unit_gramian import UnitGramian, unit_gramian


class PCGradState(NamedTuple):
    """State of `pcgrad`.

    Attributes:
      key: the PRNG key of the next orders.
    """

    key: jax.Array


class GradVacState(NamedTuple):
    """State of `gradvac`.

    Attributes:
      key: the PRNG key of the next orders.
      targets: ρ (T, T), the moving average of the cosines that task i met at task j.
    """

    key: jax.Array
    targets: jax.Array


def pcgrad(*, reduction: str = "sum", seed: int = 0) -> Weighting:
    """PCGrad: every gradient projected off the gradients it conflicts with, then summed.

    For each task i, starting from p = g_i and going through the other tasks j in
    an order drawn afresh for every i: where ⟨p, g_j⟩ < 0,
    p ← p − ⟨p, g_j⟩/‖g_j‖² g_j. The direction is the sum of the p. Each p is a
    combination of the gradients, so all this happens in coefficients, on unit
    rows, for all i at once.

    Args:
      reduction: "sum" (the paper's Algorithm 1) or "mean" over the active tasks.
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: another reduction.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> rule = pcgrad()
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> jnp.round(weights @ rows, 4)
      Array([0.5848, 3.8012, 3.8012], dtype=float32)

    References:
      Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, Algorithm 1.
    """
    check_reduction(reduction, "pcgrad")

    def init(num_tasks: int) -> PCGradState:
        del num_tasks
        return PCGradState(jax.random.key(seed))

    def update(state, *, gramian, key=None, active=None, **_):
        next_key, key = _draw(state.key, key)
        unit = unit_gramian(gramian, active)
        order = random_orders(key, len(unit.norms))
        norm = jnp.diagonal(unit.matrix)
        _, steps = lax.scan(lambda inner, j: _project(unit, inner, j), unit.matrix, order.T)
        weights = _weights(unit, order, steps, active, norm, reduction)
        return weights, PCGradState(next_key)

    return Weighting(init, update)


def gradvac(*, beta: float = 0.5, reduction: str = "sum", seed: int = 0) -> Weighting:
    """GradVac: every gradient turned until its cosines reach their moving averages, then summed.

    For each task i, starting from p = g_i and going through the other tasks j in
    an order drawn afresh for every i, with c = cos(p, g_j) and the target ρ_ij:
    where c < ρ_ij,

        p ← p + ‖p‖ (ρ_ij √(1 − c²) − c √(1 − ρ_ij²)) / (‖g_j‖ √(1 − ρ_ij²)) g_j,

    after which cos(p, g_j) = ρ_ij; then ρ_ij ← (1 − β) ρ_ij + β c. ρ is zero at first,
    where this is PCGrad. Targets count as at most 1 − 64 eps, where the angle is
    lost to rounding. Where p vanishes to rounding its cosine is zero. Pairs
    with a zero gradient have no cosine and are left alone.

    Args:
      beta: β in [0, 1]; 0.5 is the public benchmark's.
      reduction: "sum" (the paper's Algorithm 1) or "mean" over the active tasks.
      seed: of the state's own key; the `key` argument of update replaces the draw.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: another reduction, a concrete β outside [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = gradvac()
      >>> weights, state = rule.update(rule.init(2), gramian=jnp.array([[1.0, 0.5], [0.5, 1.0]]))
      >>> weights, state.targets[0]
      (Array([1., 1.], dtype=float32), Array([0.  , 0.25], dtype=float32))

    References:
      Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task
      Optimization in Massively Multilingual Models", ICLR 2021, Algorithm 1.
    """
    check_reduction(reduction, "gradvac")
    check_hyperparameter(beta, lambda x: 0 <= x <= 1, "gradvac: beta must be in [0, 1]")

    def init(num_tasks: int) -> GradVacState:
        return GradVacState(jax.random.key(seed), jnp.zeros((num_tasks, num_tasks)))

    def update(state, *, gramian, key=None, active=None, **_):
        next_key, key = _draw(state.key, key)
        unit = unit_gramian(gramian, active)
        norm = jnp.diagonal(unit.matrix)
        order = random_orders(key, len(norm))
        targets = state.targets.astype(norm.dtype)
        start = (unit.matrix, norm, norm)

        def turn(carry, j):
            return _turn(unit, carry, j, jnp.take_along_axis(targets, j[:, None], 1)[:, 0])

        _, (steps, cosines) = lax.scan(turn, start, order.T)
        met = jnp.take_along_axis(cosines.T, jnp.argsort(order, axis=1), 1)
        rate = jnp.asarray(beta, norm.dtype)
        targets = jnp.where(_pairs(unit), (1 - rate) * targets + rate * met, targets)
        weights = _weights(unit, order, steps, active, norm, reduction)
        return weights, GradVacState(next_key, targets)

    return Weighting(init, update)


def random_orders(key: jax.Array, num_tasks: int) -> jax.Array:
    """T independent uniform permutations of 0 … T−1, (T, T) int32, one a row."""
    # Random high bits over the index: one sort of single words, three times as fast as argsort.
    low = jnp.uint32((1 << max(num_tasks - 1, 1).bit_length()) - 1)
    shape = (num_tasks, num_tasks)
    high = jax.random.bits(key, shape, jnp.uint32) & ~low
    return (jnp.sort(high | lax.broadcasted_iota(jnp.uint32, shape, 1), axis=1) & low).astype(
        jnp.int32
    )


def _project(unit: UnitGramian, inner: jax.Array, j: jax.Array):
    """p_i off ĝ_{j_i} where they conflict, for all i; inner is ⟨p_i, ĝ_j⟩ (T, T)."""
    at = jnp.take_along_axis(inner, j[:, None], 1)[:, 0]
    step = jnp.where(_others(j), jnp.maximum(-at, 0), jnp.zeros_like(at))
    return inner + step[:, None] * unit.matrix[j], step


def _turn(unit: UnitGramian, carry, j: jax.Array, target: jax.Array):
    """p_i towards ĝ_{j_i} up to the target cosine; carry is ⟨p_i, ĝ_j⟩, ‖p_i‖², Σ|coefficients|."""
    inner, square, size = carry
    eps = jnp.finfo(square.dtype).eps
    vanished = square <= 8 * eps * size**2
    norm = jnp.sqrt(jnp.where(vanished, jnp.ones_like(square), square))
    at = jnp.take_along_axis(inner, j[:, None], 1)[:, 0]
    cosine = jnp.clip(at / norm, -1, 1)
    cosine = jnp.where(vanished, jnp.zeros_like(cosine), cosine)
    target = jnp.clip(target, -1 + 64 * eps, 1 - 64 * eps)
    sine = jnp.sqrt((1 - target) * (1 + target))
    step = norm * (target * jnp.sqrt((1 - cosine) * (1 + cosine)) / sine - cosine)
    turns = (cosine < target) & ~vanished & _others(j) & unit.nonzero & unit.nonzero[j]
    step = jnp.where(turns, step, jnp.zeros_like(step))
    square = jnp.maximum(square + step * (2 * at + step), 0)
    new = (inner + step[:, None] * unit.matrix[j], square, size + jnp.abs(step))
    return new, (step, cosine)


def _others(j: jax.Array) -> jax.Array:
    return j != jnp.arange(len(j), dtype=j.dtype)


def _pairs(unit: UnitGramian) -> jax.Array:
    """(T, T) bool: i ≠ j, both gradients there."""
    apart = ~jnp.eye(len(unit.norms), dtype=bool)
    return unit.nonzero[:, None] & unit.nonzero[None, :] & apart


def _weights(unit, order, steps, active, one, reduction):
    """Σ_i ‖g_i‖ (e_i + Σ_j step_ij e_j) / ‖g_j‖ over the active i, in weights of the rows."""
    mask = jnp.ones(one.shape, bool) if active is None else active
    length = jnp.where(mask, unit.norms, jnp.zeros_like(one))
    added = jnp.zeros_like(one).at[order.T].add(steps * length[None, :])
    # `one` is 1, or NaN when the Gramian is not finite.
    weights = jnp.where(mask, one, jnp.zeros_like(one)) + added / unit.norms
    return weights / count(mask, weights.dtype) if reduction == "mean" else weights


def _draw(own: jax.Array, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The next state's key and the key of this draw."""
    if key is not None:
        return own, key
    split = jax.random.split(own)
    return split[0], split[1]
