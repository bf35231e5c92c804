"""Whether the bounds hold on other machines: one machine made to round as others do.

    python -m benchmarks.portable                 every setting: what `make portable` runs
    python -m benchmarks.portable --here          this process as it is, a line of JSON a rule

Every setting is a process of its own: XLA with the instruction sets of older processors, LAPACK
with their kernels. In each, twenty problems of every family of benchmarks.fuzz_problems, rows in
another order and moved by a last bit (tests.problems.disturb), go through the min-norm solver and
every other rule. The table is the worst residual over its bound (benchmarks.fuzz_checks); a bound
holds with a factor of two to spare, or the exit code is 1. Problems on which it does not, for a
reason that can be measured on them, are left out; the last column is the share that stays.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from benchmarks.fuzz import compiled, measure
from benchmarks.fuzz_problems import NAMES, POISONED, Batch, make_batch
from tests.problems import disturb
from tests.weighting.rules import RULES

ROOT = Path(__file__).parent.parent
SPARE = 0.5
DRAWS = 20
TASKS = (3, 10)
# Those that iterate or factorise: their rounding grows with T.
MANY_TASKS = 40
SOLVERS = ("min_norm", "upgrad", "dual_proj", "nash_mtl", "fair_grad", "cagrad", "imtl_g", "config",
           "aligned_mtl")  # fmt: skip


def _isa(name: str) -> dict[str, str]:
    return {"XLA_FLAGS": f"--xla_cpu_max_isa={name}"}


# Those that share compiled programs stand apart, so that the later of them find them in the cache.
SETTINGS = {
    "SSE4_2": _isa("SSE4_2"),
    "AVX": _isa("AVX"),
    "AVX2": _isa("AVX2"),
    "own": {},
    "BLAS Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "BLAS Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "SSE4_2, BLAS Nehalem": _isa("SSE4_2") | {"OPENBLAS_CORETYPE": "Nehalem"},
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--here", action="store_true", help="measure in this process, print JSON")
    parser.add_argument("--rules", default=",".join(RULES), help="names, separated by commas")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="settings at once")
    args = parser.parse_args(argv)
    names = args.rules.split(",")
    unknown = sorted(set(names) - set(RULES))
    if unknown:
        parser.error(f"--rules: expected names among {', '.join(RULES)}, got {', '.join(unknown)}")
    if args.here:
        for name in names:
            print(json.dumps([name, worst(name, _tasks(name))]), flush=True)
        return 0
    with ThreadPoolExecutor(args.workers) as pool:
        columns = list(pool.map(lambda env: _elsewhere(env, names), SETTINGS.values()))
    print(f"| rule | {' | '.join(SETTINGS)} | measured % |\n|---|{'---:|' * (len(SETTINGS) + 1)}")
    for name in names:
        cells = " | ".join(f"{column[name]['ratio']:.3f}" for column in columns)
        share = min(column[name]["measured"] for column in columns)
        print(f"| {name} | {cells} | {100 * share:.0f} |")
    failures = [
        f"{setting}: {name}, {column[name]['where']}: {column[name]['ratio']:.3g} of its bound"
        for setting, column in zip(SETTINGS, columns, strict=True)
        for name in names
        if not column[name]["ratio"] <= SPARE
    ]
    print(
        "\n".join(["", *failures, f"{len(failures)} of {len(names) * len(SETTINGS)} above {SPARE}"])
    )
    return int(bool(failures))


def _tasks(name: str) -> tuple[int, ...]:
    return (*TASKS, MANY_TASKS) if name in SOLVERS else TASKS


def _elsewhere(setting: dict[str, str], names: Iterable[str]) -> dict:
    flags = f"--xla_cpu_multi_thread_eigen=false {setting.get('XLA_FLAGS', '')}"
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, "-m", "benchmarks.portable", "--here", "--rules", ",".join(names)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env | setting | {"XLA_FLAGS": flags.strip()},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())


def worst(name: str, tasks: Sequence[int], draws: int = DRAWS) -> dict:
    """The rule's worst residual over its bound, where, and the share of problems measured."""
    found = {"ratio": 0.0, "where": "", "measured": 1.0}
    shares = []
    for num_tasks in tasks:
        batch = disturbed(num_tasks, draws)
        matrix, answer, _, shown = jax.device_get(compiled(name, num_tasks)(batch))
        verdict = measure(name, batch, matrix, answer, shown)
        excused = np.any([np.zeros(len(answer), bool), *verdict.reasons.values()], axis=0)
        ratio = np.where(np.isnan(verdict.worst), np.inf, verdict.worst)
        excused &= ratio > SPARE
        ratio[excused] = 0
        i = int(ratio.argmax())
        shares.append(np.mean(~excused))
        if ratio[i] > found["ratio"]:
            where = f"disturbed({num_tasks}, {draws}) problem {i}, {NAMES[batch.family[i]]}"
            found |= {"ratio": float(ratio[i]), "where": where}
    return found | {"measured": float(np.mean(shares))}


def disturbed(num_tasks: int, draws: int = DRAWS) -> Batch:
    """`draws` problems of every family without NaN and Inf, each disturbed on its own."""
    batch = make_batch(draws * len(NAMES), num_tasks, 0)
    poisoned = [NAMES.index(family) for families in POISONED.values() for family in families]
    finite = ~np.isin(batch.family, poisoned)
    batch = Batch(*(part[finite] for part in batch))
    rng = np.random.default_rng(num_tasks)
    rows = np.stack([disturb(rows.astype(np.float64), rng) for rows in batch.rows])
    return batch._replace(rows=rows.astype(np.float32))


if __name__ == "__main__":
    sys.exit(main())
