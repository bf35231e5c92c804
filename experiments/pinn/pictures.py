"""Pictures of a run on a differential equation: its solutions, and how the losses compete."""

from typing import Any

import numpy as np

from experiments.pinn.equations import Equation
from experiments.pinn.problem import ERROR
from experiments.report.figures import COLORS
from experiments.report.panels import legend_outside
from experiments.report.reading import Report

_COLUMNS = 6
_PIXELS = 64  # of a field along an axis
_DECADES = 3.0  # of errors


def solutions(report: Report, plt: Any, equation: Equation) -> Any:
    """The first field: exact and by each method (above) and the error (below), first seed."""
    exact = equation.solution(equation.grid_points()).reshape(*equation.grid, -1)[..., 0]
    found = {m: f["solution"] for m in report.results if (f := report.shown(m))}
    fields = {m: f.reshape(*equation.grid, -1)[..., 0] for m, f in found.items()}
    if not fields:
        return None
    columns = min(_COLUMNS, len(fields) + 1)
    bands = -(-(len(fields) + 1) // columns)
    figure, grid = plt.subplots(
        2 * bands, columns, figsize=(1.75 * columns, 3.6 * bands), squeeze=False, dpi=90,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    ends = [equation.low[0], equation.high[0], equation.low[1], equation.high[1]]
    size = np.abs(exact).max()
    picture: dict[str, Any] = {"origin": "lower", "extent": ends, "aspect": "auto"}
    picture["interpolation"] = "nearest"
    for axes in grid.flat:
        axes.set_axis_off()
    level = above = None
    for i, (name, field) in enumerate({"solution": exact, **fields}.items()):
        top = grid[2 * (i // columns), i % columns]
        above = top.imshow(_thin(field), cmap="RdBu_r", vmin=-size, vmax=size, **picture)
        top.set_title(name.replace("(", "\n("), size=8)
        if name == "solution":
            continue
        error = np.linalg.norm(field - exact) / np.linalg.norm(exact)
        low = grid[2 * (i // columns) + 1, i % columns]
        deviation = np.log10(np.maximum(np.abs(field - exact) / size, 1e-12))
        level = low.imshow(_thin(deviation), cmap="magma", vmin=-_DECADES, vmax=0, **picture)
        low.set_title(f"error {error:.2g}", size=8)
    figure.colorbar(above, ax=grid, fraction=0.03, pad=0.01).set_label(equation.fields[0])
    bar = figure.colorbar(level, ax=grid, fraction=0.03, pad=0.01)
    bar.set_label("log₁₀ |error| / max |u|")
    return figure


def _thin(field: np.ndarray) -> np.ndarray:
    """Every so many points, the second axis upwards."""
    strides = (slice(None, None, -(-n // _PIXELS)) for n in field.shape)
    return field[tuple(strides)].T


def conflict(report: Report, plt: Any) -> Any:
    """Error, shares of the weight, gradients' norms and cosines over the steps, a column a method.

    Means over the seeds; the band of the error is from the best to the worst.
    """
    names = {
        "error": "relative L2 error",
        "weight": "share of weight",
        "norm": "‖gradient‖",
        "cosine": "cosine of gradients",
    }
    methods = list(report.results)
    figure, grid = plt.subplots(
        len(names), len(methods), figsize=(0.9 + 1.7 * len(methods), 7.2), squeeze=False, dpi=80,
        sharex=True, sharey="row", layout="constrained",
    )  # fmt: skip
    for column, method in enumerate(methods):
        _progress(grid[0, column], report.records(method, "validation"))
        for axes, key in zip(grid[1:, column], list(names)[1:], strict=True):
            _losses(axes, report.records(method), key, report.tasks)
        grid[0, column].set_title(method.replace("(", "\n("), size=9)
        grid[-1, column].set_xlabel("step")
        grid[2, column].set_yscale("log")
        grid[0, column].set_yscale("log")
    for axes, label in zip(grid[:, 0], names.values(), strict=True):
        axes.set_ylabel(label)
    grid[1, 0].set_ylim(0, 1.02)
    grid[3, 0].set_ylim(-1, 1)
    legend_outside(figure)
    return figure


def _progress(axes: Any, runs: list[list[dict[str, Any]]]) -> None:
    runs = _whole(runs)
    if runs:
        error = np.array([[r[ERROR] for r in run] for run in runs], float)
        steps = [r["step"] for r in runs[0]]
        axes.plot(steps, error.mean(axis=0), color="black", lw=1.2)
        axes.fill_between(steps, error.min(axis=0), error.max(axis=0), color="black", alpha=0.2)


def _losses(axes: Any, runs: list[list[dict[str, Any]]], key: str, tasks: list[str]) -> None:
    runs = _whole([run for run in runs if key in run[0]])
    if not runs:
        return
    numbers = np.array([[r[key] for r in run] for run in runs], float)
    steps = [r["step"] for r in runs[0]]
    if key == "cosine":
        pairs = list(zip(*np.triu_indices(len(tasks), 1), strict=True))
        lines = {f"cosine of {tasks[s]} and {tasks[t]}": numbers[..., s, t] for s, t in pairs}
        axes.axhline(0, color="black", lw=0.6)
    else:
        if key == "weight":
            numbers = np.abs(numbers) / np.abs(numbers).sum(axis=-1, keepdims=True)
        lines = {task: numbers[..., t] for t, task in enumerate(tasks)}
    for color, (label, line) in zip(COLORS, lines.items(), strict=False):
        axes.plot(steps, line.mean(axis=0), color=color, lw=1.2, label=label)


def _whole(runs: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Those that did not fail, which are shorter."""
    length = max(map(len, runs), default=0)
    return [run for run in runs if len(run) == length]
