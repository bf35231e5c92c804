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

    Args:
      factory: a module-level function that returns a `Weighting` or a `RowRule`.

    Returns:
      The same function; what it returns carries the call in its `origin`.

    Examples:
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
