"""What the loss rules share: active losses and their domain, a masked softmax, no memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.division import one_for_zero


class NoState(NamedTuple):
    """State of a rule without memory."""


def active_losses(losses: jax.Array, active: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Losses (T,) in the default float dtype, 1 where inactive, and the mask (T,) bool."""
    losses = losses.astype(jnp.zeros(()).dtype)
    mask = active_mask(active, len(losses))
    return jnp.where(mask, losses, jnp.ones_like(losses)), mask


def valid_losses(losses: jax.Array, mask: jax.Array) -> jax.Array:
    """() bool: whether all active losses are finite and not below zero.

    This is the domain of every rule that reads losses; outside it all weights are NaN.
    """
    # Comparisons are False for a NaN, where a maximum may drop it.
    return jnp.all(((losses >= 0) & (losses < jnp.inf)) | ~mask)


def raised_losses(losses: jax.Array, mask: jax.Array) -> jax.Array:
    """Losses (T,) that can divide and have a logarithm; NaN throughout where they are not valid.

    A loss of exactly zero has a gradient of zero, so any finite weight is right
    for it: it is raised to 1e-30 of the largest loss (or to the smallest normal
    number), far below every loss that still has a gradient.
    """
    largest = jnp.max(jnp.where(mask, losses, jnp.zeros_like(losses)))
    floor = jnp.maximum(largest * 1e-30, jnp.finfo(losses.dtype).tiny)
    raised = jnp.where(losses < floor, floor, losses)
    return jnp.where(valid_losses(losses, mask), raised, jnp.nan)


def softmax(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax over the active tasks, (T,): zero elsewhere, all zero when none is active."""
    logits = jnp.where(mask, logits, -jnp.inf)
    top = jnp.max(logits)
    below = logits - jnp.where(top == -jnp.inf, jnp.zeros_like(top), top)
    # Where the logits are products, fused with this difference they are not those that `top` is
    # of: large ones would come out above it, or all of them below. One of Inf is NaN.
    highest = (logits == top) & jnp.isfinite(top) | (below > 0)
    exps = jnp.exp(jnp.where(highest, jnp.zeros_like(below), below))
    total = jnp.sum(exps)
    return exps / one_for_zero(total)


def count(mask: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """How many tasks are active, at least one so that it can divide."""
    return jnp.maximum(jnp.sum(mask), 1).astype(dtype)
