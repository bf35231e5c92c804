"""Methods by name: every rule of the weighting package, single task, and a weight grid."""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import ExperimentError, first_line
from mgda_jax import RowRule, Weighting, weighting
from mgda_jax.oracle import ModeName

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
    mode: ModeName


def rule_names() -> list[str]:
    """The rules of the weighting package that can be named alone."""
    return [name for name, needs in _rules().items() if needs <= {_STEPS}]


def _rules() -> dict[str, set[str]]:
    """Every factory of the weighting package, and the arguments it cannot do without."""
    rules = {}
    for name in dir(weighting):
        factory = getattr(weighting, name)
        if name.startswith("_") or not inspect.isfunction(factory):
            continue
        if inspect.signature(factory).return_annotation in (Weighting, RowRule):
            required = [k for k, p in _parameters(factory).items() if p.default is p.empty]
            rules[name] = set(required)
    return rules


def method_names() -> list[str]:
    """All names that `parse_methods` knows, for help texts."""
    return ["single", "grid", "mgda", "mgda_ub", *rule_names()]


def _all(num_tasks: int) -> list[str]:
    """What "all" stands for; the rules that need an argument get the plainest one.

    Left out are those that need more tasks than there are.
    """
    named = (name for name in rule_names() if name not in ("min_norm", "mgda", "mgda_ub"))
    rules = [name for name in named if _fits(name, num_tasks)]
    return ["single", *rules, "cr_mogm(weighting=min_norm)", "mgda", "mgda_ub"]


@functools.cache
def _fits(name: str, num_tasks: int) -> bool:
    try:
        check_rule(name, _make_rule(name, {}, steps_per_epoch=1), num_tasks)
    except MethodError:
        return False
    return True


