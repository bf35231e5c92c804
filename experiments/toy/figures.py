"""Pictures of walks: in the plane of the first two numbers, and among the losses."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import COLORS, GREY, STYLE
from experiments.toy.problem import ToyProblem
from experiments.toy.walk import Walk

_FEW = 12  # walks of which each is drawn with its path


def draw(problem: ToyProblem, walks: dict[str, Walk], folder: Path) -> list[str]:
    """Write the pictures into a folder; their names."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    pictures = {"objectives.png": _objectives}
    if len(problem.lower) > 1:
        pictures = {"paths.png": _paths, **pictures}
    with plt.rc_context(STYLE):
        for name, picture in pictures.items():
            figure = picture(problem, walks, plt)
            figure.savefig(folder / name)
            plt.close(figure)
    return list(pictures)


def _paths(problem: ToyProblem, walks: dict[str, Walk], plt: Any) -> Any:
    """One panel a method: contours of the mean loss, the paths, the Pareto set."""
    (x_low, y_low), (x_high, y_high) = problem.lower[:2], problem.upper[:2]
    x, y = np.meshgrid(np.linspace(x_low, x_high, 161), np.linspace(y_low, y_high, 161))
    arc = problem.pareto_set()
    # Numbers beyond the second have the values that they have in the Pareto set's middle.
    plane = np.broadcast_to(arc[len(arc) // 2], (*x.shape, arc.shape[1])).copy()
    plane[..., 0], plane[..., 1] = x, y
    # The box's own edge has roots without a derivative, but not without a value.
    height = problem.values(plane).mean(axis=2)
    figure, grid = _grid(walks, plt, sharex=True, sharey=True)
    on_a_line = len(arc) < 1000
    for axes, (spec, found) in zip(grid.flat, walks.items(), strict=False):
        axes.contour(x, y, height, levels=24, colors=GREY, linewidths=0.4, alpha=0.6)
        if on_a_line:
            axes.plot(*arc.T[:2], color="black", lw=4, alpha=0.35, solid_capstyle="round")
        else:
            axes.scatter(*arc.T[:2], color="black", s=3, alpha=0.15)
        _trace(axes, found.paths[..., :2])
        axes.set(title=spec, xlim=(x_low, x_high), ylim=(y_low, y_high))
        if x_high - x_low == y_high - y_low:
            axes.set_aspect("equal")
    figure.suptitle("Paths from their starts (dots) to their ends (stars); grey: the Pareto set")
    return figure


def _objectives(problem: ToyProblem, walks: dict[str, Walk], plt: Any) -> Any:
    """One panel a method: the same paths among the losses, the front."""
    front, corner = problem.front(401), problem.reference()
    low = front.min(axis=0) - 0.1 * np.ptp(front, axis=0)
    high = corner + 0.4 * np.ptp(front, axis=0)
    solid = len(problem.tasks) == 3
    figure, grid = _grid(walks, plt, subplot_kw={"projection": "3d"} if solid else {})
    for axes, (spec, found) in zip(grid.flat, walks.items(), strict=False):
        axes.scatter(*front.T, color="black", s=3, alpha=0.2 if solid else 0.5)
        inside = ((found.losses >= low) & (found.losses <= high)).all(axis=2, keepdims=True)
        _trace(axes, np.where(inside, found.losses, np.nan))
        axes.set(title=spec, xlabel="L1", ylabel="L2", xlim=(low[0], high[0]))
        axes.set(ylim=(low[1], high[1]), **({"zlim": (low[2], high[2])} if solid else {}))
    figure.suptitle("The losses along the paths near the front (black)")
    return figure


def _trace(axes: Any, paths: np.ndarray) -> None:
    many = len(paths) > _FEW
    for k, points in enumerate(paths):
        color = COLORS[0 if many else k % len(COLORS)]
        if not many:
            axes.plot(*points.T, color=color, lw=1.3)
            axes.plot(*points[:1].T, marker="o", ms=4, color=color)
        size = {"marker": ".", "ms": 4} if many else {"marker": "*", "ms": 11, "mec": "white"}
        axes.plot(*points[-1:].T, color=color, mew=0.6, ls="", **size)


def _grid(walks: dict[str, Walk], plt: Any, **options: Any) -> tuple[Any, Any]:
    columns = min(3, len(walks))
    rows = -(-len(walks) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.5 * columns, 3.4 * rows), squeeze=False, layout="constrained",
        **options,
    )  # fmt: skip
    for axes in list(grid.flat)[len(walks) :]:
        axes.set_axis_off()
    return figure, grid
