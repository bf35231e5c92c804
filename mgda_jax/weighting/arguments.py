"""What the arguments of several rules have in common: their checks, and preferences as numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mgda_jax.tasks import check_hyperparameter, task_vector
from mgda_jax.weighting.unit_gramian import UnitGramian

PyTree = Any


def check_reduction(reduction: str, rule: str) -> None:
    """Raise ValueError unless the reduction is "sum" or "mean"."""
    if reduction not in ("sum", "mean"):
        raise ValueError(f"{rule}: reduction must be 'sum' or 'mean', got {reduction!r}")


def check_steps_per_epoch(steps_per_epoch: Any, rule: str) -> None:
    """Raise ValueError unless a concrete steps_per_epoch is a whole number, 1 or more."""
    check_hyperparameter(
        steps_per_epoch,
        lambda x: x >= 1 and float(x).is_integer(),
        f"{rule}: steps_per_epoch must be a whole number, 1 or more",
    )


def check_preference(preference: PyTree, rule: str, *, positive: bool = False) -> None:
    """ValueError unless a concrete preference is finite and ≥ 0 (or > 0), not all zero."""
    leaves = jax.tree.leaves(preference)
    if not leaves or any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    values = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves])
    low = values <= 0 if positive else values < 0
    if not np.all(np.isfinite(values)) or np.any(low) or not np.any(values):
        bound = "positive" if positive else "non-negative, not all zero"
        raise ValueError(f"{rule}: preference must be finite and {bound}, got {preference!r}")


def preference_vector(
    preference: PyTree, unit: UnitGramian, active: jax.Array | None, rule: str
) -> jax.Array:
    """The preference as (T,) numbers, ones by default, zero for inactive tasks."""
    return task_preference(preference, len(unit.norms), unit.norms.dtype, active, rule)


def task_preference(
    preference: PyTree, num_tasks: int, dtype: Any, active: jax.Array | None, rule: str
) -> jax.Array:
    """`preference_vector` where there is no `UnitGramian`."""
    vector = jnp.ones(num_tasks, dtype)
    if preference is not None:
        vector = task_vector(preference, num_tasks, f"{rule}: preference", dtype)
    return vector if active is None else jnp.where(active, vector, jnp.zeros_like(vector))
