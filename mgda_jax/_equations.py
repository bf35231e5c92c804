"""A linear function as JAX's equations, to be pulled back piece by piece."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend import core


class LinearEquations(NamedTuple):
    """The equations through which the inputs reach the outputs.

    Attributes:
      inputs: the variables of the inputs.
      outputs: those of the outputs, or literals.
      equations: what depends on an input, in order; a jit inside is inlined.
      linear: the variables that depend on an input.
      known: the values of all others, by variable.
    """

    inputs: list[Any]
    outputs: list[Any]
    equations: list[Any]
    linear: set[Any]
    known: dict[Any, Any]


def linear_equations(fun: Callable[..., list[Any]], *leaves: jax.Array) -> LinearEquations:
    """The equations of `fun(*leaves) -> list of arrays`, linear in its arguments."""
    staged = jax.make_jaxpr(fun)(*leaves)
    closed = jax.make_jaxpr(functools.partial(_inlined, staged))(*leaves)
    jaxpr: Any = closed.jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    linear, equations = set(jaxpr.invars), []
    for equation in jaxpr.eqns:
        if any(var in linear for var in variables(equation)):
            linear.update(equation.outvars)
            equations.append(equation)
        else:
            run([equation], known)
    return LinearEquations(jaxpr.invars, jaxpr.outvars, equations, linear, known)


def _inlined(closed: Any, *args: Any) -> list[Any]:
    """The function of a jaxpr without jit inside: a jit of all losses would tie them."""
    env = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    env |= dict(zip(closed.jaxpr.invars, args, strict=True))
    run(closed.jaxpr.eqns, env)
    return [value(var, env) for var in closed.jaxpr.outvars]


def run(equations: Sequence[Any], env: dict[Any, Any]) -> None:
    """Evaluate the equations, values by variable in env."""
    for equation in equations:
        values = [value(var, env) for var in equation.invars]
        if equation.primitive.name == "jit":
            out = _inlined(equation.params["jaxpr"], *values)
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # jax < 0.10.2
            with equation.ctx.manager:
                out = equation.primitive.bind(*functions, *values, **params)
            out = out if equation.primitive.multiple_results else [out]
        env.update(zip(equation.outvars, out, strict=True))


def variables(equation: Any) -> list[Any]:
    """What the equation reads, literals left out."""
    return [var for var in equation.invars if not isinstance(var, core.Literal)]


def value(var: Any, env: dict[Any, Any]) -> Any:
    """That of a variable or a literal."""
    return var.val if isinstance(var, core.Literal) else env[var]
