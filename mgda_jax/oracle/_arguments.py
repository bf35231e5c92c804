"""What the oracle asks of its options and of the arguments of a call."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mgda_jax.oracle._exact import Exact
from mgda_jax.oracle._modes import Mode
from mgda_jax.oracle._per_task import PerTask
from mgda_jax.oracle._representation import Representation
from mgda_jax.tasks import path_name

PyTree = Any
ModeName = Literal["representation", "exact", "parameters", "per_task"]
OwnLayout = Literal["stacked", "per_task"]
_MODES: dict[str, Callable[[], Mode]] = {
    "representation": Representation,
    "exact": Exact,
    "parameters": Exact,
    "per_task": PerTask,
}


def as_mode(mode: Any) -> Mode:
    """The mode that a name is short for, or the mode itself."""
    if isinstance(mode, Mode):
        return mode
    if not isinstance(mode, str) or mode not in _MODES:
        raise ValueError(
            f"mode: expected one of {tuple(_MODES)} or a mode such as {Exact('map')}, got {mode!r}"
        )
    return _MODES[mode]()


def check_options(own_layout: Any, has_aux: Any) -> None:
    """ValueError for an unknown option."""
    if not isinstance(has_aux, bool):
        raise ValueError(f"has_aux: expected True or False, got {has_aux!r}")
    allowed = (None, *get_args(OwnLayout))
    if own_layout not in allowed:
        raise ValueError(f"own_layout: expected one of {allowed}, got {own_layout!r}")


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
