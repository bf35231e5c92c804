"""What the arguments of several rules have in common: their checks, and preferences as numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mgda_jax.tasks import check_hyperparameter, task_vector
from mgda_jax.weighting.unit_gramian import UnitGramian

PyTree = Any


def active_mask(active: jax.Array | None, num_tasks: int) -> jax.Array:
    """(T,) bool, all true where active is None."""
    return jnp.ones(num_tasks, bool) if active is None else active


def check_choice(value: Any, allowed: Sequence[str], name: str) -> None:
    """Raise ValueError unless the value is one of the strings allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {tuple(allowed)}, got {value!r}")


def check_reduction(reduction: Any, rule: str) -> None:
    """Raise ValueError unless the reduction is "sum" or "mean"."""
    if not isinstance(reduction, str) or reduction not in ("sum", "mean"):
        raise ValueError(f"{rule}: reduction must be 'sum' or 'mean', got {reduction!r}")


def check_flag(value: Any, name: str) -> None:
    """Raise ValueError unless the value is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_each(value: PyTree, condition: Callable[[Any], Any], message: str) -> None:
    """ValueError unless all concrete numbers are real, finite, and meet the condition."""
    numbers = _numbers(value, message)
    if numbers is not None and not np.all(condition(numbers)):
        raise ValueError(f"{message}, got {value!r}")


def check_steps_per_epoch(steps_per_epoch: Any, rule: str) -> None:
    """Raise ValueError unless a concrete steps_per_epoch is a whole number, 1 or more."""
    check_hyperparameter(
        steps_per_epoch,
        lambda x: x >= 1 and float(x).is_integer(),
        f"{rule}: steps_per_epoch must be a whole number, 1 or more",
    )


def check_preference(preference: PyTree, rule: str, *, positive: bool = False) -> None:
    """ValueError unless a concrete preference is finite and ≥ 0 (or > 0), not all zero."""
    if preference is None:
        return
    bound = "positive" if positive else "non-negative, not all zero"
    check_each(
        preference,
        lambda x: np.all(x > 0) if positive else np.all(x >= 0) and np.any(x),
        f"{rule}: preference must be finite and {bound}",
    )


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


def _numbers(value: PyTree, message: str) -> np.ndarray | None:
    """The leaves as one float64 array; None where one is traced."""
    leaves = jax.tree.leaves(value)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return None
    arrays = [np.asarray(leaf) for leaf in leaves]
    kinds = (jnp.integer, jnp.floating)
    real = all(any(jnp.issubdtype(x.dtype, kind) for kind in kinds) for x in arrays)
    if arrays and real:
        numbers = np.concatenate([np.ravel(x).astype(np.float64) for x in arrays])
        if np.all(np.isfinite(numbers)):
            return numbers
    raise ValueError(f"{message}, got {value!r}")
