"""What the direction of a step is to each task: its cosine with the task's gradient, and norms."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.panels import blocks, legend_outside

if TYPE_CHECKING:
    from experiments.report.reading import Report

_KEYS = ("direction_cosine", "norm", "direction_norm")


def directions(report: "Report", plt: Any) -> Any:
    """A column a method, of rules on the rows too: cos(g_t, d) above, ‖g_t‖ and ‖d‖ below.

    Of many tasks the median, the tenths at both ends and the extremes; means over runs.
    """
    found = {m: s for m in report.results if (s := direction_series(report, m)) is not None}
    if not found:
        return None
    labels = ["cosine with\nthe direction", "norm of gradient"]
    figure, panels = blocks(plt, list(found), labels)
    for (cosines, norms), series in zip(panels, found.values(), strict=True):
        cosines.axhline(0, color="black", lw=0.7)
        cosines.set_ylim(-1.05, 1.05)
        _lines(cosines, report, series["epoch"], series["direction_cosine"])
        _lines(norms, report, series["epoch"], _positive(series["norm"]))
        length = _positive(series["direction_norm"])
        norms.plot(series["epoch"], length, color="black", lw=1.2, ls="--", label="‖direction‖")
        norms.set_yscale("log")
    title = "The direction beside the tasks' gradients\n(below 0 the step makes a task worse)"
    figure.suptitle(title, size=11)
    legend_outside(figure)
    return figure


def direction_series(report: "Report", method: str) -> dict[str, np.ndarray] | None:
    """Means over the runs that did not fail: epoch (points,), the rest (points, T), (points,)."""
    runs = [run for run in report.records(method) if all(key in run[0] for key in _KEYS)]
    if not runs:
        return None
    length = max(map(len, runs))
    runs = [run for run in runs if len(run) == length]
    steps = report.results[method]["steps_per_epoch"]
    series = {"epoch": np.array([record["step"] / steps for record in runs[0]])}
    for key in _KEYS:
        values = np.array([[record[key] for record in run] for run in runs], float)
        series[key] = np.ma.filled(np.ma.masked_invalid(values).mean(axis=0), np.nan)
    return series


def _lines(axes: Any, report: "Report", epochs: np.ndarray, values: np.ndarray) -> None:
    from experiments.report.figures import COLORS, MANY_TASKS

    if len(report.tasks) <= MANY_TASKS:
        for t, task in enumerate(report.tasks):
            color, label = COLORS[t % len(COLORS)], task.replace("_", " ")
            axes.plot(epochs, values[:, t], color=color, lw=1.3, label=label)
        return
    kept = ~np.isnan(values).all(axis=1)
    epochs, values = epochs[kept], values[kept]
    low, tenth, median, ninth, high = np.nanquantile(values, [0, 0.1, 0.5, 0.9, 1], axis=1)
    axes.fill_between(epochs, low, high, color=COLORS[0], alpha=0.12, lw=0, label="all tasks")
    axes.fill_between(
        epochs, tenth, ninth, color=COLORS[0], alpha=0.3, lw=0, label="tenth to tenth"
    )
    axes.plot(epochs, median, color=COLORS[0], lw=1.5, label="median task")


def _positive(values: np.ndarray) -> np.ndarray:
    """For a logarithmic axis: zeros are gaps."""
    return np.where(values > 0, values, np.nan)