def parse_methods(
    text: str, tasks: Sequence[str], grid: int, steps_per_epoch: int
) -> tuple[Method, ...]:
    """Methods from a comma-separated list such as "uniform,mgda_ub(normalization=l2)".

    A name is `single` (one model per task), `grid` (static weights), or a rule of
    `mgda_jax.weighting`, its keyword options in parentheses. `mgda` is `min_norm`; the
    suffix `_ub` gives the rule the gradients of the representation. `all` stands for
    `single`, every rule with its defaults that takes so many tasks, and `mgda_ub`.

    Args:
      text: the list.
      tasks: the tasks' names.
      grid: number of weight vectors in `grid`: evenly spaced for two tasks, drawn evenly from
        the simplex, always the same ones, for more.
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
    specs = split_methods(text, len(tasks))
    if len(set(specs)) != len(specs):
        raise MethodError(f"--methods: a method is named twice in {text!r}")
    return tuple(_parse_method(spec, tasks, grid, steps_per_epoch) for spec in specs)


def split_methods(text: str, num_tasks: int) -> list[str]:
    """The entries of a list of methods, what `all` stands for in its place."""
    entries = ([entry] if entry != "all" else _all(num_tasks) for entry in _split(text))
    return list(itertools.chain.from_iterable(entries))


def _parse_method(spec: str, tasks: Sequence[str], grid: int, steps_per_epoch: int) -> Method:
    name, options = _parse_spec(spec)
    num_tasks = len(tasks)
    if name in ("single", "grid"):
        if options:
            raise MethodError(f"--methods: {name} takes no options, got {spec!r}")
        variants = _single(tasks) if name == "single" else _grid(num_tasks, grid)
        return Method(spec, variants, weighting.fixed, "parameters")
    rule_name = name.removesuffix(_UB)
    rule = _make_rule(rule_name, options, steps_per_epoch)
    check_rule(spec, rule, num_tasks)
    if name != rule_name and ("gramian" not in rule.reads or isinstance(rule, RowRule)):
        raise MethodError(f"--methods: {rule_name} reads no Gramian, so there is no {name}")
    mode: ModeName = "parameters" if name == rule_name else "representation"
    everything = Variant("", np.ones(num_tasks, np.float32), np.ones(num_tasks, bool))
    return Method(spec, (everything,), lambda _: rule, mode)


def check_rule(spec: str, rule: Weighting | RowRule, num_tasks: int) -> None:
    """Raise MethodError where the rule cannot be started, or make a step, with so many tasks."""
    row, square = jnp.ones(num_tasks), jnp.eye(num_tasks)
    known = {"losses": row, "previous_losses": row, "gramian": square, "cross_gramian": square}
    given = {name: value for name, value in known.items() if name in rule.reads}

    def step() -> Any:
        if isinstance(rule, RowRule):
            return rule.update(rule.init(row, num_tasks), square, **given)
        return rule.update(rule.init(num_tasks), **given)

    try:
        weights = jax.eval_shape(step)[0]
        if isinstance(rule, Weighting) and weights.shape != row.shape:
            raise ValueError(f"expected {num_tasks} weights, got shape {weights.shape}")
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise MethodError(f"--methods: {spec}: {first_line(error)}") from error


def _make_rule(name: str, options: dict[str, str], steps_per_epoch: int) -> Weighting | RowRule:
    rules = _rules()
    rule_name = _ALIASES.get(name, name)
    if rule_name not in rules:
        raise MethodError(
            f"--methods: no method {name!r}{_meant(name, method_names())}; expected one of "
            f"{', '.join(method_names())}; those that read the Gramian also with the suffix {_UB}"
        )
    factory = getattr(weighting, rule_name)
    known = _parameters(factory)
    if unknown := set(options) - set(known):
        raise MethodError(
            f"--methods: {name} takes the options {', '.join(known) or 'none'}; "
            f"got {', '.join(sorted(unknown))}{_meant(min(unknown), known)}"
        )
    given = {key: _value(key, text, steps_per_epoch) for key, text in options.items()}
    if _STEPS in known:
        given = {_STEPS: steps_per_epoch, **given}
    if missing := rules[rule_name] - set(given):
        raise MethodError(
            f"--methods: {name} needs {', '.join(sorted(missing))}, as in "
            f"{name}({min(missing)}=...)"
        )
    try:
        return factory(**given)
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise MethodError(f"--methods: {name}: {first_line(error)}") from error


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.removesuffix(_UB), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _value(key: str, text: str, steps_per_epoch: int) -> Any:
    if key == "weighting":  # of a rule that wraps another one
        return _make_rule(*_parse_spec(text), steps_per_epoch)
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text  # a bare word: normalization=l2


def _parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    match = _SPEC.match(spec)
    if match is None:
        raise MethodError(f"--methods: cannot read {spec!r}; expected name or name(option=value)")
    options = {}
    for item in _split(match[2]) if match[2] else ():
        key, equals, value = item.partition("=")
        if not equals:
            raise MethodError(f"--methods: expected option=value in {spec!r}, got {item!r}")
        options[key.strip()] = value.strip()
    return match[1], options


def _split(text: str) -> list[str]:
    """The parts between commas that are outside all parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(factory).parameters)


def _single(tasks: Sequence[str]) -> tuple[Variant, ...]:
    # The loss of one task alone: the other heads get no gradient and the encoder only this one's.
    one_hot = np.eye(len(tasks), dtype=np.float32)
    return tuple(Variant(task, one_hot[t], one_hot[t].astype(bool)) for t, task in enumerate(tasks))


def _grid(num_tasks: int, size: int) -> tuple[Variant, ...]:
    if num_tasks == 2:
        first = np.linspace(0, 1, size + 2)[1:-1]
        weights = np.stack([first, 1 - first], axis=1)
        names = [f"{a:.2f}/{b:.2f}" for a, b in weights]
    else:  # a lattice over more tasks has too many points: that many random ones instead
        weights = np.random.default_rng(0).dirichlet(np.ones(num_tasks), size)
        names = [f"draw {i}" for i in range(1, size + 1)]
    every = np.ones(num_tasks, bool)
    rows = weights.astype(np.float32)
    return tuple(Variant(name, row, every) for name, row in zip(names, rows, strict=True))
