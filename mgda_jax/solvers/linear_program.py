"""Linear programs over the simplex with a few more constraints, solved exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.solvers.linear_algebra import matvec

# In units of eps: what counts as violated, and what is too small to divide by.
_VIOLATION = 8
_PIVOT = 64


class LPSolution(NamedTuple):
    """A maximiser and what is left of the constraints.

    Attributes:
      x: (T,) on the simplex.
      residual: () by how much the worst constraint is violated, 0 where none is.
      steps: () int32 pivots.
    """

    x: jax.Array
    residual: jax.Array
    steps: jax.Array


class _Table(NamedTuple):
    """Basic variables and, last, the objective as affine functions of the non-basic ones."""

    entries: jax.Array  # (R + 2, T + 1), the last column the constants
    basic: jax.Array  # (R + 1,) labels: x_t is t, slack r is T + r, Σ x − 1 is T + R
    other: jax.Array  # (T,) labels


@jax.jit
def simplex_program(
    objective: jax.Array, rows: jax.Array, bounds: jax.Array, mask: jax.Array
) -> LPSolution:
    """argmax hᵀx over x ≥ 0, Σ x = 1, x_t = 0 outside the mask, subject to Ax ≥ b.

    The dual simplex method: without the constraints the best vertex is the largest h_t, which
    is dual feasible, so there is no first phase; then the most violated variable leaves. Ends
    at a vertex that is exact up to the rounding of its pivots, or where no pivot mends a
    violation: the residual says by how much the program has no solution.

    Args:
      objective: h, (T,).
      rows: A, (R, T), entries of order one or less.
      bounds: b, (R,).
      mask: (T,) bool; an empty one gives zeros.

    Returns:
      LPSolution. NaN or Inf in, NaN out.

    References:
      Lemke, "The dual method of solving the linear programming problem", 1954.
    """
    size, count = len(objective), len(bounds)
    finite = jnp.all(jnp.isfinite(rows)) & jnp.all(jnp.isfinite(bounds))
    finite &= jnp.all(jnp.isfinite(objective))
    rows = jnp.where(mask[None, :], rows, jnp.zeros_like(rows))
    tolerance = _VIOLATION * size * jnp.finfo(rows.dtype).eps
    # Exact, and the reduced costs are then of order one.
    peak = jnp.max(jnp.abs(objective))
    costs = objective / jnp.where(peak == 0, jnp.ones_like(peak), peak)
    top = jnp.concatenate([rows, -bounds[:, None]], axis=1)
    sums = jnp.append(mask.astype(rows.dtype), -jnp.ones((), rows.dtype))
    last = jnp.append(jnp.where(mask, costs, 0), jnp.zeros((), rows.dtype))
    table = _Table(
        jnp.concatenate([top, sums[None], last[None]]),
        size + jnp.arange(count + 1),
        jnp.arange(size),
    )
    first = jnp.argmax(jnp.where(mask, costs, -jnp.inf))
    table = _pivot(table, jnp.asarray(count), first)
    barred = size + count
    most = 4 * (size + count) + 16

    def choose(table):
        constants = table.entries[:-1, -1]
        leaving = jnp.argmin(constants)
        row = table.entries[leaving, :-1]
        allowed = (row > _PIVOT * jnp.finfo(row.dtype).eps) & (table.other != barred)
        # Inactive variables have columns of zeros, which are never allowed. Of prices that are
        # equal to rounding the one with the largest pivot (Harris's rule).
        divisor = jnp.where(allowed, row, jnp.ones_like(row))
        reduced = jnp.maximum(-table.entries[-1, :-1], 0)
        limit = jnp.min(jnp.where(allowed, (reduced + tolerance) / divisor, jnp.inf))
        cheap = allowed & (reduced / divisor <= limit)
        entering = jnp.argmax(jnp.where(cheap, row, -jnp.inf))
        return leaving, entering, (constants[leaving] < -tolerance) & jnp.any(allowed)

    def body(carry):
        step, table, _ = carry
        leaving, entering, _ = choose(table)
        table = _pivot(table, leaving, entering)
        return step + 1, table, choose(table)[2]

    def unfinished(carry):
        return (carry[0] < most) & carry[2]

    start = (jnp.zeros((), jnp.int32), table, choose(table)[2] & finite & jnp.any(mask))
    steps, table, _ = lax.while_loop(unfinished, body, start)

    def point(values):
        values = jnp.where(table.basic < size, values, 0)[:, None]
        x = jnp.sum(jnp.where(table.basic[:, None] == jnp.arange(size)[None, :], values, 0), axis=0)
        return jnp.where(mask, x, jnp.zeros_like(x))

    def slack(x):
        return jnp.sum(rows * x[None, :], axis=1) - bounds

    # The table gathers the rounding of its pivots: it is taken as an approximate inverse, by which
    # what the non-basic variables are, and should not be, is moved to zero.
    x = point(table.entries[:-1, -1])
    for _ in range(2):
        left = jnp.concatenate([jnp.zeros_like(x), slack(x), jnp.sum(x, keepdims=True) - 1])
        x = x - point(matvec(table.entries[:-1, :-1], left[table.other]))
    x = jnp.maximum(x, 0)
    total = jnp.sum(x)
    x = x / jnp.where(total == 0, jnp.ones_like(total), total)
    residual = jnp.max(jnp.maximum(-slack(x), 0), initial=0)
    x, residual = (jnp.where(finite, value, jnp.nan) for value in (x, residual))
    return LPSolution(x, residual, steps)


def _pivot(table: _Table, leaving: jax.Array, entering: jax.Array) -> _Table:
    """Exchange a basic variable with a non-basic one."""
    entries = table.entries
    here = jnp.arange(entries.shape[1]) == entering
    row = entries[leaving]
    pivot = row[entering]
    new = jnp.where(here, jnp.ones_like(row), -row) / pivot
    column = entries[:, entering]
    entries = jnp.where(here[None, :], 0, entries) + column[:, None] * new[None, :]
    entries = jnp.where((jnp.arange(len(column)) == leaving)[:, None], new[None, :], entries)
    old, coming = table.basic[leaving], table.other[entering]
    basic = jnp.where(jnp.arange(len(table.basic)) == leaving, coming, table.basic)
    other = jnp.where(jnp.arange(len(table.other)) == entering, old, table.other)
    return _Table(entries, basic, other)
