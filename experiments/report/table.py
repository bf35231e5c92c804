"""What most experiments report: a table, and what is drawn."""

import csv
import io
from typing import Any

import numpy as np

from experiments.report.figures import MANY_TASKS
from experiments.report.reading import BASELINE, SINGLE, Report, Row

_CROWD = 4  # with more methods than these the table also shows Δm and the mean rank


def table(report: Report) -> str:
    """The methods' test scores as a Markdown table: every task's; of many, mean and worst."""
    paper = report.description.get("paper", {})
    label = report.description["score_label"]
    many = len(report.tasks) > MANY_TASKS
    tasks = [f"worst {label}", "worst task"] if many else [f"{t} {label}" for t in report.tasks]
    heads = ["method", *tasks, "mean", "learning rate"]
    crowd = len(report.results) > _CROWD or many
    heads += ["Δm %", "mean rank"] if crowd else []
    heads += ["time", "step cost"] + (["paper"] if paper else [])
    ranks = mean_ranks(report)
    lines = []
    for method in report.results:
        row = report.row(method)
        cells = [mean_error(m, e) for m, e in zip(row.mean, row.error, strict=True)]
        if many:
            worst = int(np.argmin(row.mean))
            cells = [cells[worst], report.tasks[worst]]
        average = Row("", row.scores.mean(axis=1, keepdims=True), "")
        cells.append(mean_error(average.mean[0], average.error[0]))
        cells.append(row.learning_rate)
        if crowd:
            change = relative_change(report, method)
            cells += ["–" if np.isnan(change) else f"{change:.2f}", f"{ranks[method]:.1f}"]
        cells += cost_cells(report, method)
        if paper:
            cells.append(" / ".join(f"{value:.2f}" for value in paper.get(method, [])) or "–")
        lines.append([row.label, *cells])
    return markdown(heads, lines)


def relative_change(report: Report, method: str) -> float:
    """Δm: mean over tasks of 100·(S_t − M_t) / |S_t|, S the single-task scores; below 0 wins.

    Tasks whose single-task score is 0 have no relative change and are left out; NaN where none is
    left, or there is no single-task run.
    """
    if SINGLE not in report.results:
        return np.nan
    single = report.row(SINGLE).mean
    kept = single != 0
    change = (single - report.row(method).mean)[kept] / np.abs(single[kept])
    return float(np.mean(100 * change)) if kept.any() else np.nan


def scores(report: Report) -> str:
    """Every score of every reported run as CSV, one number a row; no task where it is of all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow("method variant learning_rate seed part metric task value".split())
    for method, result in report.results.items():
        for run in result["runs"]:
            if "test" not in run:
                continue
            label = (method, run["variant"], run["learning_rate"], run["seed"])
            for part in ("validation", "test"):
                for metric, values in run.get(part, {}).items():
                    named = (
                        zip(report.tasks, values, strict=True) if isinstance(values, list) else ()
                    )
                    for task, value in named or [("", values)]:
                        writer.writerow((*label, part, metric, task, value))
    return text.getvalue()


def mean_ranks(report: Report) -> dict[str, float]:
    """The mean over tasks of a method's place among all, 1 the best, ties sharing theirs."""
    means = np.stack([report.row(method).mean for method in report.results])
    above = (means[None] > means[:, None]).sum(axis=1)
    level = (means[None] == means[:, None]).sum(axis=1)
    places = (above + (level + 1) / 2).mean(axis=1)
    return dict(zip(report.results, places.tolist(), strict=True))


def cost_cells(report: Report, method: str) -> list[str]:
    """Wall time of a method, and its step relative to the baseline's."""
    baseline = report.step_seconds(BASELINE) if BASELINE in report.results else np.nan
    cost = report.step_seconds(method) / baseline
    return [f"{report.seconds(method):.0f} s", "–" if np.isnan(cost) else f"{cost:.2f}"]


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    from experiments.report.figures import accuracy_profile

    return {"accuracy_profile.png": accuracy_profile} if len(report.tasks) == 2 else {}


def mean_error(mean: float, error: float) -> str:
    """A mean with its standard error, where there is one."""
    return f"{mean:.2f} ± {error:.2f}" if error else f"{mean:.2f}"


def markdown(heads: list[str], lines: list[list[str]]) -> str:
    """A Markdown table, numbers aligned to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (width - 1) + ":") if i else "-" * width for i, width in enumerate(widths)]
    return "\n".join([line(heads), line(rule), *map(line, lines)])
