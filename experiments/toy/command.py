"""Two losses in the plane, the toy of CAGrad and Nash-MTL: which rule reaches the Pareto set.

python -m experiments.toy                                  # half a minute
python -m experiments.toy --methods uniform,mgda,nash_mtl,upgrad

References:
  Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021.
  Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.errors import ExperimentError
from experiments.report.figures import COLORS, GREY, STYLE
from experiments.report.table import markdown
from experiments.trainer.config import check_name, check_rates
from experiments.trainer.methods import Method, parse_methods
from experiments.trainer.run_folder import CONFIG, TABLE, write_text
from mgda_jax import aggregate, gramian, min_norm_point, task_gradients

TASKS = ("L1", "L2")
STARTS = np.array(
    [(-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0), (0.0, 0.0), (-7.5, -0.5), (9.0, -1.0)], np.float32
)
REACHED = 0.1  # distance to the Pareto set, whose ends are 14 apart
_POINTS = 400  # of a path, kept for the picture
_MOST_STEPS = 1_000_000_000
_GIVEN = {"gramian", "losses"}  # what a walk has for a rule to read


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """Two losses in the plane: which rule reaches the Pareto set, and from where.

    Prints a table and writes table.md and paths.png into the run's folder.

    Attributes:
      methods: Rules of mgda_jax.weighting, separated by commas, with options in parentheses.
      steps: Of Adam, from each of the six starts of the literature.
      learning_rate: Of Adam.
      runs_dir: Folder of all runs.
      name: Folder of this run in --runs-dir; what is there is replaced.
    """

    methods: str = "uniform,mgda,pcgrad,cagrad(c=0.5),nash_mtl,upgrad"
    steps: int = 35_000
    learning_rate: float = 1e-3
    runs_dir: Path = Path("runs")
    name: str = "toy"

    def resolved(self) -> Self:
        """All defaults are in place."""
        return self

    def check(self) -> None:
        """Raise ExperimentError naming the first flag whose value makes no sense."""
        if not _POINTS <= self.steps <= _MOST_STEPS:
            raise ExperimentError(f"--steps: expected {_POINTS} to {_MOST_STEPS}, got {self.steps}")
        check_rates(self.learning_rate)
        check_name(self.name)


def losses(theta: jax.Array) -> jax.Array:
    """The two losses at a point.

    Above θ₂ = 0 they are logarithmic valleys f_i, below it two paraboloids g_i with minima at
    (±7, −8.43); tanh(θ₂/2) leads from one to the other. The first counts a tenth.

    Args:
      theta: (2,).

    Returns:
      (2,).
    """
    x, y = theta
    valleys = jnp.stack([0.5 * (-x - 7) - jnp.tanh(-y), 0.5 * (-x + 3) + jnp.tanh(-y) + 2])
    f = jnp.log(jnp.maximum(jnp.abs(valleys), 5e-6)) + 6
    g = ((-x + jnp.array([7.0, -7.0])) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    above, below = jnp.maximum(jnp.tanh(0.5 * y), 0), jnp.maximum(jnp.tanh(-0.5 * y), 0)
    return jnp.array([0.1, 1.0]) * (above * f + below * g)


def pareto_set(points: int = 281) -> jax.Array:
    """The arc between the minima, (points, 2), where the two gradients are opposed.

    At each θ₁ the gradients' cross product changes its sign once in θ₂; bisection finds where.
    """
    x = jnp.linspace(-7.0, 7.0, points)[1:-1]

    def cross(y: jax.Array) -> jax.Array:
        first, second = jnp.moveaxis(jax.vmap(jax.jacrev(losses))(jnp.stack([x, y], 1)), 1, 0)
        return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        same = jnp.sign(cross(middle)) == jnp.sign(cross(low))
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    low, high = lax.fori_loop(0, 30, halve, (jnp.full_like(x, -9.0), jnp.full_like(x, -8.0)))
    return jnp.stack([x, (low + high) / 2], axis=1)


class Walk(NamedTuple):
    """What six walks of a rule leave.

    Attributes:
      paths: (starts, points, 2).
      losses: (starts, 2) at the ends.
      distance: (starts,) of the ends to the Pareto set.
      stationarity: (starts,) ‖min-norm point‖ / max ‖g_t‖ at the ends; 0 is Pareto stationary.
    """

    paths: np.ndarray
    losses: np.ndarray
    distance: np.ndarray
    stationarity: np.ndarray


def walk(method: Method, steps: int, learning_rate: float) -> Walk:
    """Adam on a rule's direction, from all starts at once."""
    rule = method.rule(jnp.ones(len(TASKS)))
    tx = optax.chain(aggregate(rule, len(TASKS)), optax.adam(learning_rate))

    def step(carry: Any, key: jax.Array) -> Any:
        theta, state = carry
        values, gradients = task_gradients(losses)(theta)
        updates, state = tx.update(gradients, state, theta, losses=values, key=key)
        return (optax.apply_updates(theta, updates), state), None

    def some_steps(carry: Any, key: jax.Array) -> Any:
        carry, _ = lax.scan(step, carry, jax.random.split(key, steps // _POINTS))
        return carry, carry[0]

    def from_start(start: jax.Array, key: jax.Array) -> Any:
        keys = jax.random.split(key, _POINTS)
        (end, _), path = lax.scan(some_steps, (start, tx.init(start)), keys)
        values, gradients = task_gradients(losses)(end)
        norms = jnp.linalg.norm(gradients, axis=1)
        stationarity = min_norm_point(gramian(gradients)).norm / jnp.max(norms)
        gaps = jnp.linalg.norm(pareto_set() - end, axis=1)
        return jnp.concatenate([start[None], path]), values, jnp.min(gaps), stationarity

    keys = jax.random.split(jax.random.key(0), len(STARTS))
    return Walk(*map(np.asarray, jax.jit(jax.vmap(from_start))(STARTS, keys)))


def table(walks: dict[str, Walk]) -> str:
    """Ends of the walks as a Markdown table."""
    heads = ["method", "reached", "largest distance", "largest stationarity", "mean L1", "mean L2"]
    lines = []
    for spec, found in walks.items():
        reached = f"{np.sum(found.distance < REACHED)} of {len(STARTS)}"
        numbers = [found.distance.max(), found.stationarity.max(), *found.losses.mean(axis=0)]
        lines.append([spec, reached, *(f"{number:.3f}" for number in numbers)])
    return markdown(heads, lines)


def draw(walks: dict[str, Walk], path: Path) -> None:
    """One panel a method: contours of the mean loss, the paths, the Pareto set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(walks))
    rows = -(-len(walks) // columns)
    x, y = np.meshgrid(np.linspace(-10, 10, 161), np.linspace(-10, 10, 161))
    plane = jnp.stack([jnp.ravel(x), jnp.ravel(y)], 1)
    height = np.asarray(jax.vmap(losses)(plane)).mean(axis=1).reshape(x.shape)
    arc = np.asarray(pareto_set())
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            rows, columns, figsize=(3.5 * columns, 3.4 * rows), squeeze=False, sharex=True,
            sharey=True, layout="constrained",
        )  # fmt: skip
        for axes, (spec, found) in zip(grid.flat, walks.items(), strict=False):
            axes.contour(x, y, height, levels=24, colors=GREY, linewidths=0.4, alpha=0.6)
            axes.plot(*arc.T, color="black", lw=4, alpha=0.35, solid_capstyle="round")
            for color, points in zip(COLORS, found.paths, strict=False):
                axes.plot(*points.T, color=color, lw=1.3)
                axes.plot(*points[0], marker="o", ms=4, color=color)
                axes.plot(*points[-1], marker="*", ms=11, color=color, mec="white", mew=0.6)
            axes.set(title=spec, xlim=(-10, 10), ylim=(-10, 10), aspect="equal")
        for axes in list(grid.flat)[len(walks) :]:
            axes.set_axis_off()
        figure.suptitle("Paths from six starts (dots) to their ends (stars); grey: the Pareto set")
        figure.savefig(path)
        plt.close(figure)


def main(config: ToyConfig) -> None:
    """Walk with every rule, print the table, draw the paths."""
    methods = parse_methods(config.methods, TASKS, 1, config.steps)
    for method in methods:
        if len(method.variants[0].name) or method.mode == "representation":
            raise ExperimentError(f"--methods: {method.spec} is not a rule on gradients of θ")
        if missing := method.rule(jnp.ones(len(TASKS))).reads - _GIVEN:
            raise ExperimentError(
                f"--methods: {method.spec} reads {' and '.join(sorted(missing))}, which two "
                "functions of a point do not have"
            )
    folder = config.runs_dir / config.name
    if (folder / CONFIG).exists():
        raise ExperimentError(f"{folder}: holds a run of another experiment; choose another --name")
    folder.mkdir(parents=True, exist_ok=True)
    walks = {m.spec: walk(m, config.steps, config.learning_rate) for m in methods}
    text = table(walks)
    write_text(folder / TABLE, f"# The toy of two losses\n\n{text}\n")
    draw(walks, folder / "paths.png")
    print(f"\n{text}\n\nreached: within {REACHED} of the Pareto set, after {config.steps} steps.")
    print(f"\n{folder}: table.md, paths.png")
