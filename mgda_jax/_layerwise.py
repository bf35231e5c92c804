"""The Gramian of T pullbacks that never holds all rows: a parameter's, then the next one's."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from mgda_jax._equations import LinearEquations, run, variables
from mgda_jax._gramian import Gramian, of_share
from mgda_jax._layer_product import Product, is_outer, is_product, product_of
from mgda_jax.gradients import over_tasks
from mgda_jax.mapped_axis import mean_over_axis, vary_like
from mgda_jax.products import (
    Share,
    accumulation_dtype,
    add_shares,
    headroom,
    leaf_share,
    no_share,
    real_parts,
    share_of_outer,
)

PyTree = Any

# Numbers in a block of a matrix's rows, all tasks together: it is to stay in a cache.
_BLOCK = 1 << 20


def layerwise_gramian(
    linear: LinearEquations,
    cotangents: list[jax.Array],
    active: jax.Array | None,
    axis_name: Any,
    gather: Callable[[jax.Array], jax.Array] | None = None,
) -> Gramian:
    """M_st = ⟨g_s, g_t⟩ of the pullbacks g_t of T cotangents.

    The backward pass runs an equation at a time, for all tasks at once. As soon as the
    cotangents of a parameter are complete they are its rows; what they add to M is kept,
    and they are not. The rows of a matrix that is used once, in a product, are formed and
    used up in blocks; where fewer examples than columns meet it, in the shorter form of
    `product_of`. What is live is the tasks' cotangents at one depth of the function.

    Args:
      linear: the function, its inputs the parameters.
      cotangents: of its outputs, leaves (T, *shape); (1, *shape) with gather.
      active: (T,) bool or None.
      axis_name: the mapped axis over which rows are means, or None.
      gather: where every task has a function of its own, and this is one of T mapped ones: an
        array of this task → those of all, (T, *shape).

    Returns:
      Gramian, equal to that of the stacked rows up to rounding.
    """
    num_tasks = len(cotangents[0] if gather is None else gather(cotangents[0][0]))
    avals = [var.aval for var in linear.inputs]
    dtype = accumulation_dtype(*(aval.dtype for aval in avals))
    room = headroom(sum(aval.size for aval in avals), dtype)

    def share_of(rows: jax.Array) -> Share:
        total = no_share(num_tasks, dtype)
        rows = mean_over_axis(rows, axis_name) if gather is None else gather(rows[0])
        for part in real_parts(rows, active):
            total = add_shares(total, leaf_share(part, dtype, room))
        return total

    params, total = set(linear.inputs), no_share(num_tasks, dtype)
    uses: dict[Any, int] = {}
    for var in [*(v for eqn in linear.equations for v in _inputs(eqn, linear)), *linear.outputs]:
        if not isinstance(var, core.Literal):
            uses[var] = uses.get(var, 0) + 1
    pulled: dict[Any, jax.Array] = {}

    def used(var: Any, cotangent: jax.Array | None) -> None:
        """Note one use of a variable; what is known of a parameter after the last goes into M."""
        nonlocal total
        uses[var] -= 1
        if cotangent is not None:
            pulled[var] = pulled[var] + cotangent if var in pulled else cotangent
        if var in params and not uses[var] and var in pulled:
            done(share_of(pulled.pop(var)))

    def done(share: Share) -> None:
        nonlocal total
        total = add_shares(total, share)
        # The layers below wait, or all parameters' rows might be there at once.
        for var, waiting in pulled.items():
            pulled[var] = jnp.where(_zero(total) > 0, jnp.zeros_like(waiting), waiting)

    for var, cotangent in zip(linear.outputs, cotangents, strict=True):
        if not isinstance(var, core.Literal) and var in linear.linear:
            used(var, cotangent)
    for equation in reversed(linear.equations):
        inputs = _inputs(equation, linear)
        seeds = [pulled.pop(var, None) for var in equation.outvars]
        if all(seed is None for seed in seeds):
            for var in inputs:
                used(var, None)
            continue
        seeds = [
            jnp.zeros((len(cotangents[0]), *var.aval.shape), var.aval.dtype)
            if seed is None
            else seed
            for var, seed in zip(equation.outvars, seeds, strict=True)
        ]
        alone = all(var in params and uses[var] == 1 and var not in pulled for var in inputs)
        if alone and is_product(equation, inputs):
            uses[inputs[0]] = 0
            whole = axis_name is None and gather is None
            product = product_of(equation, inputs[0], linear.known, seeds[0], whole)
            if gather is not None and is_outer(product):
                factors, outer = gather(product.factor.ravel()), gather(seeds[0].ravel())
                done(share_of_outer(factors, outer, active, dtype, room))
            else:
                done(_in_blocks(product, seeds[0], num_tasks, share_of, _zero(total)))
            continue
        found = _pull(equation, inputs, linear.known, seeds)
        for var, cotangent in zip(inputs, found, strict=True):
            used(var, cotangent)
    return of_share(total)


def _inputs(equation: Any, linear: LinearEquations) -> list[Any]:
    return [var for var in variables(equation) if var in linear.linear]


def _pull(equation: Any, inputs: list[Any], known: dict, seeds: list[jax.Array]) -> list[Any]:
    """The tasks' cotangents of an equation's linear inputs."""

    def forward(*values):
        env = known | dict(zip(inputs, values, strict=True))
        run([equation], env)
        return [env[var] for var in equation.outvars]

    def pull(seeds):
        return list(jax.linear_transpose(forward, *(var.aval for var in inputs))(seeds))

    # In a batch elementwise steps fuse and products are larger; convolutions have no such form.
    batched = equation.primitive.name != "conv_general_dilated"
    return over_tasks(pull, seeds, "vmap" if batched else None)


def _in_blocks(
    product: Product,
    seeds: jax.Array,
    num_tasks: int,
    share_of: Callable[[jax.Array], Share],
    zero: jax.Array,
) -> Share:
    """The share of a parameter in a product, from blocks of the dimension that is summed over."""
    own, other = product.dims
    shape = product.kind.shape
    length = shape[own]
    # Of about equal size: a block of one row would read every cotangent for little.
    blocks = min(length, -(-num_tasks * math.prod(shape) // _BLOCK))
    size = -(-length // blocks)

    def share(first: Any, size: int) -> Share:
        part = lax.dynamic_slice_in_dim(product.factor, first, size, other)
        kind = jax.ShapeDtypeStruct((*shape[:own], size, *shape[own + 1 :]), product.kind.dtype)

        def pull(seed):
            return jax.linear_transpose(lambda block: product.of(block, part), kind)(seed)[0]

        return share_of(_rows(pull, seeds, kind, zero))

    blocks = (length - 1) // size
    last = share(blocks * size, length - blocks * size)
    return lax.fori_loop(0, blocks, lambda i, sum: add_shares(sum, share(i * size, size)), last)


def _rows(
    pull: Callable[[jax.Array], jax.Array], seeds: jax.Array, kind: Any, zero: jax.Array
) -> jax.Array:
    """`pull` of every task's seed."""
    if jax.default_backend() != "cpu" or len(seeds) <= 4:
        return over_tasks(pull, seeds, None)
    # A loop over the tasks, as over_tasks has it, but its buffer waits for the layers above.
    start = jnp.broadcast_to(zero.astype(kind.dtype), (len(seeds), *kind.shape))
    start = vary_like(start, seeds)
    return lax.fori_loop(0, len(seeds), lambda t, rows: rows.at[t].set(pull(seeds[t])), start)


def _zero(total: Share) -> jax.Array:
    """Zero, not before the total is known: a square is not negative, but no compiler knows.

    (Barriers are taken out of a program before it is put in order.)
    """
    (high, _), _ = total
    return (high[0, 0] < 0).astype(high.dtype)
