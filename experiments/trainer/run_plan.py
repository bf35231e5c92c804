"""Which runs a method consists of, and which of them is reported."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.errors import ExperimentError, reading
from experiments.trainer.config import TrainingConfig, check_rates
from experiments.trainer.methods import Method
from experiments.trainer.run_folder import RESULTS, read_json
from experiments.trainer.training import Run, RunState

REPORTED = ("validation", "test")  # the parts of the data that `results` holds metrics of
Label = dict[str, Any]  # what tells a run from the others: method, variant, learning rate, seed


def planned_runs(method: Method, config: TrainingConfig) -> list[Label]:
    """Every variant with every learning rate and every seed.

    Args:
      method: what is trained.
      config: seeds, and learning rates or the run that they were selected in.

    Returns:
      One label a run.

    Raises:
      ExperimentError: when --tuned-by names a run without this method.
    """
    return [
        {"method": method.spec, "variant": variant.name, "learning_rate": rate, "seed": seed}
        for variant in method.variants
        for rate in _rates(method.spec, variant.name, config)
        for seed in range(config.seeds)
    ]


def _rates(spec: str, variant: str, config: TrainingConfig) -> tuple[float, ...]:
    if config.tuned_by is None:
        return config.learning_rate
    path = config.tuned_by / RESULTS
    with reading(path):
        found = read_json(path).get(spec, {}).get("selected", {})
        selected = {name: float(rate) for name, rate in found.items()}
    if variant not in selected:
        name = f"{spec} {variant}".strip()
        raise ExperimentError(f"--tuned-by: {config.tuned_by} has no finished {name}")
    check_rates(selected[variant])
    return (selected[variant],)


def stacked_runs(method: Method, labels: list[Label]) -> Run:
    """The runs as the trainer takes them, with a leading axis."""
    variants = {variant.name: variant for variant in method.variants}
    mine = [variants[label["variant"]] for label in labels]
    return Run(
        seed=jnp.array([label["seed"] for label in labels], jnp.uint32),
        learning_rate=jnp.array([label["learning_rate"] for label in labels], jnp.float32),
        coefficients=jnp.stack([variant.coefficients for variant in mine]),
        scored=jnp.stack([variant.scored for variant in mine]),
    )


def results(
    method: Method,
    labels: list[Label],
    state: RunState,
    parts: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """A method's entry of results.json.

    Args:
      method: what was trained.
      labels: its runs.
      state: their last state, leaves (runs, ...) in host memory.
      parts: metrics of the best parameters on the `REPORTED` parts, (runs, T) each.

    Returns:
      "selected", the learning rate of each variant that is best on validation; "scored", the
      tasks each is reported for; "runs". Only selected runs have metrics of the test part.
    """
    failed = state.failed_step >= 0
    runs = [
        {
            **label,
            "best_epoch": int(state.best_epoch[r]),
            "score": float(state.best_score[r]),
            "failed_step": int(state.failed_step[r]) if failed[r] else None,
            "validation": {key: value[r].tolist() for key, value in parts["validation"].items()},
        }
        for r, label in enumerate(labels)
    ]
    selected = {}
    for variant in method.variants:
        mine = [run for run in runs if run["variant"] == variant.name]
        selected[variant.name] = _best_learning_rate(mine)
    for r, run in enumerate(runs):
        if run["learning_rate"] == selected[run["variant"]] and not failed[r]:
            run["test"] = {key: value[r].tolist() for key, value in parts["test"].items()}
    scored = {v.name: np.flatnonzero(v.scored).tolist() for v in method.variants}
    return {"selected": selected, "scored": scored, "runs": runs}


def _best_learning_rate(runs: list[dict[str, Any]]) -> float:
    """By the mean validation score over seeds; a rate that any seed failed with comes last."""
    rates = sorted({run["learning_rate"] for run in runs})

    def mean_score(rate: float) -> float:
        mine = [run for run in runs if run["learning_rate"] == rate]
        survived = all(run["failed_step"] is None for run in mine)
        return float(np.mean([run["score"] for run in mine])) if survived else -np.inf

    return max(rates, key=mean_score)


def title(label: Label) -> str:
    """A run in words."""
    variant = f" {label['variant']}" if label["variant"] else ""
    rate, seed = label["learning_rate"], label["seed"]
    return f"{label['method']}{variant}, learning rate {rate:g}, seed {seed}"
