"""The tasks' weights over the epochs: lines with cosine and norm of few tasks, a map of many."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.panels import bands_columns, blocks, folded, legend_outside

if TYPE_CHECKING:
    from experiments.report.reading import Report

_DECADES = 2  # of a share of the weight, above and below an even one
_NAMED = 6  # of more methods the maps are small and name no task


def weights(report: "Report", plt: Any) -> Any:
    """Weights, cosine of the task gradients and norm of the direction while training."""
    from experiments.report.figures import MANY_TASKS

    methods = {m: r for m in report.results if (r := weight_series(report, m)) is not None}
    if not methods:
        return None
    draw = _maps if len(report.tasks) > MANY_TASKS else _lines
    return draw(report, plt, methods)


def weight_series(report: "Report", method: str) -> dict[str, np.ndarray] | None:
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


def _lines(report: "Report", plt: Any, methods: dict[str, Any]) -> Any:
    from experiments.report.figures import COLORS, GREY

    names = {"weight": "task weight", "cosine": "cosine of\ngradients", "norm": "‖direction‖"}
    rows = [key for key in names if any(key in series for series in methods.values())]
    figure, panels = blocks(plt, list(methods), [names[key] for key in rows])
    for block, series in zip(panels, methods.values(), strict=True):
        for axes, key in zip(block, rows, strict=True):
            if key not in series:
                place = {"ha": "center", "transform": axes.transAxes}
                axes.text(0.5, 0.5, "not computed", color=GREY, **place)
                continue
            lines = series[key]
            for t in range(lines.shape[-1]):
                color = COLORS[t % len(COLORS)] if key == "weight" else GREY
                label = report.tasks[t].replace("_", " ") if key == "weight" else None
                _band(axes, series["epoch"], lines[..., t], color, label)
            if key == "cosine":
                axes.axhline(0, color="black", lw=0.7)
    simplex = all(_on_simplex(series["weight"]) for series in methods.values())
    for row, key in enumerate(rows):  # one scale for all methods
        drawn = [b[row] for b, s in zip(panels, methods.values(), strict=True) if key in s]
        if key == "norm":
            for axes in drawn:
                axes.set_yscale("log")
        ends = [end for axes in drawn for end in axes.get_ylim()]
        low, high = (0.0, 1.0) if simplex and key == "weight" else (min(ends), max(ends))
        if key == "cosine":  # on which noise looks like noise
            high = float(np.clip(1.1 * max(high, -low), 0.1, 1.05))
            low = -high
        for axes in drawn:
            axes.set_ylim(low, high)
    legend_outside(figure)
    return figure


def _maps(report: "Report", plt: Any, methods: dict[str, Any]) -> Any:
    """The tasks' shares of the weight over time, a map a method, heaviest task above.

    A share is |w_t| / Σ |w|, drawn in multiples of 1/T on a logarithmic scale: white is even.
    """
    from experiments.report.figures import GREY

    count, few = len(report.tasks), len(methods) <= _NAMED
    height = float(np.clip(0.13 * count, 2.0, 7.0 if few else 2.5))
    rows, columns = bands_columns(len(methods), 3 if few else 6)
    legible = few and height * 72 / count >= 5  # points a row
    width = 2.2 + (1.0 if few else 0.0) + (1.5 if legible else 0.0)
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
            axes.set_title(folded(method), size=9)
            axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
            names = [report.tasks[t].replace("_", " ") for t in order]
            if legible:
                axes.set_yticks(range(count), names, size=min(8.0, 0.8 * height * 72 / count))
            else:
                ends = [0, count - 1] if few else []
                axes.set_yticks(ends, [names[t] for t in ends], size=7)
            axes.tick_params(length=0)
    for axes in list(grid.flat)[len(methods) :]:
        axes.set_axis_off()
    for axes in list(grid.flat)[: len(methods)][-columns:]:
        axes.set_xlabel("epoch")
        axes.tick_params(labelbottom=True)
    ticks = np.arange(-_DECADES, _DECADES + 1)
    bar = figure.colorbar(mesh, ax=grid, fraction=0.05, pad=0.02, ticks=ticks)
    bar.ax.set_yticklabels([f"{10.0**tick:g}" for tick in ticks])
    bar.set_label("share of the weight, 1 is even")
    figure.suptitle("Weights over time, the heaviest task above", size=11)
    return figure


def _on_simplex(weight: np.ndarray) -> bool:
    return bool((weight >= 0).all() and np.allclose(weight.sum(axis=-1), 1, atol=1e-3))


def _band(axes: Any, x: np.ndarray, lines: np.ndarray, color: str, label: str | None) -> None:
    """The mean over runs, and the range of the runs around it."""
    axes.plot(x, lines.mean(axis=0), color=color, lw=1.5, label=label)
    axes.fill_between(x, lines.min(axis=0), lines.max(axis=0), color=color, alpha=0.18, lw=0)
