"""Table and figures of a run, from its files alone.

python -m experiments.report runs/multimnist-digits
python -m experiments.report runs/tune runs/multimnist-digits  # side by side as well
"""

import csv
import dataclasses
import importlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import FAILED, ExperimentError, program, reading
from experiments.figures import MANY_TASKS
from experiments.run_folder import (
    CONFIG,
    METRICS,
    RESULTS,
    SCORES,
    TABLE,
    TIMINGS,
    check_run,
    read_json,
    read_lines,
    write_text,
)

BASELINE = "uniform"
SINGLE = "single"
_CROWD = 4  # with more methods than these the table also shows Δm and the mean rank
# Experiments with a table and figures of their own.
LAYOUTS = {"celeba": "experiments.celeba_report", "cityscapes": "experiments.cityscapes_report"}


@dataclasses.dataclass(frozen=True)
class Row:
    """The reported runs of one method, or of one of its variants.

    Attributes:
      label: how tables and figures name it.
      scores: (seeds, T) test scores; NaN for a run that failed.
      learning_rate: as selected, one or several.
    """

    label: str
    scores: np.ndarray
    learning_rate: str

    @property
    def mean(self) -> np.ndarray:
        """(T,) over the seeds that did not fail."""
        return np.nanmean(self.scores, axis=0)

    @property
    def error(self) -> np.ndarray:
        """(T,) standard error of the mean; 0 of a single seed."""
        count = np.sum(~np.isnan(self.scores), axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt(np.nansum((self.scores - self.mean) ** 2, axis=0) / (count - 1))
        return np.where(count > 1, spread / np.sqrt(count), 0.0)


class Report:
    """A run read back from its folder.

    Attributes:
      path: the folder.
      description: config.json.
      results: results.json, by method.
    """

    def __init__(self, path: Path):
        """Read config.json and results.json; ExperimentError where one is missing."""
        self.path = path
        if not (path / CONFIG).is_file():
            raise ExperimentError(f"{path}: not the folder of a run, it has no {CONFIG}")
        check_run(path)
        self.description = read_json(path / CONFIG)
        if not (path / RESULTS).is_file():
            raise ExperimentError(f"{path}: no method of this run has finished yet")
        self.results = read_json(path / RESULTS)
        self.tasks: list[str] = self.description["tasks"]
        self.score: str = self.description["score"]

    def row(self, method: str, metric: str = "") -> Row:
        """The method's row: every task from the variant that is scored by it.

        Of several variants that score all tasks (the grid), the best on validation. metric
        is what the row shows, by default the score that selected epoch and learning rate.
        """
        result = self.results[method]
        scored = result["scored"]
        if len(scored) > 1 and all(len(tasks) == len(self.tasks) for tasks in scored.values()):
            rows = self.variant_rows(method, metric)
            best = max(rows, key=lambda name: self._validation(method, name))
            return dataclasses.replace(rows[best], label=f"{method}, best {best}")
        columns, rates = {}, []
        for name, row in self.variant_rows(method, metric).items():
            columns.update({task: row.scores[:, task] for task in scored[name]})
            rates.append(row.learning_rate)
        scores = np.stack([columns[task] for task in range(len(self.tasks))], axis=1)
        return Row(method, scores, ", ".join(dict.fromkeys(rates)))

    def variant_rows(self, method: str, metric: str = "") -> dict[str, Row]:
        """One row for each variant, with its selected learning rate."""
        result, rows, metric = self.results[method], {}, metric or self.score
        for name, rate in result["selected"].items():
            runs = self._runs(method, name)
            missing = {metric: [np.nan] * len(self.tasks)}
            scores = np.array([run.get("test", missing)[metric] for run in runs], float)
            rows[name] = Row(name, scores, f"{rate:g}")
        return rows

    def _runs(self, method: str, variant: str) -> list[dict[str, Any]]:
        result = self.results[method]
        rate = result["selected"][variant]
        return [
            run
            for run in result["runs"]
            if run["variant"] == variant and run["learning_rate"] == rate
        ]

    def _validation(self, method: str, variant: str) -> float:
        scores = [run["score"] for run in self._runs(method, variant)]
        return float(np.mean([-np.inf if score is None else score for score in scores]))

    def records(self, method: str, split: str = "train") -> list[list[dict[str, Any]]]:
        """metrics.jsonl of the reported runs of a method on a split, one list a run."""
        result = self.results[method]
        runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for record in read_lines(self.path / METRICS):
            if record["method"] != method or record["split"] != split:
                continue
            if record["learning_rate"] == result["selected"][record["variant"]]:
                runs.setdefault((record["variant"], record["seed"]), []).append(record)
        return list(runs.values())

    def seconds(self, method: str) -> float:
        """Wall time of all runs of a method together, compilation included."""
        # A resumed epoch was trained twice but counts once.
        epochs = {(r["epoch"], "compile_seconds" in r): r for r in self._timings(method)}
        return sum(v for r in epochs.values() for k, v in r.items() if k.endswith("_seconds"))

    def step_seconds(self, method: str) -> float:
        """Seconds a training step and run takes, in the fastest epoch."""
        epochs = [
            r["train_seconds"] / r["runs"] for r in self._timings(method) if "train_seconds" in r
        ]
        return min(epochs, default=np.nan) / self.results[method]["steps_per_epoch"]

    def _timings(self, method: str) -> list[dict[str, Any]]:
        return [r for r in read_lines(self.path / TIMINGS) if r["method"] == method]


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


def without_change(report: Report) -> list[str]:
    """The tasks that `relative_change` leaves out."""
    if SINGLE not in report.results:
        return []
    scores = report.row(SINGLE).mean
    return [task for task, score in zip(report.tasks, scores, strict=True) if score == 0]


def scores(report: Report) -> str:
    """Every score of every reported run as CSV, one number a row."""
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
                    for task, value in zip(report.tasks, values, strict=True):
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


def layout(report: Report) -> Any:
    """The module with the experiment's own `table(report)` and `figures(report)`, or this one."""
    name = LAYOUTS.get(report.description["experiment"])
    return importlib.import_module(name) if name else sys.modules[__name__]


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    from experiments.figures import accuracy_profile

    return {"accuracy_profile.png": accuracy_profile} if len(report.tasks) == 2 else {}


def summary(report: Report) -> str:
    """The table with what it takes to read it."""
    description = report.description
    config, examples = description["config"], description["examples"]
    failed = [
        f"{run['method']} {run['variant']} seed {run['seed']}".replace("  ", " ")
        for result in report.results.values()
        for run in result["runs"]
        if run["failed_step"] is not None
    ]
    lines = [
        layout(report).table(report),
        "",
        f"Test {description.get('shown', report.score)} (mean ± standard error over "
        f"{config['seeds']} seeds) at the epoch that is best on validation, of "
        f"{config['epochs']}; {examples['train']} training, "
        f"{examples['validation']} validation, {examples['test']} test examples. time: all runs "
        "of the method, compilation included. step cost: of one run's training step, "
        f"fastest epoch, relative to {BASELINE}.",
    ]
    left_out = without_change(report)
    if left_out and "Δm" in lines[0]:
        lines += ["", f"Δm is without the tasks that single scores 0 on: {', '.join(left_out)}."]
    if failed:
        lines += ["", f"Stopped at a number that is not finite: {', '.join(failed)}."]
    return "\n".join(lines)


def write_report(path: Path) -> str:
    """Write table.md and the figures of a run; the text to print."""
    from experiments.figures import draw

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


def main(args: list[str]) -> None:
    """Redraw the table and figures of each folder named; of several, compare them."""
    with program("report"):
        if not args or args[0].startswith("-"):
            print("usage: python -m experiments.report runs/NAME ...\n\n" + str(__doc__).strip())
            sys.exit(0 if args and args[0] in ("-h", "--help") else FAILED)
        for path in args:
            print(write_report(Path(path)))
        if len(args) > 1:
            print(f"\n{side_by_side([Report(Path(path)) for path in args])}")


if __name__ == "__main__":
    main(sys.argv[1:])
