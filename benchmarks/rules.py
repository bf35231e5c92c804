"""Time of the weights of a given Gramian and how well they satisfy their definition.

    python -m benchmarks.rules
    python -m benchmarks.rules --tasks 40 --rules nash_mtl upgrad

ms a call, the best of several in turn, on Gaussian float32 rows with P = max(16, 2T);
residuals are those of benchmarks.torchjd_rules. One thread each: set OMP_NUM_THREADS=1 and
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false. The columns of TorchJD are blank where torch
or torchjd is not installed, or where it has no such rule.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.torchjd_rules import RULES, Rule, caller, torchjd
from tests.problems import make

TASKS = (2, 3, 10, 40, 100)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS, help="numbers of tasks T")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    args = parser.parse_args(argv)
    aggregation = torchjd()
    print(f"{'rule':<13}{'T':>4}{'ours ms':>10}{'TorchJD ms':>12}{'ratio':>8}"
          f"{'ours residual':>15}{'TorchJD residual':>18}")  # fmt: skip
    for name in args.rules:
        for num_tasks in args.tasks:
            print(line(name, RULES[name], num_tasks, aggregation), flush=True)
    if aggregation is None:
        print("torch or torchjd is not installed: its columns are blank.")


def line(name: str, rule: Rule, num_tasks: int, aggregation: Any) -> str:
    rows = make("gaussian", num_tasks)
    given = (rows @ rows.T if rule.reads == "gramian" else rows).astype(np.float32)
    matrix = jnp.asarray(rows @ rows.T, jnp.float32)
    solve = solver(rule, matrix)
    ours, mine = solve(), fastest(solve)
    cells = [f"{mine:>10.3f}", f"{'':>12}{'':>8}", judge(rule, rows, np.asarray(ours), 15), ""]
    their_call = caller(rule, aggregation, num_tasks)
    if their_call is not None:
        other = fastest(lambda: their_call(given))
        cells[1] = f"{other:>12.3f}{other / mine:>7.0f}×"
        cells[3] = judge(rule, rows, their_call(given), 18)
    return f"{name:<13}{num_tasks:>4}" + "".join(cells)


def solver(rule: Rule, matrix: jax.Array) -> Callable[[], jax.Array]:
    """A compiled call that waits for our weights of a Gramian."""
    weighting = rule.ours()
    state, step = weighting.init(len(matrix)), jax.jit(weighting.update)
    return lambda: jax.block_until_ready(step(state, gramian=matrix)[0])


def judge(rule: Rule, rows: np.ndarray, weights: np.ndarray, width: int) -> str:
    if rule.residual is None:
        return " " * width
    return f"{rule.residual(rows, weights.astype(np.float64)):>{width}.1e}"


def fastest(call: Callable[[], Any], seconds: float = 0.5, repeats: int = 100) -> float:
    """The shortest of up to `repeats` calls in ms: at least 3, then no more than fit."""
    call()
    times: list[float] = []
    while len(times) < 3 or (len(times) < repeats and sum(times) < seconds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


if __name__ == "__main__":
    main()
