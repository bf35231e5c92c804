"""One report of what everything costs: a page with tables, pictures and fitted exponents.

    python -m benchmarks.all [--quick] [--out FOLDER] [--compare costs.json]

Steps: a dense encoder 256-w-w-64 of P parameters under T binary heads, batch 64; the step of every
entrance relative to the step on the summed loss, all in turn, the median over rounds. What would
hold T gradients of more than --gib together is left out, and the page says so. Solves: the weights
of a Gaussian Gramian by every rule that reads one. FOLDER gets report.md, costs.json and pictures;
--compare sets the ratios beside those of another commit's costs.json. One thread: set
OMP_NUM_THREADS=1 and XLA_FLAGS=--xla_cpu_multi_thread_eigen=false.
"""

import argparse
import json
import math
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost_report import page, pictures
from benchmarks.rules import fastest, solver
from benchmarks.step import dense_model, measure
from benchmarks.torchjd_rules import RULES
from tests.problems import make

BATCH, INPUTS, FEATURES = 64, 256, 64
TASKS, PARAMETERS = (2, 10, 40, 159, 400), (1e5, 1e6, 1e7, 1e8)
SOLVED = (3, 10, 40, 159, 400)
SINGLE = ["branch", "mgda_ub"]  # one pullback of the encoder
EXACT = ["branched", "mgda exact"]


def steps(tasks: tuple[int, ...], parameters: tuple[float, ...], rounds: int, gib: float):
    """One record a step, printed as it goes."""
    records: list[dict[str, Any]] = []
    for size in parameters:
        # (256 + 64) w + w² = P, biases aside.
        width = round((math.sqrt((INPUTS + FEATURES) ** 2 + 4 * size) - INPUTS - FEATURES) / 2)
        for count in tasks:
            # The rows, and what their pullbacks hold beside them.
            fits = 2 * 4 * count * size / 2**30 <= gib
            model = dense_model(count, INPUTS, width, width, FEATURES, batch_size=BATCH)
            for cost in measure(model, rounds, SINGLE + (EXACT if fits else [])):
                records.append({"tasks": count, "parameters": size, **cost._asdict()})
                print(json.dumps(records[-1]), flush=True)
    return records


def solves(tasks: tuple[int, ...]) -> list[dict[str, Any]]:
    """One record a rule and T: ms, and relative to the min-norm point of as many."""
    records: list[dict[str, Any]] = []
    for count in tasks:
        rows = make("gaussian", count)
        matrix = jnp.asarray(rows @ rows.T, jnp.float32)
        base = fastest(solver(RULES["min_norm"], matrix))
        for name, rule in RULES.items():
            took = base if name == "min_norm" else fastest(solver(rule, matrix))
            records.append(
                {"rule": name, "tasks": count, "milliseconds": took, "ratio": took / base}
            )
            print(json.dumps(records[-1]), flush=True)
    return records


def main() -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="T up to 40, P up to 1e6")
    parser.add_argument("--out", type=Path, default=Path("runs/costs"), metavar="FOLDER")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="costs.json of another commit")
    parser.add_argument("--rounds", type=int, default=11, help="timed rounds (default 11)")
    parser.add_argument("--gib", type=float, default=2.0, help="of T gradients (default 2)")
    given = parser.parse_args()
    tasks, parameters = (TASKS[:3], PARAMETERS[:2]) if given.quick else (TASKS, PARAMETERS)
    before = json.loads(given.compare.read_text()) if given.compare else None
    given.out.mkdir(parents=True, exist_ok=True)
    costs = {
        "command": "python -m benchmarks.all" + (" --quick" if given.quick else ""),
        "machine": {
            "device": jax.devices()[0].device_kind,
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
        "steps": steps(tasks, parameters, given.rounds, given.gib),
        "solves": solves(SOLVED[:3] if given.quick else SOLVED),
    }
    (given.out / "costs.json").write_text(json.dumps(costs, indent=1) + "\n")
    pictures(costs, given.out)
    (given.out / "report.md").write_text(page(costs, before))
    print(f"{given.out}: report.md, costs.json, steps.png, solves.png")


if __name__ == "__main__":
    main()
