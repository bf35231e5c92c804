"""MoCo: tracked gradients, and weights on the simplex that follow them."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._gramian import gramian
from mgda_jax.solvers.simplex import shifted_step, simplex_projection
from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_choice
from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import active_losses, softmax, valid_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.rows import (
    column,
    decayed,
    direction_like,
    map_rows,
    row_mask,
    row_norms,
    zero_rows,
)
from mgda_jax.weighting.unit_gramian import normalized

PyTree = Any


class MoCoState(NamedTuple):
    """State of `moco`.

    Attributes:
      tracked: y, rows (T, *shape).
      weights: λ (T,), on the simplex.
      step: () int32, updates so far.
    """

    tracked: PyTree
    weights: jax.Array
    step: jax.Array


@rule
def moco(
    *,
    beta: float | jax.Array = 0.5,
    beta_decay: float | jax.Array = 0.5,
    gamma: float | jax.Array = 0.1,
    gamma_decay: float | jax.Array = 0.5,
    rho: float | jax.Array = 0.0,
    projection: Literal["softmax", "simplex"] = "softmax",
    normalization: Literal["none", "loss"] = "none",
) -> RowRule:
    """MoCo: MGDA's weights followed by small steps on tracked gradients.

    At step k: y_t ← y_t − β_k (y_t − g_t), λ ← P(λ − γ_k (YYᵀ + ρI)λ), d = Σ λ_t y_t,
    with β_k = β k^−σ, γ_k = γ k^−σ', y = 0 and λ = 1/T at first. Tracking removes the
    bias that the noise of one batch puts into the Gramian. γ is as absolute as
    the paper has it: its unit is one over a squared gradient.

    Args:
      beta: β in (0, 1].
      beta_decay: σ ≥ 0.
      gamma: γ > 0.
      gamma_decay: σ' ≥ 0.
      rho: ρ ≥ 0.
      projection: P, "softmax" as in the public code or "simplex", the Euclidean
        projection of the paper. Softmax is no projection: it moves a point of the
        simplex, towards equal weights.
      normalization: "none" or "loss": g_t L_t/‖g_t‖ in place of g_t, as in the
        public code; the losses must not be negative (NaN where one is).

    Returns:
      RowRule of scope "shared" that reads "losses" for normalization "loss".

    Raises:
      ValueError: an unknown projection or normalization, a concrete number out of
        its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = moco(beta=1.0, gamma=0.5, projection="simplex")
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 0.5]])
      >>> _, state = rule.update(rule.init(jnp.zeros(2), 2), rows)
      >>> state.weights
      Array([0.40625, 0.59375], dtype=float32)

    References:
      Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A
      Provably Convergent Approach", ICLR 2023.
    """
    check_hyperparameter(beta, lambda x: 0 < x <= 1, "moco: beta must be in (0, 1]")
    check_hyperparameter(beta_decay, lambda x: x >= 0, "moco: beta_decay must be >= 0")
    check_hyperparameter(gamma, lambda x: x > 0, "moco: gamma must be > 0")
    check_hyperparameter(gamma_decay, lambda x: x >= 0, "moco: gamma_decay must be >= 0")
    check_hyperparameter(rho, lambda x: x >= 0, "moco: rho must be >= 0")
    check_choice(projection, ("softmax", "simplex"), "moco: projection")
    check_choice(normalization, ("none", "loss"), "moco: normalization")

    def init(params: PyTree, num_tasks: int) -> MoCoState:
        weights = jnp.ones(num_tasks) / num_tasks
        return MoCoState(zero_rows(params, num_tasks), weights, jnp.zeros((), jnp.int32))

    def update(state, rows, *, losses: Any = None, active=None, **_):
        mask = row_mask(rows, active)
        step = state.step + 1
        scales = jnp.ones(mask.shape)
        if normalization == "loss":
            values, _ = active_losses(losses, active)
            norms = row_norms(rows, mask).astype(values.dtype)
            scales = values / one_for_zero(norms)
            scales = jnp.where(valid_losses(values, mask), scales, jnp.nan)
        rate = decayed(beta, beta_decay, step, scales.dtype)

        def track(old, row):
            fresh = row * column(scales, row).astype(row.dtype)
            return old - rate.astype(old.dtype) * (old - fresh)

        tracked = map_rows(track, state.tracked, rows, mask)
        matrix, exponent = gramian(tracked, active=active)
        dtype = matrix.dtype
        last = state.weights.astype(dtype)
        total = jnp.sum(jnp.where(mask, last, jnp.zeros_like(last)))
        now = normalized(jnp.where(mask, last, jnp.zeros_like(last)))
        length = decayed(gamma, gamma_decay, step, dtype)
        pull = length * jnp.matmul(matrix, now, precision="highest")
        point = now - length * jnp.asarray(rho, dtype) * now - shifted_step(pull, exponent, mask)
        new = (softmax if projection == "softmax" else simplex_projection)(point, mask)
        weights = jnp.where(mask, total * new, last)
        direction = direction_like(rows, tracked, new, mask)
        return direction, MoCoState(tracked, weights, step)

    reads = {"losses"} if normalization == "loss" else set()
    return RowRule(init, update, frozenset(reads))
