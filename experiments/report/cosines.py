"""Heatmaps of the cosines between the tasks' gradients: which tasks conflict, and when."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.panels import bands_columns, folded

if TYPE_CHECKING:
    from experiments.report.reading import Report

# ColorBrewer's red to blue, told apart by colour-blind readers; red is conflict.
COLOR_MAP = "RdBu"
_FEW = 3  # up to so many tasks, the pairs are rows of a map over epochs
_LEGIBLE = 4.0  # points; tasks whose names would be smaller have none
_CROWD = 4  # of more methods the matrices are drawn smaller
_MANY = 12  # of more methods the matrix at the end alone


def heatmaps(report: "Report", plt: Any) -> Any:
    """Cosines of task gradients while training, mean over runs; None where none were recorded.

    Of up to three tasks, pairs against epochs; of more, the matrix at start, middle and end, and of
    many methods that at the end.
    Grey is the diagonal, and what is not finite.
    """
    methods = {m: s for m in report.results if (s := cosine_series(report, m)) is not None}
    if not methods:
        return None
    off_diagonal = ~np.eye(len(report.tasks), dtype=bool)
    largest = max(np.ma.abs(mean[:, off_diagonal]).max() for _, mean in methods.values())
    limit = float(np.clip(np.ma.filled(largest, 0.0), 0.1, 1))  # noise should look like noise
    colors = plt.get_cmap(COLOR_MAP).with_extremes(bad="#888888")
    options = {"cmap": colors, "vmin": -limit, "vmax": limit}
    draw = _pairs_over_epochs if len(report.tasks) <= _FEW else _matrices
    with plt.rc_context({"axes.grid": False}):
        figure, grid, mesh = draw(report, plt, methods, options)
    bar = figure.colorbar(mesh, ax=grid, fraction=0.05, pad=0.02)
    bar.set_label("cosine")
    end = ", at the end" if draw is _matrices and len(methods) > _MANY else ""
    runs = f"mean over runs{end}; below 0 the tasks conflict"
    figure.suptitle(f"Cosine of the tasks' gradients\n({runs})", size=11)
    return figure


def cosine_series(report: "Report", method: str) -> tuple[np.ndarray, np.ma.MaskedArray] | None:
    """Epochs (points,) and cosines (points, T, T), mean over the runs that did not fail."""
    runs = [run for run in report.records(method) if "cosine" in run[0]]
    if not runs:
        return None
    length = max(map(len, runs))
    runs = [run for run in runs if len(run) == length]  # those that failed are shorter
    cosines = np.array([[record["cosine"] for record in run] for run in runs], float)
    epochs = np.array([r["step"] for r in runs[0]]) / report.results[method]["steps_per_epoch"]
    return epochs, np.ma.masked_invalid(cosines).mean(axis=0)


def _pairs_over_epochs(report: "Report", plt: Any, methods: Any, options: Any) -> Any:
    first, second = np.triu_indices(len(report.tasks), 1)
    pairs = [f"{report.tasks[i]}, {report.tasks[j]}" for i, j in zip(first, second, strict=True)]
    figure, grid = plt.subplots(
        len(methods), 1, figsize=(7.2, 1.1 + (0.45 + 0.3 * len(pairs)) * len(methods)),
        sharex=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, (method, (epochs, cosines)) in zip(grid[:, 0], methods.items(), strict=True):
        # A point is the mean over the epochs since the point before.
        edges = np.concatenate([[0.0], epochs])
        rows = np.arange(len(pairs) + 1) - 0.5
        mesh = axes.pcolormesh(edges, rows, cosines[:, first, second].T, **options)
        axes.set_yticks(range(len(pairs)), pairs)
        axes.invert_yaxis()
        axes.set_title(method, loc="left", size=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
    grid[-1, 0].set_xlabel("epoch")
    return figure, grid, mesh


def _matrices(report: "Report", plt: Any, methods: Any, options: Any) -> Any:
    size, count = 3.6 if len(methods) <= _CROWD else 2.2, len(report.tasks)
    many = len(methods) > _MANY
    rows, columns = bands_columns(len(methods), 6) if many else (len(methods), 3)
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.2 + columns * size, 1.6 + (size + 0.3 * many) * rows),
        sharex=True, sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    shown = iter(grid.flat)
    names = [name.replace("_", " ") for name in report.tasks]
    font = min(9.0, 0.75 * 72 * size / count)
    for method, (epochs, cosines) in methods.items():
        last = len(epochs) - 1
        for column, point in enumerate((last,) if many else (0, len(epochs) // 2, last)):
            axes = next(shown)
            when = f"epoch {epochs[point]:.3g}"
            axes.set_title(folded(method) if many else when, size=9)
            if column == 0 and not many:
                axes.set_ylabel(folded(method), size=9)
            matrix = np.ma.masked_where(np.eye(count, dtype=bool), cosines[point])
            mesh = axes.imshow(matrix, interpolation="nearest", **options)
            if font >= _LEGIBLE:
                axes.set_xticks(range(count), names, rotation=90, size=font)
                axes.set_yticks(range(count), names, size=font)
            else:
                axes.set_xticks([])
                axes.set_yticks([])
            axes.tick_params(length=0)
    for axes in shown:
        axes.set_axis_off()
    return figure, grid, mesh
