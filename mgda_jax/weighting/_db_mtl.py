"""DB-MTL: tracked gradients of logarithmic losses, all brought to the largest norm."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_flag
from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.division import divide
from mgda_jax.weighting.losses import active_losses, raised_losses
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

PyTree = Any


class DBMTLState(NamedTuple):
    """State of `db_mtl`.

    Attributes:
      tracked: the average of the gradients of the log losses, rows (T, *shape).
      step: () int32, updates so far.
    """

    tracked: PyTree
    step: jax.Array


@rule
def db_mtl(
    *,
    beta: float | jax.Array = 0.9,
    beta_decay: float | jax.Array = 0.0,
    log_losses: bool = True,
) -> RowRule:
    """DB-MTL: averaged gradients of the log losses, all brought to the length of the longest.

    At step k: y_t ← β_k y_t + (1 − β_k) ∇log L_t with β_k = β k^−σ, y = 0 at first, and
    d = Σ_t (max_s ‖y_s‖ / ‖y_t‖) y_t. The heads' own gradients are not touched: to give
    them the log losses' gradients too, as the paper does, differentiate the log losses
    and set log_losses=False.

    Args:
      beta: β in [0, 1).
      beta_decay: σ ≥ 0.
      log_losses: whether to divide the rows, gradients of L_t, by L_t, which must be
        positive (a zero loss counts as 1e-30 of the largest, a negative one gives NaN);
        False when they are gradients of log L_t already.

    Returns:
      RowRule of scope "shared" that reads "losses" where log_losses is set.

    Raises:
      ValueError: a concrete number out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = db_mtl(beta=0.0)
      >>> rows = jnp.array([[2.0, 0.0], [0.0, 0.5]])
      >>> state = rule.init(jnp.zeros(2), 2)
      >>> rule.update(state, rows, losses=jnp.array([4.0, 0.5]))[0]
      Array([1., 1.], dtype=float32)

    References:
      Lin et al., "Dual-Balancing for Multi-Task Learning", 2023.
    """
    check_hyperparameter(beta, lambda x: 0 <= x < 1, "db_mtl: beta must be in [0, 1)")
    check_hyperparameter(beta_decay, lambda x: x >= 0, "db_mtl: beta_decay must be >= 0")
    check_flag(log_losses, "db_mtl: log_losses")

    def init(params: PyTree, num_tasks: int) -> DBMTLState:
        return DBMTLState(zero_rows(params, num_tasks), jnp.zeros((), jnp.int32))

    def update(state, rows, *, losses: Any = None, active=None, **_):
        mask = row_mask(rows, active)
        step = state.step + 1
        scales = jnp.ones(mask.shape)
        if log_losses:
            values, _ = active_losses(losses, active)
            scales = raised_losses(values, mask)
        rate = decayed(beta, beta_decay, step, scales.dtype)

        def track(old, row):
            fresh = row / column(scales, row).astype(row.dtype)
            return fresh + rate.astype(row.dtype) * (old - fresh)

        tracked = map_rows(track, state.tracked, rows, mask)
        norms = row_norms(tracked, mask)
        # A zero row needs no weight, and must not get an infinite one.
        ratios = divide(jnp.broadcast_to(jnp.max(norms), norms.shape), norms)
        return direction_like(rows, tracked, ratios, mask), DBMTLState(tracked, step)

    return RowRule(init, update, frozenset({"losses"} if log_losses else ()))
