"""Figures of a run: the accuracy profile of two tasks, and the weights over time."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.cosines import heatmaps
from experiments.report.curves import curves
from experiments.report.directions import directions

if TYPE_CHECKING:
    from experiments.report.reading import Report

# Okabe and Ito's colours, told apart by colour-blind readers too; grey is the grid's.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B6508"]
MARKERS = "osD^vP*X"
GREY = "#777777"
MANY_TASKS = 6  # with more than these, tables and pictures summarise the tasks
_DECADES = 2  # of a share of the weight, above and below an even one
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
        "curves.png": curves, "weights.png": _weights, "cosines.png": heatmaps,
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


# With more methods than these the legend stands beside the plot.
_CROWD = 10


def accuracy_profile(report: "Report", plt: Any) -> Any:
    """The first task's score against the second's; top right is better."""
    crowd = len(report.results) > _CROWD
    size = (9.6, 5.2) if crowd else (6.4, 5.2)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
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
    if crowd:
        columns = 1 if len(report.results) <= 24 else 2
        figure.legend(loc="outside right upper", ncols=columns, fontsize=7)
    else:
        axes.legend(loc="best")
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


def _weights(report: "Report", plt: Any) -> Any:
    """Weights, cosine of the task gradients and norm of the direction while training."""
    methods = {m: r for m in report.results if (r := _series(report, m)) is not None}
    if not methods:
        return None
    if len(report.tasks) > MANY_TASKS:
        return _weight_maps(report, plt, methods)
    rows = [key for key in ("weight", "cosine", "norm") if any(key in s for s in methods.values())]
    figure, grid = plt.subplots(
        len(rows), len(methods), figsize=(1.4 + 3.2 * len(methods), 0.8 + 2.0 * len(rows)),
        sharex=True, sharey="row", squeeze=False, layout="constrained",
    )  # fmt: skip
    names = {"weight": "task weight", "cosine": "cosine of gradients", "norm": "‖direction‖"}
    for column, (method, series) in enumerate(methods.items()):
        grid[0, column].set_title(method)
        grid[-1, column].set_xlabel("epoch")
        for axes, key in zip(grid[:, column], rows, strict=True):
            if key not in series:
                axes.text(
                    0.5, 0.5, "not computed", ha="center", color=GREY, transform=axes.transAxes
                )
                continue
            lines = series[key]
            for t in range(lines.shape[-1]):
                color = COLORS[t % len(COLORS)] if key == "weight" else GREY
                label = report.tasks[t] if key == "weight" else None
                _band(axes, series["epoch"], lines[..., t], color, label)
            if key == "cosine":
                axes.axhline(0, color="black", lw=0.7)
    for axes, key in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(names[key])
        if key == "norm":
            axes.set_yscale("log")
        elif key == "cosine":  # a scale on which noise looks like noise
            limit = max(0.1, 1.1 * max(map(abs, axes.get_ylim())))
            axes.set_ylim(-limit, limit)
        elif all(_on_simplex(series["weight"]) for series in methods.values()):
            axes.set_ylim(0, 1)
    if len(report.tasks) <= 8:
        grid[0, 0].legend(loc="best", ncols=min(2, len(report.tasks)))
    return figure


def _weight_maps(report: "Report", plt: Any, methods: dict[str, Any]) -> Any:
    """The tasks' shares of the weight over time, a map a method, heaviest task above.

    A share is |w_t| / Σ |w|, drawn in multiples of 1/T on a logarithmic scale: white is even.
    """
    count, height = len(report.tasks), float(np.clip(0.13 * len(report.tasks), 2.0, 7.0))
    columns = min(3, len(methods))
    rows = -(-len(methods) // columns)
    legible = height * 72 / count >= 5  # points a row
    width = 3.2 + (1.5 if legible else 0.0)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.2 + width * columns, 0.9 + (height + 0.5) * rows),
        squeeze=False, sharex=True, layout="constrained",
    )  # fmt: skip
    colors = plt.get_cmap("PuOr_r").with_extremes(bad=GREY)
    mesh = None
    with plt.rc_context({"axes.grid": False}):
        for axes, (method, series) in zip(grid.flat, methods.items(), strict=False):
            weight = np.abs(series["weight"]).mean(axis=0)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = weight / weight.sum(axis=1, keepdims=True) * count
                level = np.clip(np.log10(share), -_DECADES, _DECADES)
            order = np.argsort(-np.nan_to_num(share).mean(axis=0), kind="stable")
            edges = np.concatenate([[0.0], series["epoch"]])
            rows_at = np.arange(count + 1) - 0.5
            mesh = axes.pcolormesh(
                edges, rows_at, level[:, order].T, cmap=colors, vmin=-_DECADES, vmax=_DECADES,
                rasterized=True,
            )  # fmt: skip
            axes.invert_yaxis()
            axes.grid(visible=False)
            axes.set_title(method, size=9)
            names = [report.tasks[t].replace("_", " ") for t in order]
            if legible:
                axes.set_yticks(range(count), names, size=min(8.0, 0.8 * height * 72 / count))
            else:
                axes.set_yticks([0, count - 1], [names[0], names[-1]], size=7)
            axes.tick_params(length=0)
    for axes in list(grid.flat)[len(methods) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    ticks = np.arange(-_DECADES, _DECADES + 1)
    bar = figure.colorbar(mesh, ax=grid, fraction=0.05, pad=0.02, ticks=ticks)
    bar.ax.set_yticklabels([f"{10.0**tick:g}" for tick in ticks])
    bar.set_label("share of the weight, 1 is even")
    figure.suptitle("Weights over time, the heaviest task above", size=11)
    return figure


def _series(report: "Report", method: str) -> dict[str, np.ndarray] | None:
    """(runs, points, lines) of what a method logged; None where its weights never change."""
    runs = report.records(method)
    if not runs or "weight" not in runs[0][0]:
        return None
    length = max(map(len, runs))
    runs = [run for run in runs if len(run) == length]  # those that failed are shorter
    weight = np.array([[record["weight"] for record in run] for run in runs], float)
    if np.ptp(weight, axis=1).max() <= 1e-6 * np.abs(weight).max():  # means of equal numbers
        return None
    steps = report.results[method]["steps_per_epoch"]
    series = {"epoch": np.array([r["step"] / steps for r in runs[0]]), "weight": weight}
    if "cosine" in runs[0][0]:
        cosine = np.array([[record["cosine"] for record in run] for run in runs], float)
        above = np.triu_indices(cosine.shape[-1], 1)
        series["cosine"] = cosine[..., above[0], above[1]].mean(axis=-1, keepdims=True)
        norm = np.array([[record["direction_norm"] for record in run] for run in runs], float)
        series["norm"] = norm[..., None]
    return series


def _on_simplex(weight: np.ndarray) -> bool:
    return bool((weight >= 0).all() and np.allclose(weight.sum(axis=-1), 1, atol=1e-3))


def _band(axes: Any, x: np.ndarray, lines: np.ndarray, color: str, label: str | None) -> None:
    """The mean over runs, and the range of the runs around it."""
    axes.plot(x, lines.mean(axis=0), color=color, lw=1.5, label=label)
    axes.fill_between(x, lines.min(axis=0), lines.max(axis=0), color=color, alpha=0.18, lw=0)
