"""Table and pictures of a run on a differential equation: errors, solutions, and why."""

from typing import Any

import numpy as np

from experiments.pinn.equations import EQUATIONS
from experiments.pinn.pictures import conflict, solutions
from experiments.pinn.problem import ERROR, MSE
from experiments.report.reading import Report
from experiments.report.table import cost_cells, markdown

_HEAVY = 0.95  # a share of the weight, over the whole training
_FALLS = 0.5  # a loss that ends above so much of its beginning stands still


def table(report: Report) -> str:
    """The methods' errors against the known solution as a Markdown table."""
    heads = ["method", "relative L2 error", "mean squared error", "heaviest loss"]
    heads += ["learning rate", "time", "step cost"]
    lines = []
    for method in report.results:
        error, square = report.row(method, ERROR), report.row(method, MSE)
        share = shares(report, method)
        heaviest = "–" if share is None else f"{report.tasks[share.argmax()]} {share.max():.2f}"
        cells = [_significant(error), _significant(square), heaviest]
        lines.append([error.label, *cells, error.learning_rate, *cost_cells(report, method)])
    return "\n\n".join([markdown(heads, lines), *notes(report)])


def caption(report: Report) -> str:
    """How the numbers came about."""
    config, examples = report.description["config"], report.description["examples"]
    size = f"{config['layers']} hidden layers of {config['width']} units"
    return (
        f"‖u − û‖ / ‖u‖ and the mean of (u − û)² over fields on {examples['test']} grid points "
        f"(mean ± standard error over {config['seeds']} seeds), of the best of {config['epochs']} "
        f"moments of {config['steps']} steps on {examples['validation']} other points, as the "
        f"learning rate. {config['batch_size']} points a step for the residual and "
        f"{config['condition_points']} for each condition; {size}. heaviest loss: its mean share "
        "of the weight. time: all runs of the method, compilation included. step cost: relative "
        "to uniform, whose gradients are logged, too."
    )


def _significant(row: Any) -> str:
    mean, error = row.mean.mean(), row.error.mean()
    return f"{mean:.3g} ± {error:.1g}" if error else f"{mean:.3g}"


def shares(report: Report, method: str) -> np.ndarray | None:
    """(T,) each loss's mean share |w_t| / Σ |w| while training; None of a rule without weights."""
    runs = [run for run in report.records(method) if "weight" in run[0]]
    if not runs:
        return None
    weight = np.abs(np.array([r["weight"] for run in runs for r in run], float))
    return np.nanmean(weight / weight.sum(axis=1, keepdims=True), axis=0)


def notes(report: Report) -> list[str]:
    """A line on every method whose weight lies on one loss while another does not fall."""
    found = []
    for method in report.results:
        share = shares(report, method)
        runs = [run for run in report.records(method) if "norm" in run[0]]
        if share is None or share.max() < _HEAVY or not runs:
            continue
        norms = np.mean([record["norm"] for run in runs for record in run], axis=0)
        first, last = (np.mean([run[i]["loss"] for run in runs], axis=0) for i in (0, -1))
        heavy, tasks = int(share.argmax()), report.tasks
        still = [t for t in range(len(tasks)) if t != heavy and last[t] > _FALLS * first[t]]
        if still:
            against = ", ".join(f"{tasks[t]} {norms[t]:.2g}" for t in still)
            losses = ", ".join(f"{tasks[t]} from {first[t]:.3g} to {last[t]:.3g}" for t in still)
            found.append(
                f"{method}: weight {share[heavy]:.2f} on {tasks[heavy]}, stands still: "
                f"‖gradient‖ {norms[heavy]:.2g} against {against}; loss of {losses}."
            )
    return found


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    equation = EQUATIONS[report.description["config"]["problem"]]()
    return {
        "solutions.png": lambda report, plt: solutions(report, plt, equation),
        "conflict.png": conflict,
    }
