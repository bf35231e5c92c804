"""The two contracts every rule is written against: Weighting and RowRule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

PyTree = Any
State = Any


class Weighting(NamedTuple):
    """A rule w = f(M, L, history): task weights from what it says it reads.

    The update direction is Σ_t w_t g_t; the rule never sees the rows g_t, so it
    runs on any Gramian: of shared parameters, of a representation, of one layer.

    Attributes:
      init: `init(num_tasks) -> state`. State is a NamedTuple of arrays (PRNG keys
        included), floats in JAX's default float dtype, finite.
      update: `update(state, *, gramian=None, losses=None, key=None, active=None,
        **extra) -> (weights, state)`. gramian is a `Gramian` (or a raw (T, T)
        array), losses (T,), active (T,) bool or None, weights (T,). With `active`
        the weights are those of the rule on the active sub-Gramian, zero
        elsewhere; inactive entries of gramian and losses may hold anything,
        NaN included. `key` replaces the draw from the state's own key.
      reads: which of "gramian", "losses" (or another extra argument's name, such
        as "cross_gramian") `update` needs; what no rule reads is never computed.
      scope: "shared" when the weights combine gradients of shared parameters only
        (gradient rules), "all" when they weigh the losses themselves, heads included.
    """

    init: Callable[[int], State]
    update: Callable[..., tuple[jax.Array, State]]
    reads: frozenset[str] = frozenset({"gramian"})
    scope: str = "shared"


class RowRule(NamedTuple):
    """A rule d = f(G, history) that needs the rows themselves (stacked mode only).

    Attributes:
      init: `init(params, num_tasks) -> state`, params being the shared parameters
        (leaves without a task axis; None where a leaf is not shared).
      update: `update(state, rows, *, losses=None, key=None, active=None, **extra)
        -> (direction, state)`: rows leaves (T, *shape), direction leaves shape.
      reads: extra arguments `update` needs, as in `Weighting`.
      scope: "shared" or "all", as in `Weighting`.
    """

    init: Callable[[PyTree, int], State]
    update: Callable[..., tuple[PyTree, State]]
    reads: frozenset[str] = frozenset()
    scope: str = "shared"
