"""Table and pictures of a run of the autoencoder: the two losses, their sum, and collapse."""

from typing import Any

import numpy as np

from experiments.report.reading import Report
from experiments.report.table import cost_cells, markdown, mean_error
from experiments.vae.problem import SHOWN, TASKS, digits


def table(report: Report) -> str:
    """The methods' losses on test images, in nats an image, as a Markdown table."""
    heads = ["method", "reconstruction", "KL", "ELBO", "active units", "learning rate"]
    lines = []
    for method in report.results:
        loss, bound = report.row(method, "loss"), report.row(method)
        by_task = {t: mean_error(loss.mean[i], loss.error[i]) for i, t in enumerate(TASKS)}
        active = report.row(method, "active")
        cells = [by_task["reconstruction"], by_task["kl"]]
        cells += [mean_error(row.mean.mean(), row.error.mean()) for row in (bound, active)]
        lines.append([loss.label, *cells, loss.learning_rate, *cost_cells(report, method)])
    return markdown([*heads, "time", "step cost"], lines)


def caption(report: Report) -> str:
    """How the numbers came about."""
    config, examples = report.description["config"], report.description["examples"]
    return (
        f"Nats an image on {examples['test']} test images (mean ± standard error over "
        f"{config['seeds']} seeds), at the epoch of {config['epochs']} and the learning rate with "
        f"the best ELBO on {examples['validation']} validation images; {examples['train']} "
        f"training images. active units: of {config['latent']}, those whose posterior mean varies "
        "over images by more than 0.01. time: all runs of the method, compilation included. step "
        "cost: relative to uniform, whose gradients are logged, too."
    )


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    del report
    return {"samples.png": samples}


def samples(report: Report, plt: Any) -> Any:
    """Test images, their reconstructions and draws from the prior, a row a method, first seed."""
    found = {m: f for m in report.results if (f := report.shown(m))}
    if not found:
        return None
    rows = {"test images": np.concatenate([digits()["test"][:SHOWN], np.zeros((SHOWN, 64))])}
    rows |= {m: np.concatenate([f["reconstructions"], f["samples"]]) for m, f in found.items()}
    figure, axes = plt.subplots(figsize=(9.0, 0.4 + 0.42 * len(rows)), dpi=90, layout="constrained")
    tiles = [np.pad(row.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1))) for row in rows.values()]
    axes.imshow(np.concatenate([np.concatenate(list(t), axis=1) for t in tiles]), cmap="gray")
    axes.set_yticks(10 * np.arange(len(rows)) + 4.5, list(rows), size=8)
    middles = [5 * SHOWN, 15 * SHOWN]
    axes.set_xticks(middles, ["reconstructions", "draws from the prior"], size=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure
