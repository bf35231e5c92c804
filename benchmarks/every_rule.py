"""Time of every rule's step, from its Gramian or rows to its weights or direction, as Markdown.

    python -m benchmarks.every_rule
    python -m benchmarks.every_rule --tasks 2 40 --rules min_norm upgrad

µs a call of one compiled step on Gaussian float32 rows (T, 256), and in brackets relative to
`min_norm` of as many tasks: medians over rounds in which every rule of one T is called in turn.
Rules of Gramians get the Gramian ready; those of rows (†) are timed on the rows. Each at the
hyperparameters of tests.weighting.rules, in its second step, where those that remember have done
their first. One thread: set OMP_NUM_THREADS=1 and XLA_FLAGS=--xla_cpu_multi_thread_eigen=false.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax import RowRule
from mgda_jax._gramian import gramian
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import apply_row_rule, update_weights
from tests.weighting.rules import RULES

TASKS = (2, 10, 40, 159)
COLUMNS = 256
BASE = "min_norm"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS, help="numbers of tasks T")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--rounds", type=int, default=15, help="calls of each (default 15)")
    args = parser.parse_args(argv)
    names = list(dict.fromkeys([BASE, *args.rules]))
    rows_only = {name for name in names if isinstance(RULES[name].make((0, 1)), RowRule)}
    columns = [medians({n: second_step(n, t) for n in names}, args.rounds) for t in args.tasks]
    print("| rule | " + " | ".join(f"T = {t}" for t in args.tasks) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name in names:
        cells = [f"{c[name] * 1e6:,.0f} ({c[name] / c[BASE]:.2g})" for c in columns]
        label = f"{name} †" if name in rows_only else name
        print(f"| {label} | " + " | ".join(cells) + " |")


def second_step(name: str, num_tasks: int) -> Callable[[], Any]:
    """A compiled call that waits for the second step of a rule."""
    rng = np.random.default_rng(num_tasks)
    rows = jnp.asarray(rng.standard_normal((num_tasks, COLUMNS)), jnp.float32)
    losses = jnp.asarray(np.exp(rng.standard_normal(num_tasks)), jnp.float32)
    # Made for tasks 0 to 3, as in the tests: what is given per task is given again and again.
    rule = RULES[name].make([t % 4 for t in range(num_tasks)])
    given: dict[str, Any] = {"losses": losses, "previous_losses": losses, "key": jax.random.key(0)}
    # As arguments, so that nothing of the step is computed while it is compiled.
    if isinstance(rule, RowRule):
        given["rows"] = rows
        state = rule.init(jax.ShapeDtypeStruct((COLUMNS,), rows.dtype), num_tasks)
        step = jax.jit(lambda state, given: apply_row_rule(rule, state, **given))
    else:
        given |= {"gramian": gramian(rows), "cross_gramian": cross_gramian(rows, rows[::-1])}
        state = rule.init(num_tasks)
        step = jax.jit(lambda s, given: update_weights(rule, s, num_tasks=num_tasks, **given))
    state = step(state, given)[1]
    return lambda: jax.block_until_ready(step(state, given))


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each call, all called in turn in every round."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}


if __name__ == "__main__":
    main()
