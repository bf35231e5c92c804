"""Sign agreement: the coordinates in which the gradients agree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_reduction
from mgda_jax.weighting.base import RowRule
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.rows import combine_leaves, row_mask

PyTree = Any


@rule
def sign_agreement(*, threshold: float | jax.Array = 1.0, reduction: str = "mean") -> RowRule:
    """The mean gradient in the coordinates whose signs agree, zero in the others (AND-mask).

    d = m ∘ (1/T) Σ_t g_t with m = [ |Σ_t sign g_t| ≥ τ T ] per coordinate, T counting the active
    tasks. At τ = 1 all signs must agree; a zero agrees with none. With "sum" and τ = 1 this is
    Agr-Sum.

    Args:
      threshold: τ in [0, 1].
      reduction: "mean" (AND-mask) or "sum" (Agr-Sum).

    Returns:
      RowRule of scope "shared".

    Raises:
      ValueError: another reduction, a concrete threshold outside [0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 2.0, -1.0], [3.0, -1.0, -4.0]])
      >>> rule = sign_agreement()
      >>> rule.update(rule.init(jnp.zeros(3), 2), rows)[0]
      Array([ 2. ,  0. , -2.5], dtype=float32)

    References:
      Parascandolo et al., "Learning explanations that are hard to vary", ICLR 2021.
      Mansilla et al., "Domain Generalization via Gradient Surgery", ICCV 2021, for
      Agr-Sum.
    """
    check_reduction(reduction, "sign_agreement")
    check_hyperparameter(
        threshold, lambda x: 0 <= x <= 1, "sign_agreement: threshold must be in [0, 1]"
    )

    def init(params: PyTree, num_tasks: int) -> optax.EmptyState:
        del params, num_tasks
        return optax.EmptyState()

    def update(state, rows, *, active=None, **_):
        def combine(leaf, mask, index):
            del index
            present = jnp.maximum(jnp.sum(mask), 1).astype(leaf.dtype)
            agreement = jnp.abs(jnp.sum(jnp.sign(leaf), axis=0))
            total = jnp.sum(leaf, axis=0)
            total = total / present if reduction == "mean" else total
            agrees = agreement >= jnp.asarray(threshold, leaf.dtype) * present
            return jnp.where(agrees, total, jnp.zeros_like(total))

        return combine_leaves(rows, row_mask(rows, active), combine), state

    return RowRule(init, update)
