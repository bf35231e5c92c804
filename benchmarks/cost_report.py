"""What `benchmarks.all` has measured, as a page, with fitted exponents and two pictures."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

plt.switch_backend("agg")

Costs = dict[str, Any]
SUM = "summed loss (jax.grad)"


def exponent(x: list[float], y: list[float]) -> float:
    """The slope of log y over log x, by least squares; NaN of fewer than three points."""
    if len(x) < 3:
        return float("nan")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def page(costs: Costs, before: Costs | None) -> str:
    """The report in Markdown."""
    machine = ", ".join(f"{key} {value}" for key, value in costs["machine"].items())
    lines = [
        "# What everything costs",
        "",
        f"`{costs['command']}`: {machine}. Times are ratios inside one run.",
        "",
        "## A step, relative to the step on the summed loss",
        "",
        *_steps(costs),
        "",
        "![ratio of the step over the number of tasks](steps.png)",
        "",
        "## A solve: the weights of a Gaussian Gramian, ms",
        "",
        *_solves(costs),
        "",
        "![time of the weights over the number of tasks](solves.png)",
        "",
    ]
    if before is not None:
        lines += ["## Against another commit", "", *_compared(costs, before), ""]
    return "\n".join(lines)


def _steps(costs: Costs) -> list[str]:
    """A row per P, T and way: ratio and temporaries; then the exponents in T of the ratio."""
    records = costs["steps"]
    ways = list(dict.fromkeys(r["step"] for r in records if r["step"] != SUM))
    found = {(r["parameters"], r["tasks"], r["step"]): r for r in records}
    lines = [
        f"| P | T | {' | '.join(ways)} |",
        f"| ---: | ---: |{' ---: |' * len(ways)}",
    ]
    left_out = False
    for size, count in dict.fromkeys((r["parameters"], r["tasks"]) for r in records):
        cells = []
        for way in ways:
            r = found.get((size, count, way))
            left_out |= r is None
            cells.append("–" if r is None else f"{r['ratio']:.2f} ({r['temporaries_mib']:.0f} MiB)")
        lines.append(f"| {size:.0e} | {count} | {' | '.join(cells)} |")
    lines += ["", "In parentheses XLA's count of temporaries."]
    if left_out:
        lines.append("A dash is what was not measured, for the T gradients it would hold at once.")
    lines += ["", "| exponent of the ratio in T, from T = 10 on | " + " | ".join(ways) + " |"]
    lines.append("| --- |" + " ---: |" * len(ways))
    for size in dict.fromkeys(r["parameters"] for r in records):
        cells = []
        for way in ways:
            points = [
                (r["tasks"], r["ratio"])
                for r in records
                if r["step"] == way and r["parameters"] == size and r["tasks"] >= 10
            ]
            cells.append(
                _number(exponent(*map(list, zip(*points, strict=True)))) if points else "–"
            )
        lines.append(f"| P = {size:.0e} | {' | '.join(cells)} |")
    return lines


def _solves(costs: Costs) -> list[str]:
    records = costs["solves"]
    tasks = list(dict.fromkeys(r["tasks"] for r in records))
    lines = [
        f"| rule | {' | '.join(f'T = {count}' for count in tasks)} | exponent from T = 10 on |",
        f"| --- |{' ---: |' * (len(tasks) + 1)}",
    ]
    for rule in dict.fromkeys(r["rule"] for r in records):
        own = {r["tasks"]: r["milliseconds"] for r in records if r["rule"] == rule}
        large = [count for count in tasks if count >= 10]
        slope = _number(exponent(large, [own[count] for count in large]))
        lines.append(f"| {rule} | {' | '.join(f'{own[t]:.3f}' for t in tasks)} | {slope} |")
    return lines


def _compared(costs: Costs, before: Costs) -> list[str]:
    """Ratios of both runs, and their quotient where they differ by more than a tenth."""
    keys = {"steps": ("parameters", "tasks", "step"), "solves": ("rule", "tasks")}
    lines = ["| what | before | now | now / before |", "| --- | ---: | ---: | ---: |"]
    for part, names in keys.items():
        old = {tuple(r[n] for n in names): r["ratio"] for r in before[part]}
        for r in costs[part]:
            at = tuple(r[n] for n in names)
            if at in old and abs(r["ratio"] / old[at] - 1) > 0.1:
                what = " ".join(f"{name} {value}" for name, value in zip(names, at, strict=True))
                change = r["ratio"] / old[at]
                lines.append(f"| {what} | {old[at]:.2f} | {r['ratio']:.2f} | {change:.2f} |")
    if len(lines) == 2:
        return ["No ratio differs by more than a tenth."]
    return [*lines, "", "Ratios that differ by no more than a tenth are left out."]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def pictures(costs: Costs, folder: Path) -> None:
    """steps.png and solves.png."""
    records = costs["steps"]
    ways = list(dict.fromkeys(r["step"] for r in records if r["step"] != SUM))
    sizes = list(dict.fromkeys(r["parameters"] for r in records))
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(3.2 * len(sizes), 3.2), sharey=True, squeeze=False
    )
    for ax, size in zip(axes[0], sizes, strict=True):
        for way in ways:
            own = [r for r in records if r["step"] == way and r["parameters"] == size]
            ax.loglog([r["tasks"] for r in own], [r["ratio"] for r in own], "o-", label=way)
        ax.axhline(1, color="grey", linewidth=0.8)
        ax.set(title=f"P = {size:.0e}", xlabel="tasks")
    axes[0][0].set_ylabel("step / step on the sum")
    axes[0][0].legend(fontsize=8)
    _save(figure, folder / "steps.png")
    figure, ax = plt.subplots(figsize=(6, 4.5))
    for i, rule in enumerate(dict.fromkeys(r["rule"] for r in costs["solves"])):
        own = [r for r in costs["solves"] if r["rule"] == rule]
        style = ("-", "--", ":")[i // 10 % 3]  # there are ten colours
        x, y = [r["tasks"] for r in own], [r["milliseconds"] for r in own]
        ax.loglog(x, y, style, label=rule)
    ax.set(xlabel="tasks", ylabel="ms")
    ax.legend(fontsize=6, ncols=2)
    _save(figure, folder / "solves.png")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
