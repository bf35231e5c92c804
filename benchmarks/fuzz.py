"""Random problems by the million through every rule, each answer checked against its definition.

    python -m benchmarks.fuzz
    python -m benchmarks.fuzz --rules min_norm,upgrad --count 10000 --seed 1

By default 1e6 problems for min_norm and 1e5 for every other rule, spread over T = 2, 3, 4, 6, 10
and the families of benchmarks.fuzz_problems. One row a rule: problems; answers that are finite;
that meet the rule's constraint; whose residual is within the bound of benchmarks.fuzz_checks;
NaN and Inf that showed, of those put in; violations with a reason that can be measured on the
problem (listed below the table); and violations without one. Each of the last is
printed with what makes it again, and makes the exit code 1. Rules with a memory take two steps.
"""

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.fuzz_checks import CHECKS, ROWS, Case, Verdict
from benchmarks.fuzz_problems import NAMES, POISONED, Batch, make_batch
from mgda_jax._gramian import gramian
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import RowRule, apply_row_rule, update_weights
from tests.weighting.rules import RULES

TASKS = (2, 3, 4, 6, 10)
# Beyond 8192 problems a program is compiled into other loops than for a few.
BATCH = 20_000
_CERTIFIED = ("min_norm", "upgrad", "dual_proj", "nash_mtl", "fair_grad", "cagrad", "imtl_g",
              "config", "aligned_mtl", "pcgrad", "gradvac", "krum")  # fmt: skip
_DIAGONAL = ("gradnorm",)  # reads no other entries of the Gramian
_FIELDS = ("problems", "finite", "constraint", "certified", "NaN kept", "explained", "unexplained")
_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rules", default=",".join(RULES), help="names, separated by commas")
    parser.add_argument("--count", type=int, help="problems a rule; 1e6 for min_norm, 1e5 else")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    names = args.rules.split(",")
    unknown = sorted(set(names) - set(RULES))
    if unknown:
        parser.error(f"--rules: expected names among {', '.join(RULES)}, got {', '.join(unknown)}")
    print(f"| rule | {' | '.join(_FIELDS)} |\n|---|{'---:|' * len(_FIELDS)}", flush=True)
    remarks: list[str] = []
    failed = False
    for name in names:
        count = args.count or (1_000_000 if name == "min_norm" else 100_000)
        total, reasons, found = fuzz(name, count, args.seed)
        print(f"| {name} | {' | '.join(str(total[f]) for f in _FIELDS)} |", flush=True)
        for line in found[:_SHOWN]:
            print(f"{name}: {line}", file=sys.stderr, flush=True)
        remarks += [f"- {name}, {number} explained: {why}" for why, number in reasons.items()]
        remarks += [f"- {name}, unexplained: {line}" for line in found[:_SHOWN]]
        failed |= bool(found)
    print("\n" + "\n".join(remarks))
    return int(failed)


def fuzz(name: str, count: int, seed: int) -> tuple[Counter, Counter, list[str]]:
    """Counts by field, explained ones by reason, a line for each family and T with violations."""
    total, reasons, found = Counter(), Counter(), []
    share = -(-count // len(TASKS))
    for num_tasks in TASKS:
        step, size = compiled(name, num_tasks), min(BATCH, share)
        worst: Counter = Counter()
        first: dict[str, str] = {}
        for k in range(-(-share // size)):
            index = seed * 1_000_000 + k
            batch = make_batch(size, num_tasks, index)
            matrix, answer, clean, shown = jax.device_get(step(batch))
            bad, why = judge(name, batch, matrix, answer, clean, shown, total, reasons)
            for i in np.nonzero(bad)[0]:
                family = NAMES[batch.family[i]]
                worst[family] += 1
                first.setdefault(
                    family, f"make_batch({size}, {num_tasks}, {index}), problem {i}: {why(i)}"
                )
        found += [f"{family}, T = {num_tasks}, {worst[family]} problems; {first[family]}"
                  for family in worst]  # fmt: skip
    return total, reasons, found


@functools.cache
def compiled(name: str, num_tasks: int) -> Any:
    """Batch → Gramians, answers (weights or directions) and states, in one program."""
    rule = RULES[name].make(tuple(t % 4 for t in range(num_tasks)))
    steps = 1 if name in _CERTIFIED else 2

    def solve(rows, losses, rounded, entry):
        def spoil(matrix):
            bad = jnp.where(entry == 0, matrix[0, 1], entry)
            return matrix.at[0, 1].set(bad).at[1, 0].set(bad)

        exact = gramian(rows)
        coarse = jax.lax.reduce_precision(exact.matrix, exponent_bits=8, mantissa_bits=7)
        given = exact._replace(matrix=spoil(jnp.where(rounded, coarse, exact.matrix)))

        def step(state, scale):
            extra = {"losses": losses * scale, "previous_losses": losses * scale * 0.75}
            if isinstance(rule, RowRule):
                answer, state = apply_row_rule(rule, state, rows, **extra)
                return state, answer
            if "cross_gramian" in rule.reads:
                cross = cross_gramian(rows, rows + jnp.flip(rows, -1) / 2)
                extra["cross_gramian"] = cross._replace(matrix=spoil(cross.matrix))
            answer, state = update_weights(rule, state, num_tasks=num_tasks, gramian=given, **extra)
            return state, answer

        init = rule.init(rows[0], num_tasks) if isinstance(rule, RowRule) else rule.init(num_tasks)
        state, answers = jax.lax.scan(step, init, jnp.linspace(1.0, 1.25, steps))
        numbers = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
        clean = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in numbers] or [True]))
        report = getattr(state, "report", state)
        shown = {f: getattr(report, f) for f in ("kkt", "residual", "regularization", "feasible")
                 if hasattr(report, f)}  # fmt: skip
        return given.matrix, answers[-1], clean, shown

    run = jax.jit(jax.vmap(solve))
    return lambda batch: run(batch.rows, batch.losses, batch.rounded, batch.entry)


