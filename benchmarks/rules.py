"""Weights from a given Gramian: time and residual of every rule, beside TorchJD's.

    python -m benchmarks.rules [--tasks 2 3 10 40 100] [--rules nash_mtl upgrad]

Rules that read the Gramian alone, float32, eight problems a T (half independent Gaussian
rows, half log-normal norms around a shared direction). ms of a jitted call, the mean over
the problems, best of several rounds in which both libraries take turns; no warm start: TorchJD's
Nash-MTL is reset before every call. The residual is that of the rule's defining equation on the
rows in float64, the worst of the problems; a dash stands for a rule without one equation to
check (random orders, votes). TorchJD's columns stay empty where torch and torchjd are not
installed. Set OMP_NUM_THREADS=1 and XLA_FLAGS=--xla_cpu_multi_thread_eigen=false for one thread.
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls

from benchmarks.min_norm import best_in_turn
from mgda_jax import weighting
from tests.problems import errors, make

Residual = Callable[[np.ndarray, np.ndarray], float]
TASKS = (2, 3, 10, 40, 100)
PROBLEMS = 8
RULES = (
    "min_norm", "nash_mtl", "fair_grad", "cagrad", "upgrad", "dual_proj", "pcgrad", "gradvac",
    "imtl_g", "aligned_mtl", "config", "krum", "ntkmtl", "pcd",
)  # fmt: skip


def equal_cosines(rows: np.ndarray, weights: np.ndarray) -> float:
    """IMTL-G, ConFIG: the direction's cosine is the same with every task."""
    d = weights @ rows
    cosines = rows @ d / (np.linalg.norm(rows, axis=1) * np.linalg.norm(d))
    return float(np.ptp(cosines))


def nash(rows: np.ndarray, weights: np.ndarray) -> float:
    """w_t (Mw)_t = 1; only up to a common factor, since clipping the norm is a convention."""
    product = weights * (rows @ (weights @ rows))
    return float(np.max(np.abs(product / np.mean(product) - 1)))


def fair(rows: np.ndarray, weights: np.ndarray, alpha: float = 2.0) -> float:
    """(Mw)_t = w_t^(−1/α), up to a common factor as above."""
    inner = rows @ (weights @ rows)
    with np.errstate(invalid="ignore"):
        product = inner * weights ** (1 / alpha)
    return float(np.nan_to_num(np.max(np.abs(product / np.mean(product) - 1)), nan=np.inf))


def cone(rows: np.ndarray, weights: np.ndarray) -> float:
    """UPGrad: ‖d − d*‖ / ‖d*‖, d* the mean of the projections by non-negative least squares."""
    projections = [g + rows.T @ nnls(rows.T, -g, maxiter=100 * len(rows))[0] for g in rows]
    best = np.mean(projections, axis=0)
    return float(np.linalg.norm(weights @ rows - best) / np.linalg.norm(best))


def cone_of_mean(rows: np.ndarray, weights: np.ndarray) -> float:
    """DualProj: the same for the projection of the mean."""
    mean = rows.mean(axis=0)
    best = mean + rows.T @ nnls(rows.T, -mean, maxiter=100 * len(rows))[0]
    return float(np.linalg.norm(weights @ rows - best) / np.linalg.norm(best))


def cagrad(rows: np.ndarray, weights: np.ndarray, c: float = 0.4) -> float:
    """Frank–Wolfe gap of F(v) = vᵀMb + c‖g₀‖√(vᵀMv) at the v inside the weights, over |F|."""
    uniform = np.full(len(rows), 1 / len(rows))
    v = np.maximum(weights - uniform, 0)
    v = v / v.sum()
    g0, gv = uniform @ rows, v @ rows
    slope = rows @ g0 + c * np.linalg.norm(g0) * rows @ gv / np.linalg.norm(gv)
    return float((v @ slope - slope.min()) / np.abs(slope).max())


def aligned(rows: np.ndarray, weights: np.ndarray) -> float:
    """Aligned-MTL: ‖w − w*‖ / ‖w*‖, w* from an eigendecomposition in float64."""
    values, vectors = np.linalg.eigh(rows @ rows.T)
    best = vectors @ (vectors.T @ np.ones(len(rows)) / np.sqrt(values)) * np.sqrt(values[0])
    weights = weights * (np.linalg.norm(best) / np.linalg.norm(weights))
    return float(np.linalg.norm(weights - best) / np.linalg.norm(best))


