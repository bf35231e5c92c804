"""How fast the Gramian and the combination read the T gradients, as a share of a copy.

    python -m benchmarks.bandwidth [--tasks T ...] [--mib N] [--dtypes float32 bfloat16]

Rows (T, P) of N MiB. A copy reads and writes N MiB, the Gramian and the weighted sum read them:
GB/s counts what is read and written once, medians over rounds in which all are called in turn.
"""

import argparse
import functools
import statistics

import jax
import jax.numpy as jnp

from benchmarks.step import in_turn
from mgda_jax import gramian, weighted_sum


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=(2, 40, 159), metavar="T")
    parser.add_argument("--mib", type=int, default=256, help="size of the rows (default 256)")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds (default 15)")
    given = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {given.mib} MiB\n")
    print(
        "| dtype | T | copy, GB/s | Gramian | combination | Gramian / copy | combination / copy |"
    )
    print("| --- |" + " ---: |" * 6)
    for dtype in given.dtypes:
        for tasks in given.tasks:
            columns = given.mib * 2**20 // (jnp.dtype(dtype).itemsize * tasks)
            rows = jax.random.normal(jax.random.key(0), (tasks, columns), dtype)
            weights = jnp.full(tasks, 1 / tasks)
            calls = {
                "copy": functools.partial(jax.jit(lambda rows: -rows), rows),
                "gramian": functools.partial(jax.jit(gramian), rows),
                "combination": functools.partial(jax.jit(weighted_sum), rows, weights),
            }
            moved = {"copy": 2 * rows.nbytes, "gramian": rows.nbytes}
            moved["combination"] = rows.nbytes + rows.nbytes // tasks
            seconds = {
                name: statistics.median(t) for name, t in in_turn(calls, given.rounds).items()
            }
            speed = {name: moved[name] / seconds[name] / 1e9 for name in calls}
            cells = [f"{speed[name]:.1f}" for name in calls]
            cells += [f"{speed[name] / speed['copy']:.2f}" for name in ("gramian", "combination")]
            print(f"| {dtype} | {tasks} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