def judge(name, batch: Batch, matrix, answer, clean, shown, total: Counter, reasons: Counter):
    """Which problems are unexplained, and a function that says why; adds to the counters."""
    answer = answer.astype(np.float64)
    rule = RULES[name].make((0, 1, 2, 3))
    poisoned = np.isin(batch.family, [NAMES.index(f) for f in _poisons(name, rule)])
    finite = np.all(np.isfinite(answer), axis=1)
    kept = poisoned & clean & _shows(rule, batch, answer)
    # Nothing is measured on what is not finite; it is judged by that alone.
    usable = finite & ~poisoned
    (chosen,) = np.nonzero(usable)
    verdict = measure(name, *jax.tree.map(lambda x: x[chosen], (batch, matrix, answer, shown)))
    constraint, certified = (_spread(x <= 1, chosen, len(finite)) for x in verdict[:2])
    excused = np.zeros(len(finite), bool)
    wrong = ~poisoned & ~(finite & constraint & certified)
    for reason, mask in verdict.reasons.items():
        applies = _spread(mask, chosen, len(finite)) & wrong & ~excused
        excused |= applies
        if applies.any():
            reasons[reason] += int(applies.sum())
    bad = (wrong & ~excused) | (poisoned & ~kept) | ~clean
    total.update({
        "problems": len(finite), "finite": int(usable.sum()),
        "constraint": int(constraint.sum()), "certified": int(certified.sum()),
        "NaN kept": int(kept.sum()), "explained": int((excused & ~bad).sum()),
        "unexplained": int(bad.sum()),
    })  # fmt: skip

    def why(i):
        values = {k: float(v[i]) for k, v in shown.items()}
        parts = {"finite": finite, "constraint": constraint, "certified": certified, "state": clean}
        lost = "NaN lost" if poisoned[i] and not kept[i] else ""
        return f"not {', '.join(k for k, v in parts.items() if not v[i])} {lost} {values}"

    return bad, why


def measure(name, batch: Batch, matrix, answer, shown) -> Verdict:
    """What the rule's check says of finite answers to problems without NaN and Inf."""
    answer = answer.astype(np.float64)
    state = SimpleNamespace(**{k: v.astype(np.float64) for k, v in shown.items()})
    weights = answer if name in CHECKS else np.zeros(batch.losses.shape)
    with np.errstate(all="ignore"):
        case = Case(batch, matrix.astype(np.float64), weights, state)
        verdict = CHECKS[name](case) if name in CHECKS else ROWS[name](case, answer)
    # A yes or no would pass for a residual of one or less.
    assert verdict.constraint.dtype.kind == verdict.certified.dtype.kind == "f", name
    return verdict


def _poisons(name: str, rule) -> list[str]:
    """The families in which something bad reaches the rule."""
    touched = ["rows"]
    if "losses" in rule.reads:
        touched.append("losses")
    if {"gramian", "cross_gramian"} & rule.reads and name not in _DIAGONAL:
        touched.append("gramian")
    return [family for what in touched for family in POISONED[what]]


def _shows(rule, batch: Batch, answer: np.ndarray) -> np.ndarray:
    """The step's own numbers show what was put in: weights, else the direction they give."""
    bad = np.logical_or.reduce(~np.isfinite(answer), axis=1)
    if not isinstance(rule, RowRule):
        if {"gramian", "cross_gramian"} & rule.reads:
            bad = np.logical_and.reduce(np.isnan(answer), axis=1)
        else:
            with np.errstate(all="ignore"):
                direction = np.einsum("nt,ntp->np", answer, batch.rows)
            bad = np.logical_or.reduce(~np.isfinite(direction), axis=1)
    return bad


def _spread(mask: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    full = np.zeros(count, bool)
    full[chosen] = mask
    return full


if __name__ == "__main__":
    sys.exit(main())
