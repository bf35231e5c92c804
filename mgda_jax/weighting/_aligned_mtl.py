"""Aligned-MTL: the gradients made orthogonal and equally long before they are added."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.solvers.spectrum import spectrum
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import (
    check_choice,
    check_preference,
    check_reduction,
    task_preference,
)
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import active_gramian, normalized

PyTree = Any
_SCALE_MODES = ("min", "median", "rmse")


class AlignedReport(NamedTuple):
    """What the last update reported.

    Attributes:
      rank: () int32, eigenvalues that do not count as zero.
    """

    rank: jax.Array


@rule
def aligned_mtl(
    *,
    scale_mode: str = "min",
    preference: PyTree = None,
    reduction: str = "mean",
    rank_tolerance: float | jax.Array | None = None,
) -> Weighting:
    """Aligned-MTL: gradients replaced by the nearest orthogonal ones of one length σ.

    M = VΛVᵀ, B = σ VΛ^{−½}Vᵀ, w = Bc. The aligned gradients BG are orthogonal with norm
    σ when M has full rank: σ² is the smallest eigenvalue ("min"), the lower median
    or the mean of them ("rmse"). Eigenvalues up to τ of the largest count as
    zero and are left out, of σ too. The rule is discontinuous there: near-duplicates
    have a small eigenvalue and a tiny σ, exact duplicates do not. Where all
    eigenvalues are zero w = c.

    Args:
      scale_mode: "min", "median" or "rmse".
      preference: c, (T,) array, sequence or dict of named scalars ≥ 0; ones by
        default.
      reduction: "mean" divides c by its sum over the active tasks, "sum" takes c
        as it is (the public benchmark's form, T times as long).
      rank_tolerance: τ ≥ 0; None for T·eps, T counting the active tasks. In
        float32 that is a ratio of singular values of 3e-4·√T.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: an unknown scale_mode or reduction, a negative rank_tolerance, a
        concrete preference that is negative, not finite or all zero; at update,
        one of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = aligned_mtl()
      >>> rule.update(rule.init(2), gramian=jnp.array([[1.0, 0.0], [0.0, 16.0]]))[0]
      Array([0.5  , 0.125], dtype=float32)

    References:
      Senushkin et al., "Independent Component Alignment for Multi-Task Learning",
      CVPR 2023, Algorithm 1.
    """
    check_choice(scale_mode, _SCALE_MODES, "aligned_mtl: scale_mode")
    check_reduction(reduction, "aligned_mtl")
    check_preference(preference, "aligned_mtl")
    if rank_tolerance is not None:
        check_hyperparameter(
            rank_tolerance, lambda x: x >= 0, "aligned_mtl: rank_tolerance must be >= 0 or None"
        )

    def init(num_tasks: int) -> AlignedReport:
        del num_tasks
        return AlignedReport(jnp.zeros((), jnp.int32))

    def update(state, *, gramian, active=None, **_):
        del state
        matrix = active_gramian(gramian, active).matrix
        share = task_preference(preference, len(matrix), matrix.dtype, active, "aligned_mtl")
        share = normalized(share) if reduction == "mean" else share
        tolerance = rank_tolerance
        if tolerance is None and active is not None:
            tolerance = jnp.sum(active).astype(matrix.dtype) * jnp.finfo(matrix.dtype).eps
        values, vectors, kept = spectrum(matrix, tolerance)
        rank = jnp.sum(kept, dtype=jnp.int32)
        if scale_mode == "rmse":
            total = jnp.sum(jnp.where(kept, values, jnp.zeros_like(values)))
            square = total / jnp.maximum(rank, 1).astype(values.dtype)
        else:
            # Ascending, so the kept ones are the last.
            first = len(values) - rank
            middle = 0 if scale_mode == "min" else (rank - 1) // 2
            square = jnp.take(values, jnp.minimum(first + middle, len(values) - 1))
        coordinates = jnp.matmul(share, vectors, precision="highest")
        scaled = jnp.where(kept, coordinates / jnp.sqrt(values), jnp.zeros_like(values))
        weights = jnp.sqrt(square) * jnp.matmul(vectors, scaled, precision="highest")
        return jnp.where(rank == 0, share, weights), AlignedReport(rank)

    return Weighting(init, update)
