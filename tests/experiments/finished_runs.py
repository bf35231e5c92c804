"""Folders of finished runs, written by hand, so that every number is known."""

import json
from pathlib import Path

import numpy as np

from experiments.trainer.run_folder import CONFIG, METRICS, RESULTS, TIMINGS, write_json

SINGLE = {"left": [[90, 10], [94, 12]], "right": [[11, 80], [9, 88]]}
SHARED = [[91, 81], [93, 83]]
GRID = {"0.25/0.75": [[80, 90], [82, 92]], "0.75/0.25": [[90, 80], [92, 84]]}


def result(scores: dict[str, list], scored: dict[str, list[int]], scores_on_validation: dict):
    runs = [
        {
            "variant": name,
            "learning_rate": 0.1,
            "seed": seed,
            "score": scores_on_validation[name],
            "failed_step": None,
            "test": {"accuracy": pair},
        }
        for name, pairs in scores.items()
        for seed, pair in enumerate(pairs)
    ]
    selected = dict.fromkeys(scores, 0.1)
    return {"selected": selected, "scored": scored, "steps_per_epoch": 5, "runs": runs}


def with_method(method: str, entry: dict) -> dict:
    return {method: {**entry, "runs": [{"method": method, **run} for run in entry["runs"]]}}


def two_tasks(tmp_path: Path) -> Path:
    """A finished run of single, uniform, mgda and a grid of two."""
    both = [0, 1]
    on_validation = dict(zip(GRID, (7, 6), strict=True))
    results = {
        **with_method("single", result(SINGLE, {"left": [0], "right": [1]}, dict(left=9, right=9))),
        **with_method("uniform", result({"": SHARED}, {"": both}, {"": 8})),
        **with_method("mgda", result({"": SHARED}, {"": both}, {"": 8})),
        **with_method("grid", result(GRID, dict.fromkeys(GRID, both), on_validation)),
    }
    write_json(tmp_path / RESULTS, results)
    description = {
        "experiment": "multimnist",
        "config": {"dataset": "digits", "seeds": 2, "epochs": 2},
        "tasks": ["left", "right"],
        "score": "accuracy",
        "score_label": "accuracy %",
        "examples": {"train": 30, "validation": 10, "test": 10},
        "command": "python -m experiments.multimnist",
        "python": "3.11",
        "versions": {"jax": "1"},
        "devices": ["cpu"],
        "paper": {"uniform": [96.46, 94.99]},
    }
    write_json(tmp_path / CONFIG, description)
    seconds = {"single": 2.0, "uniform": 1.0, "mgda": 1.5, "grid": 2.0}
    runs = {"single": 4, "uniform": 2, "mgda": 2, "grid": 4}
    timings = [
        {"method": m, "epoch": e, "runs": runs[m], "train_seconds": s * (3 - e)}
        for m, s in seconds.items()
        for e in (1, 2)
    ]
    timings.append({"method": "mgda", "epoch": 0, "runs": 2, "compile_seconds": 10.0})
    (tmp_path / TIMINGS).write_text("".join(json.dumps(t) + "\n" for t in timings))
    lines = [
        {
            "method": method, "variant": "", "learning_rate": 0.1, "seed": seed,
            "split": "train", "epoch": 1, "step": step, "loss": [1.0, 2.0],
            "weight": [0.1 * step, 1 - 0.1 * step] if method == "mgda" else [1.0, 1.0],
            "cosine": [[1.0, -0.2], [-0.2, 1.0]], "direction_norm": 0.5,
        }
        for method in ("uniform", "mgda") for seed in (0, 1) for step in (5, 10)
    ]  # fmt: skip
    (tmp_path / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def many(tmp_path: Path, num_tasks: int, single: float = 50.0, epochs: int = 4) -> Path:
    """A finished run of three methods with many tasks."""
    tasks = [f"task_{t:03}" for t in range(num_tasks)]
    rng, everything = np.random.default_rng(0), list(range(num_tasks))
    alone = {task: [rng.uniform(40, 60, num_tasks).tolist()] for task in tasks}
    for t, task in enumerate(tasks[:3]):
        alone[task][0][t] = single
    lone = {task: [t] for t, task in enumerate(tasks)}
    results = {**with_method("single", result(alone, lone, dict.fromkeys(tasks, 9)))}
    log = []
    for method in ("uniform", "mgda"):
        values = rng.uniform(40, 60, (2, num_tasks)).tolist()
        results |= with_method(method, result({"": values}, {"": everything}, {"": 8}))
        for seed in (0, 1):
            for epoch in range(1, epochs + 1):
                label = {"method": method, "variant": "", "learning_rate": 0.1, "seed": seed}
                label |= {"epoch": epoch, "step": 5 * epoch}
                weight = rng.dirichlet(np.exp(-np.arange(num_tasks) / (epoch + 5)) * 3)
                cosine = np.clip(rng.normal(0, 0.2, (num_tasks, num_tasks)), -1, 1)
                np.fill_diagonal(cosine, 1.0)
                loss = np.exp(-epoch / np.linspace(5, 40, num_tasks))
                train = {"weight": weight.tolist(), "cosine": (cosine + cosine.T).tolist()}
                train |= {"direction_norm": 1 / epoch, "loss": loss.tolist(), "split": "train"}
                train |= {"norm": (loss / 3).tolist(), "direction_cosine": cosine[0].tolist()}
                if method == "uniform":  # as of a rule on the rows
                    del train["weight"]
                log += [{**label, **train}]
                score = 100 * (1 - loss)
                log += [{**label, "accuracy": score.tolist(), "split": "validation"}]
    write_json(tmp_path / RESULTS, results)
    description = {
        "experiment": "own",
        "config": {"seeds": 2, "epochs": epochs},
        "tasks": tasks,
        "score": "accuracy",
        "score_label": "accuracy %",
        "examples": {"train": 30, "validation": 10, "test": 10},
        "command": "python own.py",
        "python": "3.11",
        "versions": {"jax": "1"},
        "devices": ["cpu"],
    }
    write_json(tmp_path / CONFIG, description)
    (tmp_path / METRICS).write_text("".join(json.dumps(record) + "\n" for record in log))
    return tmp_path
