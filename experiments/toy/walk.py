"""Walks of one method on a toy problem, all in one program."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.errors import ExperimentError
from experiments.toy.problem import ToyProblem
from experiments.trainer.methods import Method
from mgda_jax import RowRule, Weighting, aggregate, gramian, pareto, task_gradients

POINTS = 400  # of a path, kept for the picture
_MARGIN = 1e-6  # of the box, where roots of a number still have a derivative

MakeRule = Callable[[jax.Array, jax.Array], Weighting | RowRule]


class Walk(NamedTuple):
    """What the walks of a method leave.

    Attributes:
      paths: (walks, points, n).
      losses: (walks, points, T) along them.
      distance: (walks,) of the ends to the Pareto set.
      stationarity: (walks,) at the ends, scale-free: 0 is Pareto stationary.
    """

    paths: np.ndarray
    losses: np.ndarray
    distance: np.ndarray
    stationarity: np.ndarray


def rule_by_preference(method: Method) -> MakeRule:
    """`make(preference (T,), neighbours (K, T)) -> rule`; ExperimentError where it takes none.

    The preference is the ratio of the losses to end at where the rule takes a ray.
    """
    if method.spec == "grid":
        return lambda preference, neighbours: method.rule(preference)
    rule = method.rule(jnp.ones(1))
    origin: Any = rule.origin
    parameters = inspect.signature(origin.factory).parameters
    argument = "ray" if "ray" in parameters else "preference"
    if argument not in parameters or argument in origin.kwargs:
        raise ExperimentError(f"--methods: {method.spec} does not take the preferences given")
    return lambda preference, neighbours: origin.factory(**origin.kwargs, **{argument: preference})


def preferences(num_tasks: int, count: int) -> np.ndarray:
    """(count or somewhat more, T) even preferences inside the simplex, which sum to one."""
    if num_tasks == 2:
        first = (np.arange(count) + 0.5) / count
        return np.stack([first, 1 - first], axis=1).astype(np.float32)
    side = int(np.ceil((np.sqrt(8 * count + 1) - 1) / 2))
    lattice = [(i, j, side - 1 - i - j) for i in range(side) for j in range(side - i)]
    return ((np.array(lattice) + 1 / 3) / side).astype(np.float32)


def neighbours(trade_offs: np.ndarray) -> np.ndarray:
    """(walks, K, T), of each preference the nearest others by angle: two, of three losses six."""
    units = trade_offs / np.linalg.norm(trade_offs, axis=1, keepdims=True)
    nearest = np.argsort(-units @ units.T, axis=1, kind="stable")
    return trade_offs[nearest[:, 1 : (3 if trade_offs.shape[1] == 2 else 7)]]


class Ground(NamedTuple):
    """Where walks are: losses and gradients, and how far one may go.

    Attributes:
      gradients: θ (n,) → losses (T,) and rows (T, n), without the numbers that every task
        pushes out of the box.
      lower: (n,) of the box, less a margin.
      upper: (n,)
    """

    gradients: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    lower: jax.Array
    upper: jax.Array


def ground(problem: ToyProblem) -> Ground:
    span = (problem.upper - problem.lower) * np.float32(_MARGIN)
    lower, upper = jnp.asarray(problem.lower + span), jnp.asarray(problem.upper - span)

    def gradients(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, rows = task_gradients(problem.losses)(theta)
        stuck = (theta <= lower) & jnp.all(rows > 0, axis=0)
        stuck |= (theta >= upper) & jnp.all(rows < 0, axis=0)
        return values, jnp.where(stuck[None], jnp.zeros_like(rows), rows)

    return Ground(gradients, lower, upper)


def measure(problem: ToyProblem, at: Ground, path: jax.Array) -> tuple[jax.Array, ...]:
    """Of one path (points, n) what a `Walk` has of it."""
    end = path[-1]
    stationarity = pareto.stationarity(gramian(at.gradients(end)[1]))
    arc = jnp.asarray(problem.pareto_set(), jnp.float32)
    gap = jnp.min(jnp.linalg.norm(arc - end[None], axis=1))
    return path, jax.vmap(problem.losses)(path), gap, stationarity


def walk(
    problem: ToyProblem,
    make_rule: MakeRule,
    steps: int,
    learning_rate: float,
    trade_offs: np.ndarray | None = None,
) -> Walk:
    """Adam on a rule's direction from all starts at once, kept inside the box.

    Args:
      problem: what is walked on.
      make_rule: the rule of a preference (T,) and its neighbours (K, T).
      steps: of each walk, at least `POINTS`.
      learning_rate: of Adam.
      trade_offs: (walks, T) preferences, each from the next of the starts; by default one walk
        from each start, of preference one.
    """
    num_tasks = len(problem.tasks)
    starts = problem.starts
    if trade_offs is None:
        trade_offs = np.ones((len(starts), num_tasks), np.float32)
    starts = starts[np.arange(len(trade_offs)) % len(starts)]
    at = ground(problem)

    def from_start(start: jax.Array, preference: jax.Array, near: jax.Array, key: jax.Array):
        rule = make_rule(preference, near)
        tx = optax.chain(aggregate(rule, num_tasks), optax.adam(learning_rate))

        def step(carry: Any, key: jax.Array) -> Any:
            theta, state = carry
            values, rows = at.gradients(theta)
            updates, state = tx.update(rows, state, theta, losses=values, key=key)
            moved: Any = optax.apply_updates(theta, updates)
            return (jnp.clip(moved, at.lower, at.upper), state), None

        def some_steps(carry: Any, key: jax.Array) -> Any:
            carry, _ = lax.scan(step, carry, jax.random.split(key, steps // POINTS))
            return carry, carry[0]

        keys = jax.random.split(key, POINTS)
        _, path = lax.scan(some_steps, (start, tx.init(start)), keys)
        return measure(problem, at, jnp.concatenate([start[None], path]))

    keys = jax.random.split(jax.random.key(0), len(starts))
    found = jax.jit(jax.vmap(from_start))(starts, trade_offs, neighbours(trade_offs), keys)
    return Walk(*map(np.asarray, found))
