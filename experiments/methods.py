"""Methods by name: every rule of the weighting package, single task, and a weight grid."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.errors import ExperimentError
from mgda_jax import RowRule, Weighting, weighting

_ALIASES = {"mgda": "min_norm"}
_UB = "_ub"
_STEPS = "steps_per_epoch"  # of rules that change by the epoch
_SPEC = re.compile(r"^(\w+)(?:\((.*)\))?$", re.DOTALL)


class MethodError(ExperimentError):
    """A method that does not exist or does not take the options given."""


class Variant(NamedTuple):
    """One of the trainings a method consists of.

    Attributes:
      name: "" where a method has only one.
      coefficients: (T,) static loss weights, read by `single` and `grid` only.
      scored: (T,) bool, the tasks by which it is selected and reported.
    """

    name: str
    coefficients: np.ndarray
    scored: np.ndarray


@dataclasses.dataclass(frozen=True)
class Method:
    """A way of training all tasks.

    Attributes:
      spec: as on the command line.
      variants: what is trained for it.
      rule: `rule(coefficients) -> Weighting or RowRule`; coefficients may be traced.
      mode: of the gradient oracle, "parameters" or "representation".
    """

    spec: str
    variants: tuple[Variant, ...]
    rule: Callable[[jax.Array], Weighting | RowRule]
    mode: str


def rule_names() -> list[str]:
    """The rules of the weighting package that need no argument but what a trainer knows."""
    names = []
    for name in dir(weighting):
        factory = getattr(weighting, name)
        if name.startswith("_") or not inspect.isfunction(factory):
            continue
        returned = inspect.signature(factory).return_annotation
        required = [
            p for p in _parameters(factory).values() if p.default is inspect.Parameter.empty
        ]
        if returned in (Weighting, RowRule) and not required:
            names.append(name)
    return names


def method_names() -> list[str]:
    """All names that `parse_methods` knows, for help texts."""
    return ["single", "grid", "mgda", "mgda_ub", *rule_names()]


def parse_methods(
    text: str, tasks: Sequence[str], grid: int, steps_per_epoch: int
) -> tuple[Method, ...]:
    """Methods from a comma-separated list such as "uniform,mgda_ub(normalization=l2)".

    A name is `single` (one model per task), `grid` (static weights), or a rule of
    `mgda_jax.weighting`, its keyword options in parentheses. `mgda` is `min_norm`; the
    suffix `_ub` gives the rule the gradients of the representation.

    Args:
      text: the list.
      tasks: the tasks' names.
      grid: number of weight vectors in `grid` (two tasks only).
      steps_per_epoch: given to the rules that change by the epoch.

    Returns:
      One Method an entry.

    Raises:
      MethodError: an unknown name or option, a method named twice.

    Examples:
      >>> methods = parse_methods("uniform,mgda,mgda_ub(method=exact)", ["a", "b"], 9, 100)
      >>> [method.mode for method in methods]
      ['parameters', 'parameters', 'representation']
    """
    specs = [spec.strip() for spec in re.split(r",(?![^(]*\))", text)]
    if len(set(specs)) != len(specs):
        raise MethodError(f"--methods: a method is named twice in {text!r}")
    return tuple(_parse_method(spec, tasks, grid, steps_per_epoch) for spec in specs)


def _parse_method(spec: str, tasks: Sequence[str], grid: int, steps_per_epoch: int) -> Method:
    match = _SPEC.match(spec)
    if match is None:
        raise MethodError(f"--methods: cannot read {spec!r}; expected name or name(option=value)")
    name, options = match[1], _parse_options(spec, match[2] or "")
    num_tasks = len(tasks)
    if name in ("single", "grid"):
        if options:
            raise MethodError(f"--methods: {name} takes no options, got {spec!r}")
        variants = _single(tasks) if name == "single" else _grid(num_tasks, grid)
        return Method(spec, variants, weighting.fixed, "parameters")
    mode = "representation" if name.endswith(_UB) else "parameters"
    rule_name = name.removesuffix(_UB)
    rule_name = _ALIASES.get(rule_name, rule_name)
    if rule_name not in rule_names():
        raise MethodError(
            f"--methods: no method {name!r}; expected one of {', '.join(method_names())}, "
            f"gradient rules also with the suffix {_UB}"
        )
    factory = getattr(weighting, rule_name)
    unknown = set(options) - set(_parameters(factory))
    if unknown:
        raise MethodError(
            f"--methods: {name} takes the options {', '.join(_parameters(factory)) or 'none'}; "
            f"got {', '.join(sorted(unknown))}"
        )
    if _STEPS in _parameters(factory):
        options = {_STEPS: steps_per_epoch, **options}
    try:
        made = factory(**options)
    except ValueError as error:
        raise MethodError(f"--methods: {error}") from None
    if mode == "representation" and isinstance(made, RowRule):
        raise MethodError(f"--methods: {rule_name} needs the gradients themselves, not {name}")
    everything = Variant("", np.ones(num_tasks, np.float32), np.ones(num_tasks, bool))
    return Method(spec, (everything,), lambda _: factory(**options), mode)


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(factory).parameters)


def _parse_options(spec: str, text: str) -> dict[str, Any]:
    options = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise MethodError(f"--methods: expected option=value in {spec!r}, got {item!r}")
        try:
            options[key.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            options[key.strip()] = value.strip()  # a bare word: normalization=l2
    return options


def _single(tasks: Sequence[str]) -> tuple[Variant, ...]:
    # The loss of one task alone: the other heads get no gradient and the encoder only this one's.
    one_hot = np.eye(len(tasks), dtype=np.float32)
    return tuple(Variant(task, one_hot[t], one_hot[t].astype(bool)) for t, task in enumerate(tasks))


def _grid(num_tasks: int, size: int) -> tuple[Variant, ...]:
    if num_tasks != 2:
        raise MethodError(f"--methods: grid is a grid over two tasks, here are {num_tasks}")
    first = np.linspace(0, 1, size + 2, dtype=np.float32)[1:-1]
    both = np.ones(2, bool)
    return tuple(
        Variant(f"{c:.2f}/{1 - c:.2f}", np.array([c, 1 - c], np.float32), both) for c in first
    )
