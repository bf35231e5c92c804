"""A differential equation as a multi-task problem: a loss a condition, and one of the residual."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pinn.equations import RESIDUAL, Condition, Equation
from experiments.pinn.network import Network
from experiments.trainer.problem import Problem
from mgda_jax import per_task_decode

PyTree = Any
SCORE, ERROR, MSE = "digits", "relative_l2", "mse"
_VALIDATION = 2000  # points


def collocation(
    equation: Equation, examples: int, condition_points: int, width: int, layers: int
) -> Problem:
    """Training a network to solve an equation, on new random points in every step.

    The losses are means over points of the squared residual (summed over equations) and of the
    squared distance from the given values (summed over fields). Each reads all parameters, so
    the encoder hands them on: the gradients with respect to the representation are those with
    respect to the parameters.

    Args:
      equation: what is solved.
      examples: interior points an epoch; a batch of them is drawn in every step.
      condition_points: points a step and condition.
      width: units of a hidden layer.
      layers: hidden layers.

    Returns:
      Problem with the equation's tasks, scored by the correct digits −log₁₀ ‖u − û‖/‖u‖ on
      random points (validation) or the grid (test).
    """
    tasks, network = equation.tasks, Network(equation, width, layers)

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        return network.init(key), {task: {} for task in tasks}

    def prepare(examples: PyTree, key: jax.Array | None) -> PyTree:
        if key is None:
            return examples
        shift = jax.random.uniform(key, (len(tasks), len(equation.axes)))
        drawn = {RESIDUAL: _inside(equation, len(examples), shift[tasks.index(RESIDUAL)])}
        for name, condition in equation.conditions.items():
            at = shift[tasks.index(name)]
            drawn[name] = _on_faces(equation, condition, condition_points, at)
        return drawn

    def residual_loss(own: PyTree, params: PyTree, batch: PyTree) -> jax.Array:
        at = batch[RESIDUAL]
        return _mean_square(equation.residual(at, network.jet(params, at)))

    def condition_loss(name: str, condition: Condition) -> Any:
        def loss(own: PyTree, params: PyTree, batch: PyTree) -> jax.Array:
            at = batch[name]
            return _mean_square(network.fields(params, at) - condition.values(at))

        return loss

    def tally(params: PyTree, own: PyTree, batch: PyTree, valid: jax.Array) -> PyTree:
        error = network.fields(params, batch["points"]) - batch["solution"]
        kept = valid[:, None]
        return {
            "error": jnp.sum(error**2, where=kept),
            "size": jnp.sum(batch["solution"] ** 2, where=kept),
            "count": jnp.sum(valid),
        }

    def metrics(sums: PyTree) -> dict[str, jax.Array]:
        relative = jnp.sqrt(sums["error"] / sums["size"])
        mse = sums["error"] / (sums["count"] * len(equation.fields))
        return {SCORE: -jnp.log10(relative), ERROR: relative, MSE: mse}

    grid = equation.grid_points()
    losses = {name: condition_loss(name, c) for name, c in equation.conditions.items()}
    return Problem(
        tasks=tasks,
        data={
            "train": np.zeros(examples, np.uint8),  # only their number is read
            "validation": _solved(equation, equation.random_points(_VALIDATION, seed=0)),
            "test": _solved(equation, grid),
        },
        init=init,
        prepare=prepare,
        encode=lambda params, batch: params,
        decode=per_task_decode({**losses, RESIDUAL: residual_loss}),
        tally=tally,
        metrics=metrics,
        score=SCORE,
        score_label="correct digits",
        show=lambda params, own: {"solution": network.fields(params, jnp.float32(grid))},
        log_gradients=True,
        eval_batch=len(grid),
    )


def _mean_square(rows: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum(rows**2, axis=1))


def _inside(equation: Equation, count: int, shift: jax.Array) -> jax.Array:
    """Points (count, d) spread evenly over the box: a lattice, moved by a random shift (d,).

    Each is distributed evenly, and together they leave smaller gaps than independent ones.

    References:
      Roberts, The unreasonable effectiveness of quasirandom sequences, 2018 (R_d).
    """
    d = len(equation.axes)
    ratio = 2.0
    for _ in range(40):  # to the root of g^(d+1) = g + 1
        ratio = (1 + ratio) ** (1 / (d + 1))
    lattice = np.outer(np.arange(count), ratio ** -np.arange(1, d + 1)) % 1
    low, high = jnp.array(equation.low), jnp.array(equation.high)
    return low + (high - low) * ((lattice.astype(np.float32) + shift) % 1)


def _on_faces(equation: Equation, condition: Condition, count: int, shift: jax.Array) -> jax.Array:
    """Points on the condition's faces in turn, as many on each but for a remainder."""
    ends = np.stack([equation.low, equation.high]).astype(np.float32)
    axis, end = np.array(condition.faces)[np.arange(count) % len(condition.faces)].T
    fixed = axis[:, None] == np.arange(len(equation.axes))
    return jnp.where(fixed, ends[end, axis][:, None], _inside(equation, count, shift))


def _solved(equation: Equation, points: np.ndarray) -> dict[str, np.ndarray]:
    """Points with the solution there."""
    solution = equation.solution(points)
    return {"points": points.astype(np.float32), "solution": solution.astype(np.float32)}
