"""Min-norm problems on which solvers fail, and an independent float64 reference.

Every family is a function of (rng, num_tasks) → rows (T, P) in float64 whose
entries float32 represents exactly, so both precisions see the same problem.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls


def make(family: str, num_tasks: int, seed: int = 0) -> np.ndarray:
    """Rows (T, P) of one family, exact in float32, P = max(16, 2T) or what the family says."""
    rng = np.random.default_rng([seed, num_tasks, *family.encode()])
    return FAMILIES[family](rng, num_tasks).astype(np.float32).astype(np.float64)


def _columns(num_tasks: int) -> int:
    return max(16, 2 * num_tasks)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _gaussian(rng, num_tasks):
    return rng.standard_normal((num_tasks, _columns(num_tasks)))


def _realistic(exponent=0):
    """Log-normal norms around a shared direction, as gradients of related tasks have them."""

    def family(rng, num_tasks):
        shared = rng.standard_normal(_columns(num_tasks))
        rows = 0.7 * shared + rng.standard_normal((num_tasks, _columns(num_tasks)))
        norms = np.exp(rng.standard_normal((num_tasks, 1)))
        return np.ldexp((norms * _unit(rows)).astype(np.float32), exponent)

    return family


def _orthogonal(rng, num_tasks):
    """Every task active: the slowest case of Frank–Wolfe."""
    basis = np.linalg.qr(rng.standard_normal((_columns(num_tasks), num_tasks)))[0].T
    return basis * rng.uniform(0.5, 2.0, (num_tasks, 1))


def _spread(decades):
    def family(rng, num_tasks):
        return _unit(_gaussian(rng, num_tasks)) * 10 ** rng.uniform(0, decades, (num_tasks, 1))

    return family


def _spread_common(rng, num_tasks):
    return _cone(1e-2)(rng, num_tasks) * 10 ** rng.uniform(0, 4, (num_tasks, 1))


def _cone(one_minus_cosine):
    """Unit rows whose pairwise cosine is about 1 − one_minus_cosine."""

    def family(rng, num_tasks):
        axis = _unit(rng.standard_normal((1, _columns(num_tasks))))
        across = rng.standard_normal((num_tasks, _columns(num_tasks)))
        across = _unit(across - (across @ axis.T) * axis)
        return np.sqrt(1 - one_minus_cosine) * axis + np.sqrt(one_minus_cosine) * across

    return family


def _near_duplicates(rng, num_tasks):
    """Pairs of rows that differ by a relative 1e-7 … 1e-4."""
    rows = _gaussian(rng, num_tasks)
    half = num_tasks // 2
    size = 10 ** rng.uniform(-7, -4, (half, 1))
    rows[half : 2 * half] = rows[:half] * (1 + size * rng.standard_normal((half, rows.shape[1])))
    return rows


def _duplicates(rng, num_tasks):
    rows = _gaussian(rng, num_tasks)
    half = num_tasks // 2
    rows[half : 2 * half] = rows[:half]
    return rows


def _rank_deficient(rng, num_tasks):
    """P = T/4 without a shared direction: for large T the origin lies inside the hull."""
    return rng.standard_normal((num_tasks, max(1, num_tasks // 4)))


def _rank_deficient_away(rng, num_tasks):
    """P = T/4, every row on the positive side of one hyperplane: the origin is outside."""
    rows = rng.standard_normal((num_tasks, max(1, num_tasks // 4)))
    rows[:, 0] = np.abs(rows[:, 0]) + 0.5
    return rows


def _zero_row(rng, num_tasks):
    rows = _gaussian(rng, num_tasks)
    rows[num_tasks // 2] = 0
    return rows


def _balanced(rng, num_tasks, columns):
    """Σ w_t g_t = 0 exactly for small positive integers w: entries are multiples of 2⁻⁸."""
    rows = np.round(rng.standard_normal((num_tasks, columns)) * 2**8) / 2**8
    weights = rng.integers(1, 4, num_tasks)
    weights[-1] = 1
    rows[-1] = -(weights[:-1] @ rows[:-1])
    return rows


def _stationary(rng, num_tasks):
    """The origin in the relative interior of the hull: d* = 0, every weight positive."""
    return _balanced(rng, num_tasks, _columns(num_tasks))


def _stationary_face(rng, num_tasks):
    """The origin on a face of half the tasks; the others lie strictly to one side of it."""
    columns = _columns(num_tasks)
    face = max(2, (num_tasks + 1) // 2)
    rows = np.zeros((num_tasks, columns))
    rows[:face, 1:] = _balanced(rng, face, columns - 1)
    rows[face:] = rng.standard_normal((num_tasks - face, columns))
    rows[face:, 0] = np.abs(rows[face:, 0]) + 0.5
    return rows


def _opposed_pair(rng, num_tasks):
    rows = _gaussian(rng, num_tasks)
    rows[-1] = -rows[0]
    return rows


def _spread_tied_opposed(rng, num_tasks):
    """Norms over eight decades, with an equal pair and an opposed pair among them."""
    rows = _spread(8)(rng, num_tasks)
    if num_tasks > 3:
        rows[1] = rows[0]
    rows[-1] = -rows[num_tasks // 2]
    return rows


def _vandermonde(rng, num_tasks):
    """Rows (1, x, x², …) minus their mean but a little: badly conditioned, hull close to 0."""
    nodes = np.linspace(-1, 1, num_tasks) + 0.01 * rng.standard_normal(num_tasks)
    rows = nodes[:, None] ** np.arange(_columns(num_tasks))
    weights = rng.dirichlet(np.ones(num_tasks))
    return rows - (1 - 1e-3) * (weights @ rows)


FAMILIES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "gaussian": _gaussian,
    "realistic": _realistic(),
    "realistic_2^-66": _realistic(-66),
    "realistic_2^-40": _realistic(-40),
    "realistic_2^40": _realistic(40),
    "orthogonal": _orthogonal,
    "spread_1e4": _spread(4),
    "spread_1e8": _spread(8),
    "spread_common": _spread_common,
    "cosine_0.99": _cone(1e-2),
    "cosine_0.9999": _cone(1e-4),
    "cosine_0.999999": _cone(1e-6),
    "cosine_0.9999999": _cone(1e-7),
    "near_duplicates": _near_duplicates,
    "duplicates": _duplicates,
    "rank_deficient": _rank_deficient,
    "rank_deficient_away": _rank_deficient_away,
    "zero_row": _zero_row,
    "stationary": _stationary,
    "stationary_face": _stationary_face,
    "opposed_pair": _opposed_pair,
    "vandermonde": _vandermonde,
    "spread_tied_opposed": _spread_tied_opposed,
}


def disturb(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows in another order, each entry moved by at most its last bit in float32.

    What rounding does on another processor, without one: an answer that holds for
    every draw does not rest on the order of one machine's additions.
    """
    moved = rows * (1 + np.finfo(np.float32).eps * rng.integers(-1, 2, rows.shape))
    return moved[rng.permutation(len(rows))].astype(np.float32).astype(np.float64)


