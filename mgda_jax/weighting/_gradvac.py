"""GradVac: each gradient turned towards the others up to target cosines, one by one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.keys import check_seed, draw_key, new_key
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.pairwise import corrected_weights, others, random_orders
from mgda_jax.weighting.unit_gramian import UnitGramian, unit_gramian


class GradVacState(NamedTuple):
    """State of `gradvac`.

    Attributes:
      key: data of the PRNG key of the next orders.
      targets: ρ (T, T), the moving average of the cosines that task i met at task j.
    """

    key: jax.Array
    targets: jax.Array


@rule
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
      ValueError: another reduction, a seed that is no int, a concrete β outside [0, 1].

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
    check_seed(seed, "gradvac")
    check_hyperparameter(beta, lambda x: 0 <= x <= 1, "gradvac: beta must be in [0, 1]")

    def init(num_tasks: int) -> GradVacState:
        return GradVacState(new_key(seed), jnp.zeros((num_tasks, num_tasks)))

    def update(state, *, gramian, key=None, active=None, **_):
        next_key, key = draw_key(state.key, key)
        unit = unit_gramian(gramian, active)
        norm = jnp.diagonal(unit.matrix)
        order = random_orders(key, len(norm))
        targets = state.targets.astype(norm.dtype)
        steps, cosines = _turn_all(unit, order, targets)
        met = jnp.take_along_axis(cosines.T, jnp.argsort(order, axis=1), 1)
        rate = jnp.asarray(beta, norm.dtype)
        targets = jnp.where(_pairs(unit), (1 - rate) * targets + rate * met, targets)
        weights = corrected_weights(unit, order, steps, active, norm, reduction)
        return weights, GradVacState(next_key, targets)

    return Weighting(init, update)


@jax.jit
def _turn_all(unit: UnitGramian, order: jax.Array, targets: jax.Array):
    """Steps and cosines (T, T) of every turn towards ĝ_{j_i}."""
    norm = jnp.diagonal(unit.matrix)

    def turn(carry, j):
        return _turn(unit, carry, j, jnp.take_along_axis(targets, j[:, None], 1)[:, 0])

    return lax.scan(turn, (unit.matrix, norm, norm), order.T)[1]


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
    turns = (cosine < target) & ~vanished & others(j) & unit.nonzero & unit.nonzero[j]
    step = jnp.where(turns, step, jnp.zeros_like(step))
    square = jnp.maximum(square + step * (2 * at + step), 0)
    new = (inner + step[:, None] * unit.matrix[j], square, size + jnp.abs(step))
    return new, (step, cosine)


def _pairs(unit: UnitGramian) -> jax.Array:
    """(T, T) bool: i ≠ j, both gradients there."""
    apart = ~jnp.eye(len(unit.norms), dtype=bool)
    return unit.nonzero[:, None] & unit.nonzero[None, :] & apart
