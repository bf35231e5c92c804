"""A linearised function to T losses, cut where the tasks part: one head a task, and a trunk.

A pullback with a cotangent of zeros for the other tasks still runs their backward passes, and
zero times NaN is NaN. So every head is pulled back alone, for its own loss, and what all of them
read of the trunk is pulled back once a task.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from mgda_jax._equations import linear_equations, run, variables
from mgda_jax._own import scale_own
from mgda_jax.mapped_axis import varying_axes, varying_axes_of_type

PyTree = Any


class Parted(NamedTuple):
    """The pullbacks of T losses.

    Attributes:
      cotangents: of what the heads read of the trunk, leaves (T, *shape): a row per task.
      pull_trunk: `pull_trunk(cotangents of one row) -> (shared, own)`, lists of leaves.
      own: one list per task, of what its head alone gives every own leaf; None for nothing.
      trunk_reads_own: whether an own leaf is read before the tasks part.
    """

    cotangents: list[jax.Array]
    pull_trunk: Callable[[list[jax.Array]], tuple[list[jax.Array], list[jax.Array]]]
    own: list[list[jax.Array | None]]
    trunk_reads_own: bool


def own_gradients(parted: Parted, own: list[Any], active: jax.Array | None) -> list[jax.Array]:
    """Σ_t ∂L_t of every own leaf, the inactive tasks left out: selected, they may hold NaN."""
    totals = [jnp.zeros_like(leaf) for leaf in own]
    if parted.trunk_reads_own:
        together = [
            functools.reduce(
                jnp.add, [scale_own(row, t, None, active) for t, row in enumerate(rows)]
            )
            for rows in parted.cotangents
        ]
        totals = parted.pull_trunk(together)[1]
    for task, of_task in enumerate(parted.own):
        totals = [
            total if leaf is None else total + scale_own(leaf, task, None, active)
            for total, leaf in zip(totals, of_task, strict=True)
        ]
    return totals


def part(lin: Callable[..., Any], shared: list[Any], own: list[Any], num_tasks: int) -> Parted:
    """Cut `lin(shared, own) -> losses`, a linear function of floating leaves."""

    def flat(*leaves):
        return jax.tree.leaves(lin(list(leaves[: len(shared)]), list(leaves[len(shared) :])))

    invars, outvars, equations, linear, known = linear_equations(flat, *shared, *own)
    ends, seeds = _ends(outvars, equations, num_tasks)

    # A set of tasks is an int, a bit each.
    readers: dict[Any, int] = {}
    for task, end in enumerate(ends):
        if not isinstance(end, core.Literal) and end in linear:
            readers[end] = readers.get(end, 0) | 1 << task
    heads: list[list[Any]] = [[] for _ in range(num_tasks)]
    trunk: list[Any] = []
    for equation in reversed(equations):
        tasks = 0
        for var in equation.outvars:
            tasks |= readers.get(var, 0)
        if not tasks:
            continue
        alone = tasks & (tasks - 1) == 0
        (heads[tasks.bit_length() - 1] if alone else trunk).insert(0, equation)
        for var in variables(equation):
            if var in linear:
                readers[var] = readers.get(var, 0) | tasks

    pulled = [
        _pull_head(head, end, seed, linear, known)
        for head, end, seed in zip(heads, ends, seeds, strict=True)
    ]
    own_vars = dict.fromkeys(invars[len(shared) :])
    read = dict.fromkeys(var for p in pulled for var in p)
    border = [var for var in read if var not in own_vars]
    cotangents = [
        jnp.stack([p[var] if var in p else _zeros(var, pulled) for p in pulled]) for var in border
    ]

    def forward(*leaves):
        env = known | dict(zip(invars, leaves, strict=True))
        run(trunk, env)
        return [env[var] for var in border]

    def pull_trunk(row):
        pull = jax.linear_transpose(forward, *(var.aval for var in invars))
        leaves = list(pull(row))
        return leaves[: len(shared)], leaves[len(shared) :]

    read = {var for equation in trunk for var in variables(equation)}
    by_task = [[p.get(var) for var in own_vars] for p in pulled]
    return Parted(cotangents, pull_trunk, by_task, any(var in read for var in own_vars))


def _ends(outvars: list[Any], equations: list[Any], num_tasks: int) -> tuple[list, list]:
    """Every loss's variable, and its cotangent; one of a stack of scalars is looked up."""
    if len(outvars) == num_tasks and outvars[0].aval.ndim == 0:
        return outvars, [_one(var) for var in outvars]
    (vector,) = outvars
    last = {var: equation for equation in equations for var in equation.outvars}.get(vector)
    if last is not None and last.primitive.name in ("stack", "concatenate"):
        if len(last.invars) == num_tasks:
            return list(last.invars), [_one(var) for var in last.invars]
    one_hot = jnp.eye(num_tasks, dtype=vector.aval.dtype)
    return [vector] * num_tasks, [_like(one_hot[task], vector) for task in range(num_tasks)]


def _pull_head(head: list[Any], end: Any, seed: jax.Array, linear: set, known: dict) -> dict:
    """Cotangents of the variables that one task's equations read, by variable."""
    if isinstance(end, core.Literal) or end not in linear:
        return {}  # the loss is a constant
    made = {var for equation in head for var in equation.outvars}
    read = [var for equation in head for var in variables(equation)] + [end]
    border = [var for var in dict.fromkeys(read) if var in linear and var not in made]

    def forward(*values):
        env = known | dict(zip(border, values, strict=True))
        run(head, env)
        return env[end]

    pulled = jax.linear_transpose(forward, *(var.aval for var in border))(seed)
    return dict(zip(border, pulled, strict=True))


def _one(var: Any) -> jax.Array:
    return _like(jnp.ones(var.aval.shape, var.aval.dtype), var)


def _zeros(var: Any, pulled: list[dict]) -> jax.Array:
    return jnp.zeros_like(next(p[var] for p in pulled if var in p))


def _like(value: jax.Array, var: Any) -> jax.Array:
    """The value, marked as varying over the mapped axes that the variable varies over."""
    missing = varying_axes_of_type(var.aval) - varying_axes(value)
    return jax.lax.pcast(value, tuple(missing), to="varying") if missing else value