class Errors(NamedTuple):
    """Errors of one answer, all scale free, measured on the rows in float64.

    Attributes:
      kkt: max_i (‖d‖² − ⟨g_i, d⟩) / (‖g_i‖·S₁), S₁ = Σ α_j ‖g_j‖.
      kkt_n: the same over (‖g_i‖ + S₁)·S₁, the backward error.
      gap: ‖d‖² − min_i ⟨g_i, d⟩ over max_i ‖g_i‖².
      direction: ‖d − d*‖ / S₁ against the reference.
      simplex: max(−min α, |Σα − 1|).
    """

    kkt: float
    kkt_n: float
    gap: float
    direction: float
    simplex: float


def errors(rows: np.ndarray, weights: np.ndarray, direction: np.ndarray | None = None) -> Errors:
    """Errors of weights (T,) on rows (T, P); direction d* (P,), by default the reference's."""
    weights = np.asarray(weights, np.float64)
    rows = rows / np.abs(rows).max()
    if direction is None:
        direction = rows.T @ reference(rows)
    d = weights @ rows
    norms = np.linalg.norm(rows, axis=1)
    s1 = weights @ norms
    excess = np.maximum(d @ d - rows @ d, 0)
    simplex = max(-weights.min(), abs(weights.sum() - 1))
    if s1 == 0:
        return Errors(0.0, 0.0, 0.0, 0.0, simplex)
    with np.errstate(divide="ignore", invalid="ignore"):
        kkt = np.where(excess > 0, excess / (norms * s1), 0).max()  # Inf: a zero row passed over
    return Errors(
        float(kkt),
        float((excess / ((norms + s1) * s1)).max()),
        float(excess.max() / norms.max() ** 2),
        float(np.linalg.norm(d - direction) / s1),
        float(simplex),
    )


def reference(rows: np.ndarray) -> np.ndarray:
    """Weights (T,) of the min-norm point by non-negative least squares (Lawson–Hanson).

    With unit rows ĝ_i = g_i/‖g_i‖ and u_i = min_j ‖g_j‖ / ‖g_i‖ the minimiser of
    ‖Ĝᵀb‖² + (uᵀb − 1)² over b ≥ 0 gives α = u∘b / uᵀb.
    """
    rows = rows / np.abs(rows).max()
    norms = np.linalg.norm(rows, axis=1)
    if norms.min() == 0:
        return (norms == 0) / np.sum(norms == 0)
    u = norms.min() / norms
    stacked = np.vstack([(rows / norms[:, None]).T, u])
    target = np.zeros(len(stacked))
    target[-1] = 1
    b = nnls(stacked, target, maxiter=50 * len(rows))[0]
    return u * b / (u @ b)
