"""Runs a rule on every problem family in one compiled call, for the tests of its inner problem."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from mgda_jax._gramian import gramian
from mgda_jax.weighting.base import Weighting
from tests.problems import FAMILIES, make

# No w solves the equations of Nash-MTL and FairGrad: 0 is in the convex hull of the rows.
HULL_CONTAINS_ZERO = (
    "rank_deficient",
    "stationary",
    "stationary_face",
    "opposed_pair",
    "spread_tied_opposed",
)


class Solved(NamedTuple):
    """One answer, everything in float64.

    Attributes:
      family: name in `FAMILIES`.
      rows: (T, P), as drawn.
      weights: (T,)
      state: of the rule.
    """

    family: str
    rows: np.ndarray
    weights: np.ndarray
    state: Any


@functools.cache
def drawn(num_tasks: int, families: tuple[str, ...], seeds: int) -> list[tuple[str, np.ndarray]]:
    return [(family, make(family, num_tasks, seed)) for family in families for seed in range(seeds)]


@functools.cache
def solver(factory: Callable[..., Weighting], num_tasks: int):
    """(rows (problems, T, P), *numbers) → weights and states, the numbers being factory's."""

    def run(rows, *numbers):
        rule = factory(*numbers)
        return rule.update(rule.init(num_tasks), gramian=gramian(rows))

    return jax.jit(lambda rows, *numbers: jax.vmap(lambda r: run(r, *numbers))(rows))


@functools.cache
def solve_families(
    factory: Callable[..., Weighting],
    num_tasks: int,
    dtype: str,
    *numbers: float,
    families: tuple[str, ...] = tuple(FAMILIES),
    seeds: int = 2,
) -> list[Solved]:
    """factory(*numbers) on each family's Gramian, formed from rows of the given dtype."""
    problems = drawn(num_tasks, families, seeds)
    width = max(rows.shape[1] for _, rows in problems)
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for _, rows in problems]
    with jax.enable_x64(dtype == "float64"):
        given = [np.asarray(number, dtype) for number in numbers]
        result = solver(factory, num_tasks)(np.stack(padded).astype(dtype), *given)
        weights, state = jax.tree.map(lambda x: np.asarray(x, np.float64), result)
    assert result[0].dtype == dtype
    return [
        Solved(family, rows, weights[i], jax.tree.map(lambda x, i=i: x[i], state))
        for i, (family, rows) in enumerate(problems)
    ]


def unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length one and the lengths; a zero row stays zero and gets length one."""
    norms = np.linalg.norm(rows / np.abs(rows).max(), axis=1) * np.abs(rows).max()
    norms = np.where(norms == 0, 1, norms)
    return rows / norms[:, None], norms
