"""Smooth Tchebycheff scalarisation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_reduction, check_steps_per_epoch
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.losses import active_losses, count, raised_losses, softmax
from mgda_jax.weighting.origin import rule


class STCHState(NamedTuple):
    """State of `stch`.

    Attributes:
      step: () int32, updates so far.
      nadir: (T,) mean loss of each task over the nadir epoch so far.
      counts: (T,) int32, how many losses are in that mean.
    """

    step: jax.Array
    nadir: jax.Array
    counts: jax.Array


@rule
def stch(
    *,
    steps_per_epoch: int,
    warmup_epochs: int = 4,
    mu: float = 1.0,
    reduction: str = "sum",
) -> Weighting:
    """Smooth Tchebycheff scalarisation of the log losses, after a warm-up.

    For warmup_epochs + 1 epochs it is `scale_invariant`; the mean loss of each
    task over the last of them is its nadir. Then it descends
    μ log Σ_t exp(log(L_t / nadir_t) / μ): w_t = softmax(log(L / nadir) / μ)_t / L_t, times
    T for "sum", so that Σ_t w_t L_t is T before and after the switch. A task not
    seen in the nadir epoch has its current loss for a nadir. Losses must be
    positive, as in `scale_invariant`.

    Args:
      steps_per_epoch: updates in an epoch.
      warmup_epochs: epochs before the one that measures the nadir; 0 or more.
      mu: μ > 0; towards 0 it is the largest log ratio alone.
      reduction: "sum" (the authors' code, which multiplies by T) or "mean".

    Returns:
      Weighting of scope "all" that reads "losses".

    Raises:
      ValueError: an argument out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = stch(steps_per_epoch=1, warmup_epochs=0)
      >>> warm, state = rule.update(rule.init(2), losses=jnp.array([1.0, 1.0]))
      >>> weights, _ = rule.update(state, losses=jnp.array([1.0, 3.0]))
      >>> [round(float(w), 4) for w in weights]
      [0.5, 0.5]

    References:
      Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
      ICML 2024. Defaults of the authors' multi-task code.
    """
    check_reduction(reduction, "stch")
    check_steps_per_epoch(steps_per_epoch, "stch")
    check_hyperparameter(
        warmup_epochs,
        lambda x: x >= 0 and float(x).is_integer(),
        "stch: warmup_epochs must be a whole number, 0 or more",
    )
    check_hyperparameter(mu, lambda x: x > 0, "stch: mu must be positive")

    def init(num_tasks: int) -> STCHState:
        return STCHState(
            jnp.zeros((), jnp.int32), jnp.zeros(num_tasks), jnp.zeros(num_tasks, jnp.int32)
        )

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        steps = jnp.asarray(steps_per_epoch, jnp.int32)
        start = jnp.asarray(warmup_epochs, jnp.int32) * steps
        warming = state.step < start + steps
        measuring = warming & (state.step >= start) & mask

        positive = raised_losses(values, mask)
        known = (state.counts > 0) & mask
        nadir = raised_losses(jnp.where(known, state.nadir, values), mask)
        ratio = (jnp.log(positive) - jnp.log(nadir)) / jnp.asarray(mu, values.dtype)
        size = count(mask, values.dtype)
        smooth = size * softmax(ratio, mask)
        weights = jnp.where(warming, jnp.ones_like(smooth), smooth) / positive
        if reduction == "mean":
            weights = weights / size

        counts = jnp.where(measuring, state.counts + 1, state.counts)
        change = (values - state.nadir) / jnp.maximum(counts, 1).astype(values.dtype)
        mean = jnp.where(measuring, state.nadir + change, state.nadir)
        step = jnp.minimum(state.step, start + steps) + 1  # stops counting, so never overflows
        return jnp.where(mask, weights, jnp.zeros_like(weights)), STCHState(step, mean, counts)

    return Weighting(init, update, frozenset({"losses"}), "all")
