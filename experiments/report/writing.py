"""Table and figures of a run, written into its folder."""

import importlib
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError, reading
from experiments.report.reading import BASELINE, SINGLE, Report, Row
from experiments.report.table import markdown, mean_error, scores
from experiments.trainer.run_folder import SCORES, TABLE, write_text


def without_change(report: Report) -> list[str]:
    """The tasks that `relative_change` leaves out."""
    if SINGLE not in report.results:
        return []
    scores = report.row(SINGLE).mean
    return [task for task, score in zip(report.tasks, scores, strict=True) if score == 0]


def layout(report: Report) -> Any:
    """The module with the experiment's own `table(report)` and `figures(report)`, or `table`."""
    name = report.description["experiment"]
    own = (Path(__file__).parents[1] / name / "report.py").is_file()
    return importlib.import_module(
        f"experiments.{name}.report" if own else "experiments.report.table"
    )


def summary(report: Report) -> str:
    """The table with what it takes to read it."""
    description = report.description
    config, examples = description["config"], description["examples"]
    own = layout(report)
    lines = [
        own.table(report),
        "",
        own.caption(report)
        if hasattr(own, "caption")
        else f"Test {description.get('shown', report.score)} (mean ± standard error over "
        f"{config['seeds']} seeds) at the epoch that is best on validation, of "
        f"{config['epochs']}; {examples['train']} training, "
        f"{examples['validation']} validation, {examples['test']} test examples. time: all runs "
        "of the method, compilation included. step cost: of one run's training step, "
        f"fastest epoch, relative to {BASELINE}.",
    ]
    left_out = without_change(report)
    if left_out and "Δm" in lines[0]:
        lines += ["", f"Δm is without the tasks that single scores 0 on: {', '.join(left_out)}."]
    if found := report.happened():
        lines += ["", "What happened:", "", *(f"- {line}" for line in found)]
    return "\n".join(lines)


def write_report(path: Path) -> str:
    """Write table.md and the figures of a run; the text to print."""
    from experiments.report.figures import draw

    with reading(path):
        return _write_report(Report(path), draw)


def _write_report(report: Report, draw: Any) -> str:
    path, text = report.path, summary(report)
    names = (report.description["experiment"], report.description["config"].get("dataset"))
    title = f"# {': '.join(filter(None, names))}"
    environment = ", ".join(f"{k} {v}" for k, v in report.description["versions"].items())
    devices = ", ".join(sorted(set(report.description["devices"])))
    footer = (
        f"`{report.description['command']}`\n\n"
        f"Python {report.description['python']}, {environment}; "
        f"{len(report.description['devices'])} × {devices}."
    )
    write_text(path / TABLE, f"{title}\n\n{text}\n\n{footer}\n")
    write_text(path / SCORES, scores(report))
    written = [TABLE, SCORES, *draw(report, layout(report).figures(report))]
    return f"\n{text}\n\n{path}: {', '.join(written)}"


def side_by_side(reports: list[Report]) -> str:
    """The mean scores of each method in several runs of the same tasks as a Markdown table."""
    first = reports[0]
    for other in reports[1:]:
        if (other.tasks, other.score) != (first.tasks, first.score):
            raise ExperimentError(
                f"{other.path}: has other tasks than {first.path}, not to be set side by side"
            )
    methods = dict.fromkeys(method for report in reports for method in report.results)
    lines = []
    for method in methods:
        cells = []
        for report in reports:
            if method not in report.results:
                cells.append("–")
                continue
            scores = report.row(method).scores.mean(axis=1, keepdims=True)
            row = Row("", scores, "")
            cells.append(mean_error(row.mean[0], row.error[0]))
        lines.append([method, *cells])
    label = first.description["score_label"]
    return markdown([f"mean {label}", *(str(report.path) for report in reports)], lines)
