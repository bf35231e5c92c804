"""Table and picture of hypernetworks: the front that each spans on the test examples."""

from typing import Any

from experiments.pareto_set.training import REFERENCE
from experiments.report.figures import COLORS, GREY, MARKERS
from experiments.report.reading import Report, Row
from experiments.report.table import markdown

SEPARATE = "separate"


def table(report: Report) -> str:
    """The methods' hypervolumes and ends on test examples as a Markdown table."""
    few = report.description["config"]["separate"]
    heads = ["method", "networks trained", "hypervolume", f"of {few} preferences", "non-dominated"]
    heads += [f"least {task} loss" for task in report.tasks]
    heads += ["accuracy % in the middle", "time"]
    lines = []
    for method, result in report.results.items():
        volume, of_few, kept, points = (
            report.row(method, key)
            for key in ("hypervolume", "hypervolume_of_few", "non_dominated", "points")
        )
        least, accuracy = report.row(method, "least_loss"), report.row(method, "middle_accuracy")
        alone = method == SEPARATE
        cells = [f"{few}" if alone else "1"]
        cells += ["–" if alone else _number(volume)]
        cells += [_number(of_few)]
        cells += [f"{kept.mean[0]:.3g} of {points.mean[0]:.0f}"]
        cells += [f"{m:.3f}" for m in least.mean]
        cells += [" / ".join(f"{m:.2f}" for m in accuracy.mean), f"{result['seconds']:.0f} s"]
        lines.append([method, *cells])
    return markdown(heads, lines)


def _number(row: Row) -> str:
    error = f" ± {row.error[0]:.3f}" if row.error[0] else ""
    return f"{row.mean[0]:.3f}{error}"


def caption(report: Report) -> str:
    """How the numbers came about."""
    config, examples = report.description["config"], report.description["examples"]
    return (
        f"hypervolume: of the cross entropies on {examples['test']} test examples up to "
        f"({REFERENCE:g}, {REFERENCE:g}), of the networks of {config['points']} evenly spread "
        f"preferences; of {config['separate']}, those that the separate networks are trained for. "
        "non-dominated: so many of these points. In the middle: at an even preference. Mean ± "
        f"standard error over {config['seeds']} seeds, at the tenth of {config['epochs']} epochs "
        f"with the largest hypervolume on {examples['validation']} validation examples; "
        f"{examples['train']} training examples. time: all runs of the method, compilation and "
        "evaluation included."
    )


def figures(report: Report) -> dict[str, Any]:
    """What to draw: {file name: drawing(report, plt) -> figure or None}."""
    del report
    return {"front.png": front}


def front(report: Report, plt: Any) -> Any:
    """The front of every method's first seed: losses on test, coloured by the preference."""
    found = {method: f for method in report.results if (f := report.shown(method))}
    if not found:
        return None
    alone = found.get(SEPARATE)
    panels = [method for method in found if method != SEPARATE] or [SEPARATE]
    figure, grid = plt.subplots(
        1, len(panels), figsize=(1.4 + 3.1 * len(panels), 3.5), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    points = None
    for axes, method in zip(grid[0], panels, strict=True):
        shown = found[method]
        axes.plot(*shown["loss"].T, color=GREY, lw=0.8, zorder=1)
        points = axes.scatter(
            *shown["loss"].T, c=shown["preferences"][:, 0], cmap="viridis", vmin=0, vmax=1, s=22,
            zorder=3,
        )  # fmt: skip
        if alone is not None and method != SEPARATE:
            axes.scatter(
                *alone["loss"].T, c=alone["preferences"][:, 0], cmap="viridis", vmin=0, vmax=1,
                s=70, marker=MARKERS[1], edgecolors=COLORS[1], linewidths=1.3, zorder=2,
                label=f"{len(alone['loss'])} networks trained alone",
            )  # fmt: skip
        volume = report.row(method).scores[0, 0]
        axes.set(title=f"{method}: {volume:.3f}", xlabel=f"{report.tasks[0]} test loss")
    grid[0, 0].set_ylabel(f"{report.tasks[1]} test loss")
    if alone is not None:
        grid[0, 0].legend(loc="best", fontsize=8)
    bar = figure.colorbar(points, ax=grid, fraction=0.05, pad=0.02)
    bar.set_label(f"preference of {report.tasks[0]}")
    return figure
