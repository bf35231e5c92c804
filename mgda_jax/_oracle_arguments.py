"""What the oracle asks of its options and of the arguments of a call."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mgda_jax.tasks import path_name
from mgda_jax.weighting.base import RowRule, Weighting

PyTree = Any
_MODES = ("representation", "parameters")
_INPUTS = ("shared", "per_task")


def check_options(
    weighting: Weighting | RowRule,
    mode: Any,
    inputs: Any,
    own_layout: Any,
    has_aux: Any,
    lean: Any,
) -> None:
    """ValueError for an unknown option, and for options that exclude each other."""
    for name, value in (("has_aux", has_aux), ("lean", lean)):
        if not isinstance(value, bool):
            raise ValueError(f"{name}: expected True or False, got {value!r}")
    for name, value, allowed in (
        ("mode", mode, _MODES),
        ("inputs", inputs, _INPUTS),
        ("own_layout", own_layout, (None, "stacked", "per_task")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}: expected one of {allowed}, got {value!r}")
    if mode == "representation" and isinstance(weighting, RowRule):
        raise ValueError("mode: a RowRule needs the rows themselves, expected 'parameters'")
    if mode == "representation" and inputs == "per_task":
        raise ValueError(
            "inputs: with a batch per task there is no common representation, expected "
            "mode='parameters'"
        )
    if lean and (
        mode == "representation" or inputs == "per_task" or isinstance(weighting, RowRule)
    ):
        raise ValueError("lean: applies to a Weighting in mode 'parameters' with shared inputs")


def check_keywords(extra: dict[str, Any], reads: frozenset[str]) -> None:
    """TypeError for a keyword argument that this rule does not read."""
    known = reads - {"gramian", "losses"}
    for name in extra:
        if name not in known:
            rest = "".join(f", {other}" for other in sorted(known))
            raise TypeError(
                f"oracle: unexpected keyword argument {name!r}; with this rule it takes "
                f"key, active, loss_scale{rest}"
            )


def check_floating(name: str, params: PyTree) -> None:
    """ValueError for a parameter without a gradient, by its path."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise ValueError(
                f"{name} at '{path_name(path)}': expected floating parameters, got "
                f"{jnp.result_type(leaf)}; what is not trained belongs to batch or to a closure"
            )


def check_loss_scale(loss_scale: Any) -> jax.Array | None:
    """The loss scale as an array, or a ValueError; a traced one is asked for its shape only."""
    if loss_scale is None:
        return None
    fits = jnp.ndim(loss_scale) == 0 and jnp.issubdtype(jnp.result_type(loss_scale), jnp.number)
    if fits and not isinstance(loss_scale, Tracer):
        fits = float(loss_scale) > 0 and float(loss_scale) < float("inf")
    if not fits:
        raise ValueError(f"loss_scale: expected a positive finite scalar, got {loss_scale!r}")
    return jnp.asarray(loss_scale).astype(jnp.zeros(()).dtype)
