"""Pareto MTL: common descent within the part of the space of losses that is nearest to a ray."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax._gramian import Gramian, as_gramian
from mgda_jax.solvers.min_norm import min_norm_point
from mgda_jax.weighting._min_norm import MinNormReport
from mgda_jax.weighting.arguments import check_each
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import active_losses, valid_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.rays import check_ray, task_ray, unit_rays
from mgda_jax.weighting.unit_gramian import active_gramian

PyTree = Any


class ParetoMTLState(NamedTuple):
    """State of `pareto_mtl`.

    Attributes:
      inside: () bool, whether the losses were in the ray's part once.
      report: of the last min-norm point.
    """

    inside: jax.Array
    report: MinNormReport


@rule
def pareto_mtl(ray: PyTree, others: jax.typing.ArrayLike) -> Weighting:
    """Pareto MTL: multiple gradient descent among the losses nearest to one of several rays.

    With unit rays u and u_j the part of u is where all G_j = ⟨u_j − u, L⟩ ≤ 0. The G_j > 0 are
    the active constraints, their gradients V = (u_j − u)ᵀG. Until the losses are inside for the
    first time d is the min-norm point of V alone, afterwards that of the rows and V together:

        d = Σ_t α_t g_t + Σ_j β_j (u_j − u)ᵀG,   w = α + Σ_j β_j (u_j − u)

    with (α, β) on the simplex, so that d conflicts with no task and leads back inside, or is
    zero where no step does both; the way inside may be uphill, and that may be off the Pareto
    set. A weight may be negative, and Σ w differs from one.
    The part is that of the Pareto set which is nearest to the ray, not the one point on it; many
    rays side by side cover the front. Rays near u have short V, so they come first.

    Args:
      ray: u up to its length, the ratio of losses, (T,) array, sequence or dict by name ≥ 0, not
        all zero. May be traced (many under vmap).
      others: (K, T) the u_j ≥ 0 up to their length, tasks in order; of two losses the
        neighbours on both sides say all. u itself among them does no harm. May be traced.

    Returns:
      Weighting of scope "all" that reads "gramian" and "losses". NaN where a loss is negative.

    Raises:
      ValueError: an argument out of its range or shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = pareto_mtl((1.0, 1.0), jnp.array([[1.0, 0.0], [0.0, 1.0]]))
      >>> inside = rule.update(rule.init(2), gramian=jnp.eye(2), losses=jnp.array([2.0, 1.0]))[0]
      >>> inside
      Array([0.5, 0.5], dtype=float32)
      >>> outside = rule.update(rule.init(2), gramian=jnp.eye(2), losses=jnp.array([9.0, 1.0]))[0]
      >>> outside.round(4)  # u_1 − u: the first loss down, the second up
      Array([ 0.2929, -0.7071], dtype=float32)

    References:
      Lin, Zhen, Li, Zhang and Kwong, "Pareto Multi-Task Learning", NeurIPS 2019, equations (9)
      and (12) to (15); active is G_j > 0, as in the authors' code.
    """
    if ray is None:
        raise ValueError("pareto_mtl: ray must be T numbers, got None")
    check_ray(ray, "pareto_mtl: ray")
    message = "pareto_mtl: others must be (K, T) finite numbers, 0 or more"
    check_each(others, lambda x: x >= 0, message)
    try:
        shape = np.shape(others)
    except ValueError:  # rows of different lengths
        raise ValueError(f"{message}, got {others}") from None
    if len(shape) != 2:
        raise ValueError(f"{message}, got shape {shape}")

    def init(num_tasks: int) -> ParetoMTLState:
        if shape[1] != num_tasks:
            raise ValueError(f"{message} with T = {num_tasks}, got shape {shape}")
        report = MinNormReport(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))
        return ParetoMTLState(jnp.zeros((), bool), report)

    def update(state, *, gramian, losses, active=None, **_):
        rows = active_gramian(gramian, active)
        values, mask = active_losses(losses, active)
        size, dtype = len(values), rows.matrix.dtype
        valid = valid_losses(values, mask)
        values = jnp.where(mask, values, jnp.zeros_like(values))
        values = (values / one_for_zero(jnp.max(values))).astype(dtype)
        unit = task_ray(ray, size, dtype, active, "pareto_mtl: ray")
        rays = unit_rays(jnp.asarray(others, dtype), active)
        there = jnp.any(rays > 0, axis=1)
        toward = jnp.where(there[:, None], rays - unit[None, :], 0)
        violated = jnp.sum(toward * values[None, :], axis=1) > 0
        inside = state.inside | ~jnp.any(violated)

        mixed = jnp.concatenate([jnp.eye(size, dtype=dtype), toward])
        both = _square(mixed, rows.matrix)
        taken = jnp.concatenate([mask & inside, violated])
        solution = min_norm_point(as_gramian(Gramian(both, rows.exponent)), active=taken)
        weights = jnp.matmul(solution.weights, mixed, precision="highest")
        report = MinNormReport(solution.norm, solution.kkt, solution.steps)
        return jnp.where(valid, weights, jnp.nan), ParetoMTLState(inside, report)

    return Weighting(init, update, frozenset({"gramian", "losses"}), "all")


def _square(mixed: jax.Array, matrix: jax.Array) -> jax.Array:
    """A M Aᵀ; its diagonal at least the rounding of what it sums, or it may be negative."""
    product = functools.partial(jnp.matmul, precision="highest")
    square = product(product(mixed, matrix), mixed.T)
    sizes = product(product(jnp.abs(mixed), jnp.abs(matrix)), jnp.abs(mixed).T)
    least = jnp.diag(jnp.finfo(matrix.dtype).eps * jnp.diagonal(sizes))
    return jnp.where(jnp.eye(len(mixed), dtype=bool), jnp.maximum(square, least), square)
