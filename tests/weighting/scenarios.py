"""Two steps of every rule on problems of four tasks, each with what it must survive.

One compiled program a rule answers every scenario; the tests beside this file ask about the
answers. Nothing in them may compile a program of its own where one of these will do.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax import aggregate
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import update_weights
from tests.quick import quick_jit
from tests.weighting.rules import RULES

EPS = float(np.finfo(np.float32).eps)
HALF = float(jnp.finfo(jnp.bfloat16).eps)
ALL, STEPS = (0, 1, 2, 3), 2
NAMES = sorted(RULES)
HUGE = 2.0**100  # exact, and about 1e30


class Problem(NamedTuple):
    """Two steps: rows of float32 and bfloat16 leaves, losses, active tasks."""

    rows: dict[str, np.ndarray]
    losses: np.ndarray
    active: np.ndarray

    def take(self, tasks):
        tasks = list(tasks)
        return Problem(
            {name: leaf[:, tasks] for name, leaf in self.rows.items()},
            self.losses[:, tasks],
            self.active[tasks],
        )

    def times(self, factors):
        column = np.broadcast_to(np.float32(factors), (4,))
        scaled = {
            name: leaf * column.reshape(1, 4, *(1,) * (leaf.ndim - 2)).astype(leaf.dtype)
            for name, leaf in self.rows.items()
        }
        return self._replace(rows=scaled)

    def with_row(self, task, values, steps=slice(None)):
        rows = {name: leaf.copy() for name, leaf in self.rows.items()}
        for name, leaf in rows.items():
            leaf[steps, task] = values[name] if isinstance(values, dict) else values
        return self._replace(rows=rows)

    def row(self, task, factor=1):
        return {n: leaf[:, task] * leaf.dtype.type(factor) for n, leaf in self.rows.items()}


def base_problem():
    rng = np.random.default_rng(0)
    norms = np.array([1.0, 3.0, 0.3, 1.5])
    rows = {}
    for name, shape, dtype in (("a", (2, 4), np.float32), ("b", (5,), jnp.bfloat16)):
        # A common part, so that the tasks have a common descent direction in both steps.
        leaf = rng.standard_normal((STEPS, 4, *shape)) + 0.7 * rng.standard_normal(
            (STEPS, 1, *shape)
        )
        rows[name] = (leaf * norms.reshape(4, *(1,) * len(shape))).astype(dtype)
    losses = np.exp(rng.standard_normal((STEPS, 4))).astype(np.float32)
    return Problem(rows, losses, np.ones(4, bool))


ORDER = np.array([2, 0, 3, 1])
BASE = base_problem()
MASKED = {  # inactive rows and losses are NaN
    kept: BASE._replace(
        active=np.isin(ALL, kept), losses=np.where(np.isin(ALL, kept), BASE.losses, np.nan)
    )
    for kept in {entry.smaller for entry in RULES.values()}
}
for _kept in list(MASKED):
    for _task in set(ALL) - set(_kept):
        MASKED[_kept] = MASKED[_kept].with_row(_task, np.nan)


def _poisoned(bad):
    """A step with one bad row or loss, then the first step as it is without that."""
    value, where = bad.split()
    first = BASE.with_row(1, float(value), 0) if where == "row" else BASE
    losses = BASE.losses[[0, 0]]
    if where == "loss":
        losses[0, 1] = float(value)
    rows = {
        name: np.concatenate([leaf[:1], BASE.rows[name][:1]]) for name, leaf in first.rows.items()
    }
    return Problem(rows, losses, BASE.active)


BAD = ("nan row", "inf row", "nan loss", "inf loss")
SCENARIOS = {
    "base": BASE,
    "permuted": BASE.take(ORDER),
    "scaled": BASE.times(8.0),
    "huge": BASE.times(HUGE),
    "tiny": BASE.times(1 / HUGE),
    "spread": BASE.times([1, 2.0**60, 2.0**-60, 1]),
    "duplicates": BASE.with_row(1, BASE.row(0)),
    "zero row": BASE.with_row(2, 0.0),
    "zeros": BASE.times(0.0),
    "opposed": BASE.with_row(1, BASE.row(0, -1)),
    "collinear": BASE.with_row(3, BASE.row(2, -4)),
    "unanimous": functools.reduce(lambda p, t: p.with_row(t, BASE.row(0)), (1, 2, 3), BASE),
    "none active": BASE._replace(active=np.zeros(4, bool)),
    **{bad: _poisoned(bad) for bad in BAD},
    **{f"masked {kept}": problem for kept, problem in MASKED.items()},
}


class Result(NamedTuple):
    """Of every step: direction (S, P), its leaf "b" being bfloat16; weights (S, T); state."""

    exact: np.ndarray
    half: np.ndarray
    weights: np.ndarray
    finite: np.ndarray


def steps_of(name: str, tasks, with_active: bool):
    """rows, losses, active → directions, weights, "is the state finite" of consecutive updates."""
    rule = RULES[name].make(tasks)
    tx = aggregate(rule, len(tasks))
    params = {"a": jnp.zeros((2, 4)), "b": jnp.zeros(5, jnp.bfloat16)}

    def run(rows, losses, active):
        given = {"active": active} if with_active else {}

        def step(state, inputs):
            rows, losses = inputs
            extra = {"losses": losses, "previous_losses": losses * 0.75}
            if "cross_gramian" in rule.reads:
                second = jax.tree.map(lambda x: x + jnp.flip(x, -1) / 2, rows)
                extra["cross_gramian"] = cross_gramian(rows, second, **given)
            updates, state = tx.update(rows, state, params, **extra, **given)
            numbers = [x for x in jax.tree.leaves(state.weighting) if _is_float(x)]
            finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in numbers] or [True]))
            assert updates["b"].dtype == jnp.bfloat16 and updates["a"].dtype == jnp.float32
            weights = state.task_weights
            weights = jnp.zeros(len(tasks)) if weights is None else weights
            return state, (updates, weights, finite)

        return jax.lax.scan(step, tx.init(params), (rows, losses))[1]

    return run


def _is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _result(out):
    updates, weights, finite = out
    exact, half = (np.asarray(updates[n], np.float64) for n in ("a", "b"))
    lead = exact.shape[:-2]
    return Result(exact.reshape(*lead, -1), half, np.asarray(weights, np.float64), finite)


@functools.cache
def batched(name: str, batch: int = len(SCENARIOS)) -> dict[str, Result]:
    """Every scenario, in one compiled program; a copy of each in every part of a larger batch."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *SCENARIOS.values())
    tiled = jax.tree.map(lambda x: x[np.arange(batch) % len(SCENARIOS)], stacked)
    result = _result(jax.jit(jax.vmap(steps_of(name, ALL, True)))(*tiled))
    answers = {}
    for k, scenario in enumerate(SCENARIOS):
        copies = Result(*(x[k :: len(SCENARIOS)] for x in result))
        answers[scenario] = Result(*(x[0] for x in copies))
        for found, first in zip(copies, answers[scenario], strict=True):
            same = np.isfinite(found) == np.isfinite(first)
            assert same.all(), f"{scenario}: not finite in some places of a batch only"
    return answers


