"""Speed and accuracy of the min-norm point on problems that break solvers.

    python -m benchmarks.min_norm                 time a solve, and the kkt it reaches
    python -m benchmarks.min_norm --accuracy      worst errors per family and T
    python -m benchmarks.min_norm --qp            ours beside the loop of the quadratic programs

Speed: 256 float32 problems a T, taken in turn from all families of tests.problems;
µs of a single jitted call (mean over 16 of them) and per item of one vmapped call,
both the best of several repetitions, in turn for every solver. TorchJD's MGDA (the
paper's Algorithm 2, 100 steps) is timed where torch and torchjd are installed; it
takes one problem at a time. Set OMP_NUM_THREADS=1 and
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false for one thread.

Accuracy: errors on the rows in float64 (tests.problems.Errors), against
non-negative least squares.

--qp: `nonnegative_qp` of the same problem in b, with and without the exact solve on the face
after it, beside the loop of min_norm_point, for both dtypes: time of one vmapped call relative to
that loop (the best of several, in turn), steps (median, most), kkt in eps (median, worst).
"""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax._gramian import gramian
from mgda_jax.solvers.box_qp import nonnegative_qp
from mgda_jax.solvers.min_norm import Method, min_norm_point, point
from mgda_jax.solvers.min_norm.interior_point import crossover, interior_point, scaled_problem
from tests.problems import FAMILIES, Errors, errors, make, reference

SPEED_TASKS = (2, 3, 10, 40, 100)
ACCURACY_TASKS = (2, 3, 5, 10, 40, 100, 500)
BATCH = 256
SINGLES = 16
# Norms over eight decades with ties and opposed pairs: only its kkt_N means anything.
HARDEST = "spread_tied_opposed"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Speed and accuracy of the min-norm point on problems that break solvers."
    )
    parser.add_argument("--accuracy", action="store_true", help="errors instead of times")
    parser.add_argument("--tasks", type=int, nargs="+", help="numbers of tasks T")
    parser.add_argument("--seeds", type=int, default=3, help="problems a family (--accuracy)")
    parser.add_argument("--qp", action="store_true", help="our loop beside that of the QPs")
    args = parser.parse_args(argv)
    if args.qp:
        for dtype in ("float32", "float64"):
            for num_tasks in args.tasks or (3, 5, 10, 40, 100):
                with jax.enable_x64(dtype == "float64"):
                    on_quadratic_program(num_tasks, dtype)
    elif args.accuracy:
        accuracy(args.tasks or ACCURACY_TASKS, args.seeds)
    else:
        speed(args.tasks or SPEED_TASKS)


def solver(method: Method) -> Callable[[Any], Any]:
    return jax.jit(lambda gram: min_norm_point(gram, method=method))


def batch_solver(method: Method) -> Callable[[Any], Any]:
    return jax.jit(jax.vmap(lambda gram: min_norm_point(gram, method=method)))


def speed(tasks: Sequence[int]) -> None:
    external = torchjd()
    print(f"{'T':>4}  {'solver':<22}{'single µs':>10}{'× exact':>9}{'batch µs':>10}{'× exact':>9}"
          f"{'steps':>8}{'kkt median':>12}{'kkt worst':>11}")  # fmt: skip
    for num_tasks in tasks:
        compare(num_tasks, external)
    if external is None:
        print("TorchJD is not installed: its line is left out.")


