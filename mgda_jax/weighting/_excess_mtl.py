"""ExcessMTL: more weight for the tasks that are farthest from their optimum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._gramian import weighted_sum
from mgda_jax.tasks import check_hyperparameter, check_int
from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import count, softmax
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.rows import column, map_rows, row_mask, zero_rows

PyTree = Any


class ExcessState(NamedTuple):
    """State of `excess_mtl`.

    Attributes:
      root_squares: √Σ g² over the steps, per coordinate, rows (T, *shape).
      initial: (T,) e(0), the mean excess risk of each task's warm-up.
      counts: (T,) int32, updates in which the task was active.
      log_weights: (T,) log w up to a constant.
    """

    root_squares: PyTree
    initial: jax.Array
    counts: jax.Array
    log_weights: jax.Array


@rule
def excess_mtl(
    *, step_size: float | jax.Array = 0.01, warmup_steps: int = 1, reduction: str = "mean"
) -> RowRule:
    """ExcessMTL: weights that grow with the estimated excess risk of their task.

    e_t = g_tᵀ H_t^{−1} g_t with the diagonal H_t = (Σ_steps g_t²)^{½} estimates L_t − min L_t;
    w_t ∝ w_t exp(η e_t / e_t(0)), d = Σ w_t g_t. During the warm-up the weights are equal,
    and e_t(0) is the mean of e_t over it. A coordinate whose gradients were all zero
    adds nothing. The heads' own gradients stay unscaled here.

    Args:
      step_size: η > 0.
      warmup_steps: ≥ 1, static; 1 is the public code's, three epochs the paper's.
      reduction: "mean" for Σ w = 1 (the paper), "sum" for Σ w = T (the public code).

    Returns:
      RowRule of scope "shared".

    Raises:
      ValueError: another reduction, a number out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = excess_mtl(step_size=1.0)
      >>> state = rule.init(jnp.zeros(2), 2)
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> first, state = rule.update(state, rows)
      >>> second, state = rule.update(state, rows * jnp.array([[1.0], [3.0]]))
      >>> first, second.round(3)  # the second task's risk grew
      (Array([0.5, 0.5], dtype=float32), Array([0.105, 2.684], dtype=float32))

    References:
      He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024,
      equations (6), (7) and (9).
    """
    check_reduction(reduction, "excess_mtl")
    check_hyperparameter(step_size, lambda x: x > 0, "excess_mtl: step_size must be > 0")
    warmup_steps = check_int(
        warmup_steps, lambda n: n >= 1, "excess_mtl: warmup_steps must be an int >= 1"
    )

    def init(params: PyTree, num_tasks: int) -> ExcessState:
        return ExcessState(
            zero_rows(params, num_tasks),
            jnp.zeros(num_tasks),
            jnp.zeros(num_tasks, jnp.int32),
            jnp.zeros(num_tasks),
        )

    def update(state, rows, *, active=None, **_):
        mask = row_mask(rows, active)
        # The root of the sum and not the sum, which would overflow.
        roots = map_rows(_hypot, state.root_squares, rows, mask)
        risk = _risk(rows, roots, mask).astype(jnp.zeros(()).dtype)

        counts = jnp.where(mask, state.counts + 1, state.counts)
        warm = mask & (counts <= warmup_steps)
        change = (risk - state.initial) / jnp.maximum(counts, 1).astype(risk.dtype)
        initial = jnp.where(warm, state.initial + change, state.initial)

        tiny, large = jnp.finfo(risk.dtype).tiny, jnp.finfo(risk.dtype).max / 4
        rise = jnp.asarray(step_size, risk.dtype) * risk / jnp.maximum(initial, tiny)
        moves = mask & ~warm
        grown = state.log_weights + jnp.minimum(rise, large)
        log_weights = jnp.where(moves, grown, state.log_weights)
        weights = softmax(log_weights, mask)
        log_weights = jnp.maximum(log_weights - jnp.max(log_weights), -large)
        # NaN rows leave no trace in the weights of the warm-up.
        weights = jnp.where(jnp.all(jnp.isfinite(risk)), weights, jnp.nan)
        if reduction == "sum":
            weights = count(mask, weights.dtype) * weights
        direction = weighted_sum(rows, weights, active=active)
        return direction, ExcessState(roots, initial, counts, log_weights)

    return RowRule(init, update)


def _hypot(root: jax.Array, row: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(root):
        return jax.lax.complex(jnp.hypot(root.real, row.real), jnp.hypot(root.imag, row.imag))
    return jnp.hypot(root, row)


def _risk(rows: PyTree, roots: PyTree, mask: jax.Array) -> jax.Array:
    """Σ g²/√Σg² over the coordinates, (T,), zero outside the mask."""
    total = jnp.zeros(mask.shape)
    for row, root in zip(jax.tree.leaves(rows), jax.tree.leaves(roots), strict=True):
        if row.dtype == jax.dtypes.float0:
            continue
        parts = [(row.real, root.real), (row.imag, root.imag)]
        for g, r in parts if jnp.iscomplexobj(row) else [(row, root)]:
            g = jnp.where(column(mask, g), g, jnp.zeros_like(g)).astype(r.dtype)
            # |g| (|g|/r) with the ratio at most one: nothing overflows that the result does not.
            ratio = jnp.abs(g) / one_for_zero(r)
            share = jnp.sum(jnp.abs(g) * ratio, axis=tuple(range(1, g.ndim)))
            total = total + share.astype(total.dtype)
    return total
