"""What a run of the hypernetwork keeps: the front on test examples, and its volume."""

from typing import Any

import jax
import numpy as np

from experiments.errors import ExperimentError
from experiments.pareto_set.training import Programs, Trained, chunks, volume
from experiments.trainer.problem import Problem
from mgda_jax import pareto

Label = dict[str, Any]


def outcome(
    problem: Problem,
    made: Programs,
    runs: list[tuple[Label, Trained]],
    front: np.ndarray,
    few: np.ndarray,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A method's entry of results.json, and what its picture needs.

    Args:
      problem: for its test part.
      made: the method's programs.
      runs: of every learning rate and seed.
      front: (K, T) preferences of the front.
      few: (k, T) those of the networks trained alone.

    Returns:
      "selected", the learning rate that is best on validation; "scored", all tasks; "runs", of
      the selected rate with test metrics. Arrays of the first reported seed: preferences (K, T),
      loss and accuracy (K, T) on test.

    Raises:
      ExperimentError: every run met a loss that is not finite.
    """
    rate = _best_rate(runs)
    test = chunks(problem, "test")
    entries, shown = [], {}
    for label, trained in runs:
        entry = {
            **label,
            "best_epoch": trained.epoch,
            "score": trained.hypervolume,
            "failed_step": trained.failed_step,
            "validation": {"hypervolume": trained.hypervolume},
        }
        if label["learning_rate"] == rate and trained.failed_step is None:
            on_front = made.measure(trained.params, test, front)
            at_few = made.measure(trained.params, test, few)
            entry["test"] = _numbers(on_front, at_few)
            shown = shown or {"preferences": front, **on_front}
        entries.append(entry)
    everything = list(range(len(problem.tasks)))
    return {"selected": {"": rate}, "scored": {"": everything}, "runs": entries}, shown


def _numbers(on_front: dict[str, np.ndarray], at_few: dict[str, np.ndarray]) -> dict[str, Any]:
    losses = on_front["loss"]
    middle = len(losses) // 2
    return {
        "hypervolume": volume(losses),
        "hypervolume_of_few": volume(at_few["loss"]),
        "points": len(losses),
        "non_dominated": int(np.sum(jax.jit(pareto.non_dominated)(losses))),
        "least_loss": losses.min(axis=0).tolist(),
        "middle_loss": losses[middle].tolist(),
        "middle_accuracy": on_front["accuracy"][middle].tolist(),
    }


def _best_rate(runs: list[tuple[Label, Trained]]) -> float:
    """By the mean over seeds; a rate at which any of them failed is out."""
    scores: dict[float, list[float]] = {}
    for label, trained in runs:
        failed = trained.failed_step is not None
        score = -np.inf if failed else trained.hypervolume
        scores.setdefault(label["learning_rate"], []).append(score)
    best = max(scores, key=lambda rate: np.mean(scores[rate]))
    if np.mean(scores[best]) == -np.inf:
        label, trained = next((run for run in runs if run[1].failed_step is not None), runs[0])
        raise ExperimentError(
            f"{label['method']}, learning rate {label['learning_rate']:g}, seed {label['seed']}: a "
            f"loss is not finite by step {trained.failed_step}; no learning rate is left"
        )
    return best
