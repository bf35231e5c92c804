"""A mode of the oracle: how the encoder is pulled back, what the rows are, how they combine."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax import partition
from mgda_jax._gramian import Gramian
from mgda_jax.gradients import vjp
from mgda_jax.mapped_axis import mean_over_axis
from mgda_jax.weighting.base import RowRule, Weighting

PyTree = Any


class Encoder(NamedTuple):
    """An encoder at one point, and the way it is pulled back.

    Attributes:
      zs: the representation, one copy per task: leaves (T, *shape), or `Ragged`.
      aux: encode's auxiliary output, or None.
      rows: `rows(dzs)`, of which the rule sees the Gramian: leaves (T, *shape).
      gramian: `gramian(rows, active)` of the whole batch.
      combine: `combine(dzs, rows, weights, active) -> gradient` of Σ_t w_t L_t; rows are None
        where nothing has asked for them. It is a mean over the mapped axis, where there is one.
    """

    zs: PyTree
    aux: Any
    rows: Callable[[PyTree], PyTree]
    gramian: Callable[[PyTree, jax.Array | None], Gramian]
    combine: Callable[..., PyTree]


@dataclasses.dataclass(frozen=True)
class Mode(abc.ABC):
    """What `multitask_value_and_grad` takes as mode: `Representation`, `Exact`, `PerTask`, …"""

    def check_rule(self, weighting: Weighting | RowRule) -> None:
        """ValueError for a rule that reads what this mode does not form."""
        del weighting  # unless a mode says otherwise, every rule will do

    def check_batch(self, batch: PyTree, losses: PyTree) -> None:
        """ValueError for a batch that does not fit the losses."""
        del batch, losses  # and every batch

    @abc.abstractmethod
    def at(
        self,
        encode: Callable[..., Any],
        shared: PyTree,
        batch: PyTree,
        *,
        num_tasks: int,
        has_aux: bool,
        axis_name: Any,
    ) -> Encoder:
        """One forward pass of the encoder; arguments as in `multitask_value_and_grad`."""


def one_forward(
    encode: Callable[..., Any],
    shared: PyTree,
    batch: PyTree,
    num_tasks: int,
    has_aux: bool,
    axis_name: Any,
) -> tuple[PyTree, Callable[[PyTree], PyTree], Any]:
    """One copy of z per task, the pullback of one cotangent to the shared parameters, and aux."""
    z, pull, aux = vjp(lambda p: encode(p, batch), shared, has_aux=has_aux)
    zs = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_tasks, *jnp.shape(leaf))), z)
    return zs, reduced(pull, axis_name), aux


def reduced(pull: Callable[[PyTree], tuple], axis_name: Any) -> Callable[[PyTree], PyTree]:
    """The pullback of the whole batch: reduced before any Gramian, which is quadratic."""
    return lambda dz: mean_over_axis(pull(dz)[0], axis_name)


class FloatLeaves(NamedTuple):
    """An encoder between lists of leaves, its z without what has no derivative.

    Attributes:
      forward: `forward(leaves of shared, batch) -> (floats of z, (other leaves of z, aux))`.
      join: `join(floats, others) -> z`, once forward has been traced.
      rows: `rows(dzs)`: the floats of a tree like z.
    """

    forward: Callable[[list, PyTree], tuple[list, tuple[list, Any]]]
    join: Callable[[list, list], PyTree]
    rows: Callable[[PyTree], list]


def on_float_leaves(encode: Callable[..., Any], treedef: Any, has_aux: bool) -> FloatLeaves:
    """`encode(shared, batch)` for shared of treedef, as `FloatLeaves`."""
    form: list[Any] = []

    def forward(leaves: list, batch: PyTree) -> tuple[list, tuple[list, Any]]:
        out = encode(jax.tree.unflatten(treedef, leaves), batch)
        z, aux = out if has_aux else (out, None)
        z_leaves, z_treedef = jax.tree.flatten(z)
        is_float = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in z_leaves]
        form[:] = [z_treedef, is_float]
        floats, others = partition.split(z_leaves, is_float)
        return floats, (others, aux)

    def join(floats: list, others: list) -> PyTree:
        z_treedef, is_float = form
        return partition.merge(z_treedef, floats, others, is_float)

    def rows(dzs: PyTree) -> list:
        return partition.split(jax.tree.leaves(dzs), form[1])[0]

    return FloatLeaves(forward, join, rows)
