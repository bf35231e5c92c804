"""What a reader of the scores should know of how a method trained, in lines."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.report.dominance import REMEDY, Dominance, dominance

_SHOWN = 6  # of what there may be many of


def happened(
    method: str, result: dict[str, Any], runs: list[list[dict[str, Any]]], tasks: Sequence[str]
) -> list[str]:
    """Runs that stopped, a learning rate at the edge of its grid, weights that sat on one task.

    Args:
      method: its spec.
      result: its entry of results.json.
      runs: its records of the training part, one list a reported run.
      tasks: their names.

    Returns:
      Lines, each a sentence that names the method.
    """
    found = (*_stopped(result), *_edges(result), *_one_task(runs, tasks))
    return [f"{method}: {line}." for line in found]


def _stopped(result: dict[str, Any]) -> Iterator[str]:
    several = len({run["learning_rate"] for run in result["runs"]}) > 1
    stopped = []
    for run in result["runs"]:
        if run["failed_step"] is not None:
            rate = f" at learning rate {run['learning_rate']:g}" if several else ""
            label = f"{run['variant']} seed {run['seed']}".strip()
            stopped.append(f"{label}{rate} (step {run['failed_step']})")
    if stopped:
        yield f"stopped at a number that is not finite: {_some(stopped)}"


def _edges(result: dict[str, Any]) -> Iterator[str]:
    at: dict[tuple[str, float], list[str]] = {}
    for variant, rate in result["selected"].items():
        tried = {r["learning_rate"] for r in result["runs"] if r["variant"] == variant}
        if len(tried) > 1 and rate in (min(tried), max(tried)):
            edge = "largest" if rate == max(tried) else "smallest"
            at.setdefault((edge, rate), []).append(variant)
    for (edge, rate), variants in at.items():
        of = f" of {_some(variants)}" if any(variants) else ""
        further = "larger" if edge == "largest" else "smaller"
        yield (
            f"the {edge} learning rate tried, {rate:g}, was the best{of}, "
            f"a {further} one may be better"
        )


def _one_task(runs: list[list[dict[str, Any]]], tasks: Sequence[str]) -> Iterator[str]:
    found: list[Dominance] = []
    epochs = 0
    for run in runs:
        if "weight" not in run[0] or ("norm" not in run[0] and _constant(run)):  # as asked for
            continue
        numbers = sorted({record["epoch"] for record in run})
        epochs += len(numbers)
        means = (epoch_means([r for r in run if r["epoch"] == number]) for number in numbers)
        found += [d for d in map(dominance, means) if d is not None]
    if 2 * len(found) < max(epochs, 1):
        return
    (task, _), *_ = Counter(d.task for d in found).most_common(1)
    mine = [d for d in found if d.task == task]
    lengths = [d.shorter for d in mine if d.shorter is not None]
    shorter = float(np.median(lengths)) if lengths else None
    mean = Dominance(task, float(np.mean([d.share for d in mine])), shorter)
    among = "" if len(mine) == len(found) else f" (in {len(mine)} of them, in the others another)"
    remedy = "" if shorter is None else f"; remedy: {REMEDY}"
    of = f"in {len(found)} of {epochs} epochs of {len(runs)} runs"
    yield f"its weights sat on one task {of}: {mean.text(tasks)}{among}{remedy}"


def _constant(run: list[dict[str, Any]]) -> bool:
    weight = np.array([record["weight"] for record in run], float)
    return bool((np.ptp(weight, axis=0) <= 1e-6 * np.abs(weight).max()).all())


def epoch_means(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The means of what `dominance` reads, over the records of an epoch."""
    return {
        key: np.array([record[key] for record in records], float).mean(axis=0)
        for key in ("weight", "loss", "norm", "direction_cosine")
        if key in records[0]
    }


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
