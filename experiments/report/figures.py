"""Figures of a run: all are drawn here, and the accuracy profile of two tasks."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.cosines import heatmaps
from experiments.report.curves import curves
from experiments.report.directions import directions
from experiments.report.panels import legend_outside
from experiments.report.weights import weights

if TYPE_CHECKING:
    from experiments.report.reading import Report

# Okabe and Ito's colours, told apart by colour-blind readers too; grey is the grid's.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B6508"]
MARKERS = "osD^vP*X"
GREY = "#777777"
MANY_TASKS = 6  # with more than these, tables and pictures summarise the tasks
GRID_REACH = 12.0  # in units of the score
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.dpi": 150,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def draw(report: "Report", drawings: dict[str, Any]) -> list[str]:
    """Draw the experiment's own figures, the weights and cosines into the run's folder.

    Args:
      report: the run.
      drawings: {file name: drawing(report, plt) -> figure, or None without data for it}.

    Returns:
      The names of the files.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = []
    shared = {
        "curves.png": curves, "weights.png": weights, "cosines.png": heatmaps,
        "directions.png": directions,
    }  # fmt: skip
    with plt.rc_context(STYLE):
        for name, drawing in {**drawings, **shared}.items():
            figure = drawing(report, plt)
            if figure is not None:
                figure.savefig(report.path / name)
                plt.close(figure)
                names.append(name)
    return names


def method_style(report: "Report") -> dict[str, dict[str, str]]:
    """One colour and marker a method, the same in every figure."""
    methods = [method for method in report.results if method != "grid"]
    return {
        # The markers go on by one with every round of the colours: no two methods look the same.
        method: {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[(i + i // len(COLORS)) % len(MARKERS)],
        }
        for i, method in enumerate(methods)
    }


def accuracy_profile(report: "Report", plt: Any) -> Any:
    """The first task's score against the second's; top right is better."""
    figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    shown = [report.row(method).scores for method in method_style(report)]
    if "grid" in report.results:
        shown.append(_grid_curve(report, axes))
    for method, style in method_style(report).items():
        row = report.row(method)
        if method == "single":  # two models: lines, as no point is a model of both tasks
            line = {"color": style["color"], "lw": 1.2, "ls": "--", "zorder": 1}
            axes.axvline(row.mean[0], label="single task", **line)
            axes.axhline(row.mean[1], **line)
            band = {"color": style["color"], "alpha": 0.08, "lw": 0, "zorder": 0}
            axes.axvspan(row.mean[0] - row.error[0], row.mean[0] + row.error[0], **band)
            axes.axhspan(row.mean[1] - row.error[1], row.mean[1] + row.error[1], **band)
            continue
        axes.errorbar(
            *row.mean[:, None], xerr=row.error[:1], yerr=row.error[1:], label=row.label,
            ms=8, capsize=2.5, lw=1.2, ls="none", zorder=4, **style,
        )  # fmt: skip
        axes.plot(*row.scores.T, ls="none", ms=3, alpha=0.35, zorder=3, mew=0, **style)
    first, second = report.tasks
    label = report.description["score_label"]
    axes.set(xlabel=f"{first} {label}", ylabel=f"{second} {label}")
    axes.set_title(f"Test {report.score} of both tasks (top right is better)")
    legend_outside(figure)
    low, high = (edge(np.concatenate(shown), axis=0) for edge in (np.nanmin, np.nanmax))
    margin = 0.12 * np.maximum(high - low, 0.1)
    axes.set(xlim=(low - margin)[:1].tolist() + (high + margin)[:1].tolist())
    axes.set(ylim=(low - margin)[1:].tolist() + (high + margin)[1:].tolist())
    return figure


def _grid_curve(report: "Report", axes: Any) -> np.ndarray:
    """Draw the static weights as a curve; the points (n, 2) that the axes should show.

    The ends of the grid give one task up: like the paper's figure, the axes reach
    `GRID_REACH` below the best, and the legend counts the points beyond.
    """
    rows = list(report.variant_rows("grid").values())
    means = np.stack([row.mean for row in rows])
    errors = np.stack([row.error for row in rows])
    inside = (means >= np.nanmax(means) - GRID_REACH).all(axis=1)
    beyond = f" ({np.sum(~inside)} of {len(rows)} beyond the axes)" if (~inside).any() else ""
    axes.errorbar(
        *means.T, xerr=errors[:, 0], yerr=errors[:, 1], color=GREY, lw=1, elinewidth=0.7,
        marker=".", ms=5, label=f"static weights{beyond}", zorder=2,
    )  # fmt: skip
    for row, mean in zip(rows, means, strict=True):
        weight = row.label.split("/")[0]
        place = {"xytext": (5, 3), "textcoords": "offset points", "annotation_clip": True}
        axes.annotate(weight, mean, color=GREY, size=7, **place)
    return means[inside]
