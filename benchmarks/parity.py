"""Where our weights differ from TorchJD's, and who is right.

    python -m benchmarks.parity
    python -m benchmarks.parity --tasks 3 --rules upgrad

For every rule and problem family: the distance of the two directions relative to the
longer, and the residual of the rule's defining equation for both (see
benchmarks.torchjd_rules). Lines where the directions agree to --tolerance are counted, not
printed. "right" is the one whose residual is ten times smaller, "both" when neither is or
both are below 1e-5; an exception of TorchJD's counts as no answer.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.torchjd_rules import RULES, Rule, caller, torchjd
from mgda_jax._gramian import gramian
from tests.problems import FAMILIES, make

SMALL = 1e-5


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=(3, 10), help="numbers of tasks T")
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--tolerance", type=float, default=1e-3)
    args = parser.parse_args(argv)
    aggregation = torchjd()
    if aggregation is None:
        print("torch or torchjd is not installed: there is nothing to compare with.")
        return
    print(f"{'rule':<13}{'T':>4}  {'family':<20}{'distance':>10}{'ours':>10}{'TorchJD':>10}  right")
    for name in args.rules:
        rule = RULES[name]
        if rule.theirs is None or rule.residual is None:
            continue
        for num_tasks in args.tasks:
            compare(name, rule, num_tasks, aggregation, args.tolerance)


def compare(name: str, rule: Rule, num_tasks: int, aggregation, tolerance: float) -> None:
    """The lines of one rule and T."""
    their_call = caller(rule, aggregation, num_tasks)
    assert their_call is not None and rule.residual is not None
    weighting = rule.ours()
    step = jax.jit(
        lambda rows: weighting.update(weighting.init(num_tasks), gramian=gramian(rows))[0]
    )
    agree = 0
    for family in FAMILIES:
        rows = make(family, num_tasks)
        width = max(16, 2 * num_tasks)  # one shape, so one compilation
        padded = np.pad(rows, ((0, 0), (0, width - rows.shape[1]))).astype(np.float32)
        ours = np.asarray(step(jnp.asarray(padded)), np.float64)
        given = padded @ padded.T if rule.reads == "gramian" else padded
        try:
            theirs = their_call(given).astype(np.float64)
        except Exception as problem:  # whatever its solvers raise is what there is to report
            print(f"{name:<13}{num_tasks:>4}  {family:<20}{type(problem).__name__:>30}  ours")
            continue
        distance = relative_distance(ours @ rows, theirs @ rows)
        if distance <= tolerance:
            agree += 1
            continue
        mine, other = rule.residual(rows, ours), rule.residual(rows, theirs)
        print(f"{name:<13}{num_tasks:>4}  {family:<20}{distance:>10.1e}{mine:>10.1e}{other:>10.1e}"
              f"  {who_is_right(mine, other)}", flush=True)  # fmt: skip
    print(f"{name:<13}{num_tasks:>4}  {agree} of {len(FAMILIES)} families agree", flush=True)


def relative_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    longer = max(np.linalg.norm(ours), np.linalg.norm(theirs))
    distance = np.linalg.norm(ours - theirs)
    return float(distance / longer) if longer > 0 else 0.0


def who_is_right(ours: float, theirs: float) -> str:
    # A residual that is not a number is no answer.
    ours, theirs = (x if np.isfinite(x) else np.inf for x in (ours, theirs))
    if max(ours, theirs) <= SMALL or max(ours, theirs) < 10 * min(ours, theirs):
        return "both" if max(ours, theirs) <= SMALL else "neither"
    return "ours" if ours < theirs else "TorchJD"


if __name__ == "__main__":
    main()