@functools.cache
def _program(name: str, tasks: tuple[int, ...]):
    return quick_jit(steps_of(name, tasks, False))


@functools.cache
def alone(name: str, tasks: tuple[int, ...], scenario: str = "base") -> Result:
    """Some of the tasks of one problem, without batch and without `active`."""
    rows, losses, active = SCENARIOS[scenario].take(tasks)
    return _result(_program(name, tasks)(rows, losses, active))


@functools.cache
def weigh(name: str):
    """(gramian, cross_gramian, losses) → the weights (4,) of the first step."""
    rule = RULES[name].make(ALL)

    @quick_jit
    def run(matrix, cross, losses):
        given = {"gramian": matrix, "cross_gramian": cross, "losses": losses}
        given["previous_losses"] = losses
        return update_weights(rule, rule.init(4), num_tasks=4, **given)[0]

    return run


def size_of(scenario: str, weights: np.ndarray) -> float:
    """Σ |w_t| ‖g_t‖, or the sum of the norms where a rule reports no weights."""
    rows = SCENARIOS[scenario].rows
    flat = np.concatenate(
        [np.asarray(leaf, np.float64).reshape(STEPS, 4, -1) for leaf in rows.values()], axis=2
    )
    norms = np.nan_to_num(np.linalg.norm(flat, axis=2))
    weights = weights if weights.any() else np.ones_like(weights)
    return float((np.abs(weights) * norms).max())


def close(found: Result, expected: Result, size: float, tol: float = 1024 * EPS):
    """Directions within tol of the size of what they sum, bfloat16 ones within its own digits."""
    np.testing.assert_allclose(found.exact, expected.exact, rtol=0, atol=tol * size)
    np.testing.assert_allclose(found.half, expected.half, rtol=HALF, atol=(tol + HALF / 8) * size)
