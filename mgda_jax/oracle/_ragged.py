"""Representations of the tasks that need not stack."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Ragged(NamedTuple):
    """What decode reads where the tasks' representations do not stack.

    Attributes:
      parts: T pytrees in task order.
    """

    parts: tuple[PyTree, ...]


def stack_or_ragged(parts: list[PyTree]) -> PyTree:
    """One pytree with leaves (T, *shape) where the parts are of one kind, else `Ragged`."""
    kinds = [
        (jax.tree.structure(part), [(jnp.shape(x), jnp.result_type(x)) for x in leaves])
        for part, leaves in ((part, jax.tree.leaves(part)) for part in parts)
    ]
    if any(kind != kinds[0] for kind in kinds):
        return Ragged(tuple(parts))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)


def part(zs: PyTree, task: int) -> PyTree:
    """The part of one task."""
    return zs.parts[task] if isinstance(zs, Ragged) else jax.tree.map(lambda x: x[task], zs)
