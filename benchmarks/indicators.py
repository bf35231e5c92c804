"""The indicators of `mgda_jax.pareto` against moocore and pymoo on random sets in float64.

    python -m benchmarks.indicators
    python -m benchmarks.indicators --sets 200 --seed 1

A set has points on a sphere and inside it, some of them copies, some dominated, some beyond the
reference. Each line is the largest error over the sets of all numbers of losses, relative to the
number that the other library gives; fronts and dominance count the points that differ. moocore has
no spacing, which is pymoo's (times √(N/(N−1)): it divides by N); neither has spread, Δm or the mean
rank, whose formulas the tests write out. Lines of a library that is missing are left out.

On two CPU cores, moocore 0.3.2 and pymoo 0.6.2, the 1 000 sets of the first command: hypervolume
1.02e-13 (both functions), igd 7.71e-16, igd_plus 8.02e-16, spacing 4.46e-16, no point of the fronts
or of the non-dominated sets that differs.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mgda_jax import pareto

LOSSES = {2: 40, 3: 24, 4: 16, 5: 12}  # T: points of a set
BOUND = 1e-9


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line an indicator; 1 where one misses the bound or nothing could be compared."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", type=int, default=1000, help="random sets, a quarter for each T")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.sets < len(LOSSES):
        parser.error(f"--sets: expected at least {len(LOSSES)}, got {args.sets}")
    others = {name: _library(name) for name in ("moocore", "pymoo.indicators.spacing")}
    if not any(others.values()):
        print("neither moocore nor pymoo is installed: python -m pip install moocore pymoo")
        return 1
    worst: dict[str, float] = {}
    with jax.enable_x64(True):
        for num_losses, count in LOSSES.items():
            rng = np.random.default_rng([args.seed, num_losses])
            sets = [random_set(rng, num_losses, count) for _ in range(args.sets // len(LOSSES))]
            for name, error in compare(np.stack(sets), *others.values()).items():
                worst[name] = max(worst.get(name, 0.0), error)
    versions = [f"{m.__name__.split('.')[0]} {_version(m)}" for m in others.values() if m]
    count = args.sets // len(LOSSES) * len(LOSSES)
    print(f"{count} sets in {min(LOSSES)} to {max(LOSSES)} losses; {', '.join(versions)}")
    for name, error in worst.items():
        print(f"{name:<20}{error:>12.2e}{'' if error <= BOUND else '  above ' + str(BOUND)}")
    return int(not all(error <= BOUND for error in worst.values()))


def random_set(rng: np.random.Generator, num_losses: int, count: int) -> np.ndarray:
    """(count, T): a rough front in the unit cube, with copies and points beyond 1."""
    points = np.abs(rng.standard_normal((count, num_losses)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points *= rng.choice([1.0, 1.05, 1.6], (count, 1), p=[0.5, 0.3, 0.2])
    points[count // 2] = points[0]
    if rng.random() < 0.3:  # ties in single losses
        points = np.round(points, 1)
    return points


def compare(sets: np.ndarray, moocore: Any, pymoo: Any) -> dict[str, float]:
    """The largest error of each indicator over sets (S, N, T)."""
    num_losses = sets.shape[2]
    reference = np.full(num_losses, 1.1)
    front = np.abs(np.random.default_rng(7).standard_normal((50, num_losses)))
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    ours = {
        "hypervolume": _each(lambda p: pareto.hypervolume(p, jax.numpy.asarray(reference)), sets),
        "wfg_hypervolume": np.array([pareto.wfg_hypervolume(p, reference) for p in sets]),
        "igd": _each(lambda p: pareto.igd(p, front), sets),
        "igd_plus": _each(lambda p: pareto.igd_plus(p, front), sets),
        "spacing": _each(pareto.spacing, sets),
        "non_dominated": _each(pareto.non_dominated, sets),
        "fronts": _each(pareto.fronts, sets),
    }
    theirs: dict[str, Any] = {}
    if moocore is not None:
        theirs |= {
            "hypervolume": lambda p: moocore.hypervolume(p, ref=reference),
            "wfg_hypervolume": lambda p: moocore.hypervolume(p, ref=reference),
            "igd": lambda p: moocore.igd(p, ref=front),
            "igd_plus": lambda p: moocore.igd_plus(p, ref=front),
            "non_dominated": lambda p: moocore.is_nondominated(p, keep_weakly=True),
            "fronts": moocore.pareto_rank,
        }
    if pymoo is not None:
        unbiased = np.sqrt(sets.shape[1] / (sets.shape[1] - 1))
        theirs["spacing"] = lambda p: unbiased * pymoo.SpacingIndicator()(p)
    errors = {}
    for name, function in theirs.items():
        found, expected = ours[name], np.array([function(p) for p in sets])
        if expected.dtype.kind == "f":
            errors[name] = float(np.max(np.abs(found - expected) / np.abs(expected)))
        else:
            errors[name] = float(np.sum(found != expected))
    return errors


def _each(function: Any, sets: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(function))(sets))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _version(module: Any) -> str:
    return importlib.import_module(module.__name__.split(".")[0]).__version__


if __name__ == "__main__":
    raise SystemExit(main())