RESIDUALS: dict[str, Residual] = {
    "min_norm": lambda rows, weights: errors(rows, weights).kkt,
    "nash_mtl": nash,
    "fair_grad": fair,
    "cagrad": cagrad,
    "upgrad": cone,
    "dual_proj": cone_of_mean,
    "imtl_g": equal_cosines,
    "config": equal_cosines,
    "aligned_mtl": aligned,
}


def ours(name: str, num_tasks: int) -> Callable[[Any], Any]:
    """The rule's weights of a Gramian, from a state at rest."""
    rule = getattr(weighting, name)(**({"c": 0.4} if name == "cagrad" else {}))
    state = rule.init(num_tasks)
    return jax.jit(lambda gram: rule.update(state, gramian=gram)[0])


def theirs(name: str, num_tasks: int) -> Callable[..., Any] | None:
    """TorchJD's weights of the same problem, (rows, Gramian) → weights, or None."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchjd") is None:
        return None
    import torch  # pyright: ignore[reportMissingImports]  (optional)
    from torchjd import aggregation  # pyright: ignore[reportMissingImports]  (optional)

    torch.set_num_threads(1)
    if name == "nash_mtl":
        bargain = aggregation.NashMTL(n_tasks=num_tasks)

        def cold(rows, gram):
            bargain.reset()
            return bargain.weighting(rows)

        return cold
    factories = {
        "min_norm": lambda: aggregation.MGDAWeighting(),
        "fair_grad": lambda: aggregation.FairGradWeighting(alpha=2.0),
        "cagrad": lambda: aggregation.CAGradWeighting(c=0.4),
        "upgrad": lambda: aggregation.UPGradWeighting(),
        "dual_proj": lambda: aggregation.DualProjWeighting(),
        "pcgrad": lambda: aggregation.PCGradWeighting(),
        "gradvac": lambda: aggregation.GradVacWeighting(),
        "imtl_g": lambda: aggregation.IMTLGWeighting(),
        "aligned_mtl": lambda: aggregation.AlignedMTLWeighting(),
    }
    if name not in factories:
        return None
    rule = factories[name]()
    return lambda rows, gram: rule(gram)


def compare(name: str, num_tasks: int) -> str:
    """One line of the table."""
    families = ("gaussian", "realistic")
    rows = [make(families[i % 2], num_tasks, i) for i in range(PROBLEMS)]
    rows = [r / np.abs(r).max() for r in rows]
    grams = [(r @ r.T).astype(np.float32) for r in rows]
    device_grams = [jnp.asarray(gram) for gram in grams]
    rule = ours(name, num_tasks)
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: [rule(gram) for gram in device_grams]}
    found = {"ours": [np.asarray(w, np.float64) for w in calls["ours"]()]}
    external = theirs(name, num_tasks)
    if external is not None:
        import torch  # pyright: ignore[reportMissingImports]  (optional)

        pairs = [
            (torch.from_numpy(r.astype(np.float32)), torch.from_numpy(gram))
            for r, gram in zip(rows, grams, strict=True)
        ]
        calls["theirs"] = lambda: [external(*pair) for pair in pairs]
        found["theirs"] = [w.numpy().astype(np.float64) for w in calls["theirs"]()]
    seconds = best_in_turn(calls, repeats=5 if name == "nash_mtl" else 15)
    time = {who: 1e3 * value / PROBLEMS for who, value in seconds.items()}
    worst = {
        who: max(RESIDUALS[name](r, w) for r, w in zip(rows, answers, strict=True))
        for who, answers in found.items()
        if name in RESIDUALS
    }
    residual = {who: f"{worst[who]:.0e}" if who in worst else "–" for who in ("ours", "theirs")}
    other = (
        f"{time['theirs']:.2f} | {time['theirs'] / time['ours']:.1f} | "
        if "theirs" in time
        else " | | "
    )
    last = residual["theirs"] if "theirs" in time else ""
    return f"| {name} | {num_tasks} | {time['ours']:.3f} | {other}{residual['ours']} | {last} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time and residual of every rule.")
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS, help="numbers of tasks T")
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES, help="which rules")
    options = parser.parse_args()
    print("| rule | T | ours, ms | TorchJD, ms | ratio | residual, ours | residual, TorchJD |")
    print("|---|---|---|---|---|---|---|")
    for name in options.rules:
        for num_tasks in options.tasks:
            print(compare(name, num_tasks), flush=True)


if __name__ == "__main__":
    main()
