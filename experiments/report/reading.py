"""A run read back from its folder."""

import dataclasses
import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import ExperimentError, first_line
from experiments.report.happened import happened
from experiments.trainer.run_folder import (
    CONFIG,
    METRICS,
    RESULTS,
    TIMINGS,
    check_run,
    read_json,
    read_lines,
    shown_path,
)

BASELINE = "uniform"


SINGLE = "single"


def reported_records(
    lines: list[dict[str, Any]], method: str, selected: dict[str, float], split: str = "train"
) -> list[list[dict[str, Any]]]:
    """The records of a method's runs at the selected learning rates, one list a run."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for record in lines:
        if record["method"] != method or record["split"] != split:
            continue
        if record["learning_rate"] == selected[record["variant"]]:
            runs.setdefault((record["variant"], record["seed"]), []).append(record)
    return list(runs.values())


@dataclasses.dataclass(frozen=True)
class Row:
    """The reported runs of one method, or of one of its variants.

    Attributes:
      label: how tables and figures name it.
      scores: (seeds, T) test scores, T equal ones where the score is of all tasks together; NaN
        for a run that failed.
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
            found = (np.array(run.get("test", missing)[metric], float) for run in runs)
            scores = np.stack([np.broadcast_to(x, len(self.tasks)) for x in found])
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
        return reported_records(self._lines, method, self.results[method]["selected"], split)

    @functools.cached_property
    def _lines(self) -> list[dict[str, Any]]:
        return read_lines(self.path / METRICS)

    def happened(self) -> list[str]:
        """What to know of how the methods trained, a line each."""
        lines = []
        for method, result in self.results.items():
            lines += happened(method, result, self.records(method), self.tasks)
        return lines

    def shown(self, method: str) -> dict[str, np.ndarray]:
        """What the run kept of a method's first seed for pictures; empty where there is nothing."""
        path = shown_path(self.path, method)
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ExperimentError(f"{path}: not as a run wrote it ({first_line(error)})") from None

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
