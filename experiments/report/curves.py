"""Training losses and validation scores over the epochs: of every task, of many their quantiles."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.panels import legend_outside

if TYPE_CHECKING:
    from experiments.report.reading import Report

# Of methods that share a colour; broken like the first is single alone.
_DASHES: list[Any] = ["-", ":", "-.", (0, (7, 1, 1, 1, 1, 1)), (0, (7, 3)), (0, (1, 3))]


def curves(report: "Report", plt: Any) -> Any:
    """Loss (above) and validation score (below) while training, mean over runs, a line a method."""
    from experiments.report.figures import COLORS, MANY_TASKS, method_style

    style = method_style(report)
    label = f"validation {report.description['score_label']}"
    rows = {"train": ("loss", "training loss"), "validation": (report.score, label)}
    found = {
        split: {m: s for m in style if (s := series(report, m, split, key))}
        for split, (key, _) in rows.items()
    }
    if not any(found.values()):
        return None
    many = len(report.tasks) > MANY_TASKS
    titles = ["worst tenth of the tasks", "median task", "best tenth"] if many else report.tasks
    figure, grid = plt.subplots(
        2, len(titles), figsize=(1.2 + 3.2 * len(titles), 5.2), sharex=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, (split, (_, label)) in zip(grid, rows.items(), strict=True):
        for method, (epochs, values) in found[split].items():
            lines = _tenths(values, split) if many else values
            color, number = style[method]["color"], list(style).index(method)
            dashes = "--" if method == "single" else _DASHES[number // len(COLORS) % len(_DASHES)]
            for ax, line in zip(axes, lines.T, strict=True):
                ax.plot(epochs, line, color=color, lw=1.3, ls=dashes, label=method)
        axes[0].set_ylabel(label)
        if split == "train" and all((v > 0).all() for _, v in found[split].values()):
            for ax in axes:
                ax.set_yscale("log")
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title.replace("_", " "))
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    legend_outside(figure)
    return figure


def series(
    report: "Report", method: str, split: str, key: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Epochs (points,) and a number of each task (points, T), mean over the runs that went on.

    A task's number is that of the variants that are scored by it: of single, of its own model.
    """
    by_variant: dict[str, list[list[dict[str, Any]]]] = {}
    for run in report.records(method, split):
        if key in run[0]:
            by_variant.setdefault(run[0]["variant"], []).append(run)
    if not by_variant:
        return None
    length = max(len(run) for runs in by_variant.values() for run in runs)
    steps, columns = np.zeros(length), {}
    for variant, runs in by_variant.items():
        whole = [run for run in runs if len(run) == length]  # those that failed are shorter
        if whole:
            values = np.array([[record[key] for record in run] for run in whole], float)
            steps = np.array([record["step"] for record in whole[0]], float)
            if values.ndim == 2:  # one number for all tasks
                values = np.repeat(values[..., None], len(report.tasks), axis=2)
            for task in report.results[method]["scored"][variant]:
                columns[task] = np.mean(values[..., task], axis=0)
    missing = np.full(length, np.nan)
    numbers = [columns.get(task, missing) for task in range(len(report.tasks))]
    epochs = steps / report.results[method]["steps_per_epoch"]
    return epochs, np.stack(numbers, axis=1)


def _tenths(values: np.ndarray, split: str) -> np.ndarray:
    """The worst tenth, the median and the best tenth of the tasks, (points, 3)."""
    quantiles = np.nanquantile(values, [0.1, 0.5, 0.9], axis=1).T
    return quantiles[:, ::-1] if split == "train" else quantiles
