"""PCGrad: each gradient projected off those it conflicts with, one by one, in random order."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.keys import check_seed, draw_key, new_key
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.pairwise import corrected_weights, others, random_orders
from mgda_jax.weighting.unit_gramian import UnitGramian, unit_gramian


class PCGradState(NamedTuple):
    """State of `pcgrad`.

    Attributes:
      key: data of the PRNG key of the next orders.
    """

    key: jax.Array


@rule
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
      ValueError: another reduction, a seed that is no int.

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
    check_seed(seed, "pcgrad")

    def init(num_tasks: int) -> PCGradState:
        del num_tasks
        return PCGradState(new_key(seed))

    def update(state, *, gramian, key=None, active=None, **_):
        next_key, key = draw_key(state.key, key)
        unit = unit_gramian(gramian, active)
        order = random_orders(key, len(unit.norms))
        norm = jnp.diagonal(unit.matrix)
        weights = corrected_weights(unit, order, _project_all(unit, order), active, norm, reduction)
        return weights, PCGradState(next_key)

    return Weighting(init, update)


@jax.jit
def _project_all(unit: UnitGramian, order: jax.Array) -> jax.Array:
    """The steps (T, T) of every turn along ĝ_{j_i}."""
    return lax.scan(lambda inner, j: _project(unit, inner, j), unit.matrix, order.T)[1]


def _project(unit: UnitGramian, inner: jax.Array, j: jax.Array):
    """p_i off ĝ_{j_i} where they conflict, for all i; inner is ⟨p_i, ĝ_j⟩ (T, T)."""
    at = jnp.take_along_axis(inner, j[:, None], 1)[:, 0]
    step = jnp.where(others(j), jnp.maximum(-at, 0), jnp.zeros_like(at))
    return inner + step[:, None] * unit.matrix[j], step
