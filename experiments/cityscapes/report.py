"""Table and bars of a Cityscapes run: three tasks, each in its own unit."""

from typing import Any

import numpy as np

from experiments.report.figures import COLORS, GREY, method_style
from experiments.report.reading import Report
from experiments.report.table import cost_cells, markdown, mean_error

METRIC = "shown"
# In the order of the paper's table, which is not that of the tasks.
COLUMNS = {
    "semantic": "mean IoU %",
    "instance": "instance error px",
    "disparity": "disparity error px",
}


def table(report: Report) -> str:
    """Mean IoU and the two L1 errors of every method on the test part."""
    paper = report.description.get("paper", {})
    heads = ["method", *COLUMNS.values(), "learning rate", "time", "step cost"]
    heads += ["paper"] if paper else []
    order = [report.tasks.index(task) for task in COLUMNS]
    lines = []
    for method in report.results:
        row = report.row(method, METRIC)
        cells = [mean_error(row.mean[t], row.error[t]) for t in order]
        cells += [row.learning_rate, *cost_cells(report, method)]
        if paper:
            found = paper.get(method)
            cells.append(" / ".join(f"{found[t]:.2f}" for t in order) if found else "–")
        lines.append([row.label, *cells])
    return markdown(heads, lines)


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    del report
    return {"tasks.png": bars}


def bars(report: Report, plt: Any) -> Any:
    """Figure 4 of the paper: a group of bars a task, a bar a method."""
    figure, axes = plt.subplots(1, len(COLUMNS), figsize=(10, 3.8), layout="constrained")
    style, methods = method_style(report), list(report.results)
    rows = [report.row(method, METRIC) for method in methods]
    colors = [style.get(method, {"color": GREY})["color"] for method in methods]
    for ax, (task, label) in zip(axes, COLUMNS.items(), strict=True):
        t = report.tasks.index(task)
        means, errors = ([getattr(row, key)[t] for row in rows] for key in ("mean", "error"))
        ax.bar(np.arange(len(rows)), means, yerr=errors, color=colors, capsize=3, width=0.7)
        ax.set_xticks(np.arange(len(rows)), [row.label for row in rows], rotation=35, ha="right")
        ax.set_title(f"{label} ({'higher' if task == 'semantic' else 'lower'} is better)")
        ax.grid(axis="x", visible=False)
        ax.set_axisbelow(True)
        single = rows[methods.index("single")].mean[t] if "single" in methods else None
        if single is not None:
            ax.axhline(single, color=COLORS[6], ls="--", lw=1)
    return figure
