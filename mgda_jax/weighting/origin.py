"""A rule remembers who made it: so it prints, pickles, and knows the names it was given."""

import dataclasses
import functools
import inspect
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Factory = TypeVar("Factory", bound=Callable[..., Any])
_factories: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """The call that made a rule, and the two functions it made."""

    factory: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    init: Callable[..., Any]
    update: Callable[..., Any]


def rule(factory: Factory) -> Factory:
    """Decorate a function that makes rules, so that they print and pickle as its calls.

    A dict among its arguments is taken for one value per task, and its names are compared
    with those of the losses.

    Args:
      factory: a module-level function that returns a `Weighting` or a `RowRule`.

    Returns:
      The same function; what it returns carries the call in its `origin`.

    Examples:
      A rule of one's own, w_t ∝ ‖g_t‖^(−p) over the active tasks:

      >>> import jax.numpy as jnp
      >>> from mgda_jax import Weighting, aggregate
      >>> from mgda_jax.weighting import active_gramian, check_hyperparameter, norms
      >>> @rule
      ... def inverse_norm(*, power=1.0):
      ...     check_hyperparameter(power, lambda p: p >= 0, "inverse_norm: power must be >= 0")
      ...     def update(state, *, gramian, active=None, **_):
      ...         size = norms(active_gramian(gramian, active))
      ...         share = jnp.where(size > 0, jnp.where(size > 0, size, 1.0) ** -power, 0.0)
      ...         return share / jnp.maximum(share.sum(), 1e-30), state
      ...     return Weighting(lambda num_tasks: (), update, reads=frozenset({"gramian"}))
      >>> inverse_norm(power=2.0)
      inverse_norm(power=2.0)
      >>> tx = aggregate(inverse_norm(), num_tasks=2)
      >>> params, rows = jnp.zeros(2), jnp.array([[3.0, 4.0], [0.0, 5.0]])
      >>> tx.update(rows, tx.init(params), params)[0]
      Array([1.5, 4.5], dtype=float32)

      The rules of this package print alike:

      >>> from mgda_jax.weighting import cr_mogm, min_norm
      >>> cr_mogm(min_norm(normalization="l2"), alpha=0.5)
      cr_mogm(min_norm(normalization='l2'), alpha=0.5)
    """
    carry = _carry

    def make(*args, **kwargs):
        return carry(factory(*args, **kwargs), own, args, kwargs)

    # With the factory's globals it counts as a function of the factory's module (for doctest).
    own = types.FunctionType(
        make.__code__, factory.__globals__, factory.__name__, None, make.__closure__
    )
    functools.update_wrapper(own, factory)
    _factories.add(own)
    return own  # pyright: ignore[reportReturnType]


def is_factory(thing: Any) -> bool:
    """Whether it is a function that `rule` decorates."""
    return isinstance(thing, types.FunctionType) and thing in _factories


def represent(self: Any) -> str:
    """The call that made the rule, or what it says of itself."""
    origin = _origin(self)
    if origin is None:
        return f"{type(self).__name__}(update={self.update!r}, reads={sorted(self.reads)})"
    arguments = [repr(value) for value in origin.args]
    arguments += [f"{name}={value!r}" for name, value in origin.kwargs.items()]
    return f"{origin.factory.__name__}({', '.join(arguments)})"


def reduce(self: Any) -> tuple[Any, ...]:
    """For pickle and copy: the call that made the rule, or the rule's fields."""
    origin = _origin(self)
    if origin is None:
        return type(self), tuple(self)
    return functools.partial(origin.factory, *origin.args, **origin.kwargs), ()


def named_arguments(rule: Any) -> dict[str, Mapping[str, Any]]:
    """What the rule, or one that it wraps, was given by the names of tasks: {where: value}."""
    if rule.origin is None:
        return {}
    call = inspect.signature(rule.origin.factory).bind(*rule.origin.args, **rule.origin.kwargs)
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in call.arguments.items():
        if isinstance(value, Mapping):
            found[f"{rule.origin.factory.__name__}: {name}"] = value
        elif isinstance(getattr(value, "origin", None), Origin):
            found |= named_arguments(value)
    return found


def _carry(made: Any, factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
    return made._replace(origin=Origin(factory, args, kwargs, made.init, made.update))


def _origin(self: Any) -> Origin | None:
    """The rule's origin, unless one of its functions was replaced since."""
    origin = self.origin
    same = origin and origin.init is self.init and origin.update is self.update
    return origin if same else None
