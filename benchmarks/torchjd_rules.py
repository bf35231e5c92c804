"""The rules of TorchJD beside ours: one entry a rule, and the residual that judges both.

Residuals are measured in float64 on the rows and are free of scale. Zero means that the
weights satisfy the equation or the optimality conditions that define the rule.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from mgda_jax import weighting
from tests.problems import errors

Theirs = Callable[[np.ndarray], np.ndarray]
Residual = Callable[[np.ndarray, np.ndarray], float]


class Rule(NamedTuple):
    """One rule.

    Attributes:
      ours: the rule in the convention of TorchJD.
      theirs: (torchjd.aggregation, T) → its weighting; None where it has none.
      reads: "gramian", or "rows" where TorchJD's takes the rows.
      residual: (rows (T, P), weights (T,)) → a number; None for rules that draw or have memory.
    """

    ours: Callable[[], Any]
    theirs: Callable[[Any, int], Any] | None
    reads: str = "gramian"
    residual: Residual | None = None


def torchjd() -> Any:
    """torchjd.aggregation on one thread, or None where torch or torchjd is not installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchjd") is None:
        return None
    import torch  # pyright: ignore[reportMissingImports]  (optional)
    from torchjd import aggregation  # pyright: ignore[reportMissingImports]  (optional)

    torch.set_num_threads(1)
    return aggregation


def caller(rule: Rule, aggregation: Any, num_tasks: int) -> Theirs | None:
    """rows (T, P) float32 → TorchJD's weights, forming nothing but what its rule reads."""
    if aggregation is None or rule.theirs is None:
        return None
    import torch  # pyright: ignore[reportMissingImports]  (optional)

    their_rule = rule.theirs(aggregation, num_tasks)

    def call(given: np.ndarray) -> np.ndarray:
        # Nash-MTL is timed and judged from a cold start, as on the first step.
        if hasattr(their_rule, "reset"):
            their_rule.reset()
        return their_rule(torch.from_numpy(given)).numpy()

    return call


def _norms(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1)
    return np.where(norms == 0, 1, norms)


def _min_norm(rows: np.ndarray, weights: np.ndarray) -> float:
    return errors(rows, weights).kkt


def _nash(rows: np.ndarray, weights: np.ndarray) -> float:
    # All products equal: the same for the clipped convention.
    products = weights * (rows @ (weights @ rows))
    mean = np.mean(products)
    return float(np.max(np.abs(products / mean - 1))) if mean > 0 else float("inf")


def _fair(rows: np.ndarray, weights: np.ndarray) -> float:
    gains = rows @ (weights @ rows)
    return float(np.max(np.abs(gains * np.sqrt(np.maximum(weights, 0)) - 1)))


def _project(units: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return vector + units.T @ nnls(units.T, -vector, maxiter=100 * len(units))[0]


def _upgrad(rows: np.ndarray, weights: np.ndarray) -> float:
    norms = _norms(rows)
    units = rows / norms[:, None]
    projected = np.stack([_project(units, row) for row in units])
    distance = np.linalg.norm(weights @ rows - norms @ projected / len(rows))
    return float(distance / np.sum(np.abs(weights) * norms))


def _dual_proj(rows: np.ndarray, weights: np.ndarray) -> float:
    norms = _norms(rows)
    units, mean = rows / norms[:, None], rows.mean(axis=0)
    distance = np.linalg.norm(weights @ rows - _project(units, mean))
    return float(distance / np.sum(np.abs(weights) * norms))


def _cagrad(rows: np.ndarray, weights: np.ndarray) -> float:
    # The gap between the least gain and the bound of the w it rests on, and the radius.
    mean = rows.mean(axis=0)
    length = np.linalg.norm(mean)
    added = weights @ rows - mean
    y = np.maximum(weights - 1 / len(rows), 0)
    w = y / y.sum() if y.sum() > 0 else np.full(len(rows), 1 / len(rows))
    bound = w @ rows @ mean + 0.4 * length * np.linalg.norm(w @ rows)
    gap = max(bound - np.min(rows @ (mean + added)), 0) / _norms(rows).max()
    outside = max(np.linalg.norm(added) - 0.4 * length, 0)
    return float(max(gap, outside) / length)


def _equal_projections(rows: np.ndarray, weights: np.ndarray) -> float:
    projections = rows @ (weights @ rows) / _norms(rows)
    largest = np.max(np.abs(projections))
    return float(np.ptp(projections) / largest) if largest > 0 else float("inf")


def _aligned(rows: np.ndarray, weights: np.ndarray) -> float:
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > len(rows) * np.finfo(np.float32).eps * values.max()
    vectors, values = vectors[:, kept], values[kept]
    balance = vectors / np.sqrt(values) @ vectors.T * np.sqrt(values.min())
    expected = balance @ np.full(len(rows), 1 / len(rows))
    return float(np.linalg.norm(weights - expected) / np.linalg.norm(expected))


RULES: dict[str, Rule] = {
    "min_norm": Rule(weighting.min_norm, lambda a, t: a.MGDAWeighting(), residual=_min_norm),
    "nash_mtl": Rule(
        lambda: weighting.nash_mtl(max_norm=1.0),
        lambda a, t: a.NashMTL(n_tasks=t).weighting,
        reads="rows",
        residual=_nash,
    ),
    "fair_grad": Rule(
        weighting.fair_grad, lambda a, t: a.FairGradWeighting(alpha=2.0), residual=_fair
    ),
    "cagrad": Rule(weighting.cagrad, lambda a, t: a.CAGradWeighting(c=0.4), residual=_cagrad),
    "upgrad": Rule(weighting.upgrad, lambda a, t: a.UPGradWeighting(), residual=_upgrad),
    "dual_proj": Rule(weighting.dual_proj, lambda a, t: a.DualProjWeighting(), residual=_dual_proj),
    "imtl_g": Rule(weighting.imtl_g, lambda a, t: a.IMTLGWeighting(), residual=_equal_projections),
    "aligned_mtl": Rule(
        weighting.aligned_mtl, lambda a, t: a.AlignedMTLWeighting(), residual=_aligned
    ),
    "config": Rule(weighting.config, None, residual=_equal_projections),
    "pcgrad": Rule(weighting.pcgrad, lambda a, t: a.PCGradWeighting()),
    "gradvac": Rule(weighting.gradvac, lambda a, t: a.GradVacWeighting()),
    "random": Rule(weighting.random, lambda a, t: a.RandomWeighting()),
}
