"""Table and radar chart of a CelebA run: errors over forty attributes."""

from typing import Any

import numpy as np

from experiments.report.figures import COLORS, method_style
from experiments.report.reading import Report, Row
from experiments.report.table import cost_cells, markdown, mean_error

METRIC = "error"


def table(report: Report) -> str:
    """The methods' mean test error in per cent over all, the easy and the hard attributes."""
    paper = report.description.get("paper", {})
    heads = ["method", "mean error %", "easy", "hard", "learning rate", "time", "step cost"]
    heads += ["paper"] if paper else []
    easy = easy_mask(report)
    lines = []
    for method in report.results:
        row = report.row(method, METRIC)
        cells = []
        for tasks in (np.ones_like(easy), easy, ~easy):
            mean = Row("", row.scores[:, tasks].mean(axis=1, keepdims=True), "")
            cells.append(mean_error(mean.mean[0], mean.error[0]))
        cells += [row.learning_rate, *cost_cells(report, method)]
        if paper:
            cells.append(f"{paper[method][0]:.2f}" if method in paper else "–")
        lines.append([row.label, *cells])
    return markdown(heads, lines)


def easy_mask(report: Report) -> np.ndarray:
    """(T,) bool, the attributes that are drawn apart as easy."""
    return np.isin(report.tasks, report.description["easy"])


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    del report
    return {"attributes.png": radar}


def radar(report: Report, plt: Any) -> Any:
    """Figure 2 of the paper: the error of every attribute, easy and hard ones apart."""
    figure, axes = plt.subplots(
        1, 2, figsize=(12, 6.2), layout="constrained", subplot_kw={"projection": "polar"}
    )
    easy = easy_mask(report)
    style = method_style(report)
    for ax, mask, title in (
        (axes[0], easy, "easy attributes"),
        (axes[1], ~easy, "hard attributes"),
    ):
        names = [name for name, shown in zip(report.tasks, mask, strict=True) if shown]
        angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
        closed = np.append(angles, angles[0])
        for method in report.results:
            row = report.row(method, METRIC)
            color = style.get(method, {"color": COLORS[-1]})["color"]
            errors = row.mean[mask]
            ax.plot(closed, np.append(errors, errors[0]), color=color, lw=1.5, label=row.label)
            ax.fill(closed, np.append(errors, errors[0]), color=color, alpha=0.06)
        ax.set_xticks(angles)
        ax.set_xticklabels([name.replace("_", " ") for name in names], size=7)
        ax.tick_params(axis="x", pad=8)
        ax.set_ylim(0, None)
        ax.set_theta_zero_location("N")
        ax.set_title(title, pad=18)
    axes[0].legend(loc="upper left", bbox_to_anchor=(-0.18, 1.12))
    figure.suptitle("Test error % of each attribute (towards the centre is better)")
    return figure