def compare(num_tasks: int, external: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """The lines of one T: every solver on the same problems."""
    families = [f for f in FAMILIES if f != HARDEST]
    rows = [make(families[i % len(families)], num_tasks, i // len(families)) for i in range(BATCH)]
    # Scaled, so that those without a scale of their own can read them in float32, too.
    grams = np.stack([r @ r.T / np.abs(r).max() ** 2 for r in rows]).astype(np.float32)
    device_grams = jnp.asarray(grams)
    device_singles = list(device_grams[:SINGLES])
    singles, batches, weights, steps = {}, {}, {}, {}
    solvers: dict[str, Method] = {"exact": "exact", "Frank–Wolfe": "frank_wolfe"}
    for name, method in solvers.items():
        one, many = solver(method), batch_solver(method)
        singles[name] = lambda one=one: [one(gram) for gram in device_singles]
        batches[name] = lambda many=many: many(device_grams)
        solution = jax.device_get(many(device_grams))
        weights[name], steps[name] = solution.weights, int(solution.steps.max())
    if external is not None:
        name = "Frank–Wolfe (TorchJD)"
        singles[name] = lambda: [external(gram) for gram in grams[:SINGLES]]
        weights[name], steps[name] = np.stack([external(gram) for gram in grams]), "100"
    single_seconds, batch_seconds = best_in_turn(singles), best_in_turn(batches)
    for name in singles:
        single, cells = single_seconds[name], f"{'–':>10}{'–':>9}"
        if name in batches:
            batch = batch_seconds[name]
            cells = f"{batch / BATCH * 1e6:>10.2f}{batch / batch_seconds['exact']:>9.2f}"
        kkt = [errors(r, w).kkt for r, w in zip(rows, weights[name], strict=True)]
        print(f"{num_tasks:>4}  {name:<22}{single / SINGLES * 1e6:>10.1f}"
              f"{single / single_seconds['exact']:>9.2f}{cells}{steps[name]:>8}"
              f"{np.median(kkt):>12.1e}{np.max(kkt):>11.1e}", flush=True)  # fmt: skip


def torchjd() -> Callable[[np.ndarray], np.ndarray] | None:
    """TorchJD's weights of a Gramian, or None where it is not installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchjd") is None:
        return None
    import torch  # pyright: ignore[reportMissingImports]  (optional)
    from torchjd.aggregation import (  # pyright: ignore[reportMissingImports]  (optional)
        MGDAWeighting,
    )

    torch.set_num_threads(1)
    weighting = MGDAWeighting()
    return lambda gram: weighting(torch.from_numpy(gram)).numpy()


def best_in_turn(calls: dict[str, Callable[[], Any]], repeats: int = 25) -> dict[str, float]:
    """The shortest wall time of each call in seconds, all timed in turn in every round."""
    for call in calls.values():
        jax.block_until_ready(call())
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def accuracy(tasks: Sequence[int], seeds: int) -> None:
    columns: list[tuple[Method, str]]
    columns = [("exact", "float32"), ("exact", "float64"), ("frank_wolfe", "float32")]
    print(" " * 26 + "".join(f"{f'{method} {dtype}':^38}" for method, dtype in columns))
    print(f"{'T':>4}  {'family':<20}" + f"{'kkt':>9}{'kkt_N':>9}{'gap':>9}{'‖d−d*‖':>9}  " * 3)
    for num_tasks in tasks:
        count = seeds if num_tasks <= 100 else 1
        problems = [(f, make(f, num_tasks, seed)) for f in FAMILIES for seed in range(count)]
        directions = [rows.T @ reference(rows) / np.abs(rows).max() for _, rows in problems]
        measured = [solve_all(problems, directions, *column) for column in columns]
        for family in FAMILIES:
            cells = [worst([e for e, (f, _) in zip(m[0], problems, strict=True) if f == family])
                     for m in measured]  # fmt: skip
            print(f"{num_tasks:>4}  {family:<20}" + "".join(cells), flush=True)
        cells = [worst([e for e, (f, _) in zip(m[0], problems, strict=True) if f != HARDEST])
                 for m in measured]  # fmt: skip
        print(f"{num_tasks:>4}  {'all but the last':<20}" + "".join(cells))
        steps = ", ".join(f"{m} {d} {s[1]}" for (m, d), s in zip(columns, measured, strict=True))
        print(f"      most steps: {steps}\n", flush=True)


def solve_all(
    problems: Sequence[tuple[str, np.ndarray]],
    directions: Sequence[np.ndarray],
    method: Method,
    dtype: str,
) -> tuple[list[Errors], int]:
    """Errors of each problem, and the most steps that one took."""
    width = max(rows.shape[1] for _, rows in problems)
    padded = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for _, rows in problems]
    with jax.enable_x64(dtype == "float64"):
        rows = jnp.asarray(np.stack(padded), dtype)
        solution = jax.device_get(batch_solver(method)(jax.jit(jax.vmap(gramian))(rows)))
    found = [
        errors(rows, weights, direction)
        for (_, rows), weights, direction in zip(
            problems, solution.weights, directions, strict=True
        )
    ]
    assert all(np.all(np.isfinite(e)) for e in found), "a weight is not finite"
    return found, int(solution.steps.max())


def through_qp(on_face: bool) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """What can take the place of `interior_point` in min_norm_point."""

    def solve(matrix, active, max_steps):
        problem = scaled_problem(matrix, active)
        start = (problem.scale > 0)[None]
        found = nonnegative_qp(problem.matrix, -problem.target[None], face=start)
        b, face = found.x[0], (found.x[0] > 0) & start[0]
        if on_face:
            b, face = crossover(problem, b, face, 4 * jnp.finfo(b.dtype).eps)
        share = problem.scale * b
        return share / jnp.sum(share), face, found.steps[0]

    return solve


def on_quadratic_program(num_tasks: int, dtype: str) -> None:
    """The lines of one T: the three on well-behaved problems, and on all families."""
    loops = {"own loop": interior_point, "QP": through_qp(False), "QP, then face": through_qp(True)}
    solvers = {name: batch_solver("exact") for name in loops}
    every = tuple(f for f in FAMILIES if f != HARDEST)
    for mix, families in {"easy": ("gaussian", "realistic", "orthogonal"), "all": every}.items():
        count = BATCH // 4
        rows = [make(families[i % len(families)], num_tasks, i // len(families))
                for i in range(count)]  # fmt: skip
        grams = jnp.asarray(np.stack([r @ r.T / np.abs(r).max() ** 2 for r in rows]), dtype)
        found = {}
        for name, loop in loops.items():
            with mock.patch.object(point, "interior_point", loop):
                found[name] = jax.device_get(solvers[name](grams))
        seconds = best_in_turn({n: functools.partial(solvers[n], grams) for n in loops})
        for name, solution in found.items():
            kkt = [errors(r, w).kkt for r, w in zip(rows, solution.weights, strict=True)]
            kkt = np.array(kkt) / jnp.finfo(dtype).eps
            ratio = seconds[name] / seconds["own loop"]
            print(f"{dtype} {num_tasks:>4}  {mix:<5} {name:<14}{ratio:>7.2f}"
                  f"{np.median(solution.steps):>6.0f}{np.max(solution.steps):>4}"
                  f"{np.median(kkt):>8.2f}{np.max(kkt):>8.2f}", flush=True)  # fmt: skip


def worst(found: Sequence[Errors]) -> str:
    kkt, kkt_n, gap, direction, _ = np.max(np.array(found), axis=0)
    return "".join(f"{value:>9.1e}" for value in (kkt, kkt_n, gap, direction)) + "  "


if __name__ == "__main__":
    main()
