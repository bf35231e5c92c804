"""What MoDo and SDMGrad share: the Gramian across two batches, and weights on the simplex."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax._gramian import Gramian
from mgda_jax._gramian import gramian as form_gramian
from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.unit_gramian import normalized

PyTree = Any


class SimplexState(NamedTuple):
    """State of a rule that moves weights on the simplex.

    Attributes:
      weights: λ (T,), on the simplex.
    """

    weights: jax.Array


def cross_gramian(first: PyTree, second: PyTree, *, active: jax.Array | None = None) -> Gramian:
    """The inner products ⟨g_s, h_t⟩ of the gradients of two batches: J_1 J_2ᵀ.

    Neither symmetric nor positive in general. Formed as a block of the Gramian of both,
    so precision, scale and sharding are those of `gramian`.

    Args:
      first: g, a pytree whose every leaf is (T, *shape).
      second: h, of the same structure and shapes.
      active: (T,) bool or None; rows of inactive tasks are replaced by zeros.

    Returns:
      Gramian with matrix (T, T), to be given as `cross_gramian=`.

    Raises:
      ValueError: as `gramian`.

    Examples:
      >>> import jax.numpy as jnp
      >>> cross = cross_gramian(jnp.array([[1.0, 0.0]]), jnp.array([[-3.0, 4.0]]))
      >>> cross.matrix * 4.0 ** cross.exponent
      Array([[-3.]], dtype=float32)
    """
    both = jax.tree.map(_stack, first, second)
    num_tasks = jax.tree.leaves(first)[0].shape[0]
    active = None if active is None else jnp.concatenate([active, active])
    matrix, exponent = form_gramian(both, active=active)
    return Gramian(matrix[:num_tasks, num_tasks:], exponent)


def init_simplex(num_tasks: int) -> SimplexState:
    return SimplexState(jnp.ones(num_tasks) / num_tasks)


def masked(cross: Any, active: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """matrix with zeros for inactive tasks and its largest entry of order one, exponent, mask.

    NaN throughout where an active entry is NaN or Inf.
    """
    if isinstance(cross, Gramian):
        matrix, exponent = cross
    else:
        matrix, exponent = jnp.asarray(cross), jnp.zeros((), jnp.int32)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(
                f"cross_gramian: expected a Gramian or an array (T, T), got shape {matrix.shape}"
            )
    mask = active_mask(active, len(matrix))
    matrix = jnp.where(mask[:, None] & mask[None, :], matrix, jnp.zeros_like(matrix))
    peak = jnp.max(jnp.abs(matrix))
    shift = jnp.frexp(jnp.where(jnp.isfinite(peak), peak, jnp.ones_like(peak)))[1] // 2
    # Twice by 2^-shift and not once by 4^-shift, which need not be representable.
    scale = jnp.ldexp(jnp.ones_like(peak), -shift)
    finite = jnp.all(jnp.isfinite(matrix))
    return jnp.where(finite, matrix * scale * scale, jnp.nan), exponent + shift, mask


def on_active(weights: jax.Array, mask: jax.Array) -> jax.Array:
    """The weights of the active tasks, scaled to sum one; equal ones where they were all zero."""
    kept = jnp.where(mask, weights, jnp.zeros_like(weights))
    equal = mask.astype(weights.dtype)
    return normalized(jnp.where(jnp.sum(kept) == 0, equal, kept))


def keep_inactive(state: SimplexState, new: jax.Array, mask: jax.Array) -> SimplexState:
    """Inactive tasks keep their weights, the active ones their sum."""
    old = state.weights.astype(new.dtype)
    total = jnp.sum(jnp.where(mask, old, jnp.zeros_like(old)))
    return SimplexState(jnp.where(mask, total * new, old))


def _stack(first: jax.Array, second: jax.Array) -> jax.Array:
    if first.dtype == jax.dtypes.float0:
        return first
    return jnp.concatenate([first, second])
