"""What every rule's answers must satisfy, measured in float64 on the rows, for a whole batch.

Bounds are in eps of float32 and free of scale. A violation is explained only by a reason that
can be measured on the problem itself or that the rule's state reports.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.fuzz_problems import NAMES, Batch
from tests.problems import reference
from tests.weighting.rules import RAY, RAYS

EPS = float(np.finfo(np.float32).eps)
# Below some eps^{1/3} of distance of the unit rows' hull from the origin, the rounding of the
# Gramian moves the solution by as much.
HULL = 2 * EPS ** (1 / 3)


class Case:
    """A batch and what a rule made of it, rows and weights in a scale in which nothing overflows.

    Attributes:
      rows, norms: (N, T, P) and (N, T), the largest entry of each problem in [1/2, 1).
      weights: (N, T), of the rows as they were.
      scaled: (N, T) weights · 2^exponent: those whose Σ w_t g_t is the direction.
      gains: (N, T) ⟨g_t, d⟩, of the Gramian itself where its entries were rounded.
      size: (N,) Σ |w_t| ‖g_t‖.
    """

    def __init__(self, batch: Batch, matrix: np.ndarray, weights: np.ndarray, state: Any):
        self.batch, self.state = batch, state
        rows = batch.rows.astype(np.float64)
        exponent = np.frexp(np.abs(rows).max(axis=(1, 2)))[1]
        self.rows = np.ldexp(rows, -exponent[:, None, None])
        self.exponent = exponent
        self.flushed = np.trace(matrix, axis1=1, axis2=2) == 0
        exact = self.rows @ self.rows.swapaxes(1, 2)
        # The rule's own Gramian, rounded, in the same scale as the exact one.
        factor = np.trace(exact, axis1=1, axis2=2) / np.trace(matrix, axis1=1, axis2=2)
        given = matrix * np.exp2(np.round(np.log2(factor)))[:, None, None]
        self.matrix = np.where(batch.rounded[:, None, None], given, exact)
        self.norms = np.sqrt(np.diagonal(self.matrix, axis1=1, axis2=2))
        self.weights = weights
        self.scaled = np.ldexp(weights, exponent[:, None])
        self.gains = np.einsum("nst,nt->ns", self.matrix, weights)
        self.size = np.sum(np.abs(weights) * self.norms, axis=1)
        unit = self.matrix / _safe(self.norms)[:, :, None] / _safe(self.norms)[:, None, :]
        self.values = np.linalg.eigvalsh(unit)
        self.absolute = np.abs(unit)
        self.unit = unit
        self.num_tasks = weights.shape[1]

    def of(self, *families: str) -> np.ndarray:
        return np.isin(self.batch.family, [NAMES.index(name) for name in families])

    @property
    def indefinite(self) -> np.ndarray:
        return self.batch.rounded & (self.values[:, 0] < 0)

    @property
    def ambiguous(self) -> np.ndarray:
        """An eigenvalue of the unit rows' Gramian so near the cut that rounding decides."""
        return at_cut(self.values)


def at_cut(values: np.ndarray) -> np.ndarray:
    """Whether an eigenvalue, rising along the last axis, is within 16 times of the cut at T·eps."""
    cut = values.shape[1] * EPS * values[:, -1:]
    return np.any((values > cut / 16) & (values < cut * 16), axis=1)


class Verdict(NamedTuple):
    """What is asked of every answer, as a residual over its bound: at most one where it holds.

    Attributes:
      constraint, certified: (N,), Inf where something exact is violated.
      reasons: name → (N,) bool, why a violation is none.
    """

    constraint: np.ndarray
    certified: np.ndarray
    reasons: dict[str, np.ndarray]

    @property
    def worst(self) -> np.ndarray:
        return np.maximum(self.constraint, self.certified)


Check = Callable[[Case], Verdict]


def _safe(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, 1, values)


def _exactly(holds: np.ndarray) -> np.ndarray:
    return np.where(holds, 0.0, np.inf)


def _not_negative(case: Case) -> np.ndarray:
    return _exactly(case.weights.min(axis=1) >= 0)


def _on_simplex(case: Case) -> np.ndarray:
    off = np.abs(np.sum(case.weights, axis=1) - 1) / (4 * EPS * np.sqrt(case.num_tasks))
    return np.maximum(_not_negative(case), off)


def simplex(case: Case) -> Verdict:
    off = _on_simplex(case)
    return Verdict(off, off, {})


def min_norm(case: Case) -> Verdict:
    """Backward error and, where rounding of the Gramian allows, the relative residual."""
    length = np.sum(case.weights * case.gains, axis=1)
    excess = np.maximum(length[:, None] - case.gains, 0)
    s1 = case.size[:, None]
    backward = np.max(excess / _safe((case.norms + s1) * s1), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kkt = np.max(np.where(excess > 0, excess / (case.norms * s1), 0), axis=1)
        noise = EPS * case.size / _safe(case.norms).min(axis=1)
    hardest = case.of("spread_tied_opposed", "spread_1e8", "spread_1e4", "spread_common")
    inexact = np.maximum(backward / np.where(hardest, 1e-5, 1e-6), kkt / (2e-6 + 8 * noise))
    hidden = np.where(kkt <= case.state.kkt, 0, (kkt - case.state.kkt) / (4 * EPS + 8 * noise))
    reasons = {"indefinite Gramian, and the state's kkt says so": case.indefinite & (hidden <= 1)}
    return Verdict(_on_simplex(case), np.maximum(inexact, hidden), reasons | _flushed(case))


def _flushed(case: Case) -> dict[str, np.ndarray]:
    return {"denormal rows count as zero": case.flushed}


def cone(case: Case) -> Verdict:
    """UPGrad and DualProj: the direction conflicts with no task."""
    conflict = _conflict(case.gains, 16 * EPS * case.norms * case.size[:, None])
    # Of the problem without regularisation: λ need not be small.
    large = case.state.residual / (64 * EPS)
    reasons = {"indefinite Gramian": case.indefinite} | _flushed(case)
    return Verdict(np.maximum(conflict, _not_negative(case)), large, reasons)


def _conflict(gains: np.ndarray, bound: np.ndarray) -> np.ndarray:
    return np.max(np.maximum(-gains, 0) / _safe(bound), axis=1)


def bargain(power: float) -> Check:
    """w_tᵖ ⟨g_t, d⟩ = 1 as far as weights rounded to float32 can tell."""

    def check(case: Case) -> Verdict:
        there = case.norms > 0
        shares = case.scaled * case.norms  # of unit rows, in the problem's own scale
        powers = np.where(there, case.scaled, 0) ** power
        # w solves the scaled problem when multiplied by 2^e for p = 1, 2^{2e/(1+p)} else.
        ratio = 2 / (1 + power) - 1
        factor = np.exp2(case.exponent * ratio)[:, None]
        shares, powers = shares * factor, powers * factor**power
        terms = np.einsum("nst,nt->ns", case.unit, shares) * case.norms
        sizes = np.einsum("nst,nt->ns", case.absolute, shares) * case.norms
        off = np.max(np.where(there, np.abs(powers * terms - 1), 0), axis=1)
        floor = np.max(np.where(there, powers * sizes, 0), axis=1)
        off = off / (1e-5 + 64 * EPS * floor)
        regularised = case.state.regularization > 0
        honest = case.state.residual <= 1e-5 + 64 * EPS * floor
        near = np.zeros(len(off), bool)
        for i in np.nonzero(regularised & ~(off <= 0.5))[0]:
            near[i] = _hull_distance(case.rows[i], case.norms[i]) <= HULL
        positive = np.all((case.weights > 0) | ~there, axis=1)
        # Weights that float32 does not hold are brought back by one power of two: the equation
        # then holds up to a common factor, unless their spread alone is beyond it.
        largest, least = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
        edge = np.any((case.weights > largest / 8) | (case.weights < least * 8) & there, axis=1)
        parts = np.where(there & np.isfinite(terms), np.abs(powers * terms), np.inf)
        level = np.min(parts, axis=1)
        ratio = np.max(np.where(there, parts, 0), axis=1) / level
        alike = ratio - 1 <= 2e-5 + 128 * EPS * floor / level
        spread = edge & np.any((case.weights == 0) & there, axis=1)
        reasons = {
            "0 in the hull of the unit rows: regularised, as the state says": near & honest,
            "indefinite Gramian": case.indefinite,
            "the length alone is beyond float32": edge
            & alike
            & np.all((case.weights > 0) | ~there, 1),
            "a denormal row, or weights spread beyond float32": spread,
        }
        return Verdict(_exactly(positive), off, reasons | _flushed(case))

    return check


def _hull_distance(rows: np.ndarray, norms: np.ndarray) -> float:
    units = rows[norms > 0] / norms[norms > 0, None]
    return float(np.linalg.norm(reference(units) @ units))


def cagrad(case: Case) -> Verdict:
    least = 1 / case.num_tasks
    mean = np.full_like(case.weights, least)
    added = case.weights - least
    radius = _length(case, added)
    length = _length(case, mean)
    rounding = np.sum(case.norms, axis=1) / case.num_tasks
    outside = (radius - 0.4 * length) / (32 * EPS * _safe(rounding))
    lost = (1 - case.weights.min(axis=1) / least) / (4 * EPS)
    ill = case.of("vandermonde", "spread_tied_opposed")
    large = case.state.residual / (np.where(ill, 1024, 64) * EPS)
    near = case.values[:, 0] < 16 * case.num_tasks * EPS * case.values[:, -1]
    reasons = {
        "indefinite Gramian": case.indefinite,
        "0 near the hull: known to √eps only": near
        & (case.state.residual <= np.sqrt(EPS))
        & (radius - 0.4 * length <= np.sqrt(EPS) * rounding),
    }
    return Verdict(np.maximum(outside, lost), large, reasons | _flushed(case))


def _length(case: Case, weights: np.ndarray) -> np.ndarray:
    square = np.einsum("ns,nst,nt->n", weights, case.matrix, weights)
    return np.sqrt(np.maximum(square, 0))


def equal(one: bool) -> Check:
    """Equal cosines to all tasks (weights of sum one with `one`)."""

    def check(case: Case) -> Verdict:
        there = case.norms > 0
        along = np.where(there, case.gains / _safe(case.norms), np.nan)
        spread = np.nanmax(along, axis=1) - np.nanmin(along, axis=1)
        slack = 64 * case.num_tasks * EPS * case.size
        unequal = spread / _safe(slack)
        # What of the ones lies along eigenvalues that are not zero but below the cut.
        values, vectors = np.linalg.eigh(case.unit)
        below = values <= case.num_tasks * EPS * values[:, -1:]
        ones = np.where(below, np.sum(vectors * there[:, :, None], axis=1), 0)
        lost = np.max(np.abs(np.einsum("nte,ne->nt", vectors, ones)), axis=1)
        cut = spread <= 4 * lost * np.abs(np.nanmean(along, axis=1)) + slack
        total = np.abs(np.sum(case.weights, axis=1) - 1)
        sums = total / (16 * EPS * _safe(np.sum(np.abs(case.weights), axis=1)))
        constraint = np.where(one & np.logical_or.reduce(case.weights, axis=1), sums, 0)
        reasons = {"as far off as the rank cut takes it": cut}
        return Verdict(constraint, unequal, reasons | _singular(case))

    return check


def pseudo_inverse(case: Case) -> Verdict:
    """ConFIG: v along U⁺1, so ⟨u_t, d⟩ ∝ P1, and ‖d‖ = Σ ⟨g_t, v⟩."""
    values, vectors = np.linalg.eigh(case.unit)
    ones = np.sum(vectors * (case.norms > 0)[:, :, None], axis=1)
    ones = np.where(values > case.num_tasks * EPS * values[:, -1:], ones, 0)
    wanted = np.einsum("nte,ne->nt", vectors, ones)
    shares = np.einsum("nte,ne->nt", vectors, ones / np.where(ones == 0, 1, values))
    square = np.sum(shares * wanted, axis=1)
    length = np.sum(case.norms * wanted, axis=1) / _safe(square)
    along = case.gains / _safe(case.norms)
    slack = 64 * case.num_tasks * EPS * case.size
    best = np.sum(along * wanted, axis=1) / _safe(np.sum(wanted**2, axis=1))
    off = np.max(np.abs(along - best[:, None] * wanted), axis=1) / _safe(slack)
    total = np.sum(np.abs(shares), axis=1)
    # Rounding of Σ ⟨g_t, v⟩, whose terms may cancel, and of ‖U⁺1‖.
    terms = 64 * case.num_tasks * EPS * np.sum(case.norms, axis=1) * np.max(np.abs(wanted), axis=1)
    noise = slack * total / _safe(square) + slack + terms / _safe(square)
    misfit = np.abs(best - length) * np.max(np.abs(wanted), axis=1) / _safe(noise)
    orthogonal = np.sum(wanted**2, axis=1) <= 64 * EPS * case.num_tasks
    halted = orthogonal & ~case.weights.any(axis=1)
    reasons = {"the ones orthogonal to the rows' range to rounding": orthogonal}
    misfit, off = (np.where(halted, 0, x) for x in (misfit, off))
    return Verdict(misfit, off, reasons | _singular(case))


def _singular(case: Case) -> dict[str, np.ndarray]:
    cut, rounded = case.ambiguous, case.indefinite
    return {"an eigenvalue at the rank cut": cut, "indefinite": rounded} | _flushed(case)


def aligned(case: Case) -> Verdict:
    """w = √λ M^{−½} 1/T, λ the least eigenvalue above the cut: wᵀMw = λ ‖P 1/T‖²."""
    values, vectors = np.linalg.eigh(case.matrix)
    above = values > case.num_tasks * EPS * values[:, -1:]
    least = np.min(np.where(above, values, np.inf), axis=1)
    inside = np.sum(np.where(above, np.sum(vectors, axis=1) / case.num_tasks, 0) ** 2, axis=1)
    excess = np.sum(case.weights**2, axis=1) * case.num_tasks - 1
    longer = excess / (64 * EPS * case.num_tasks)
    square = np.einsum("nt,nt->n", case.weights, case.gains)
    size = values[:, -1]
    off = np.abs(square - least * inside) / (64 * EPS * size)
    reasons = {"an eigenvalue at the rank cut": at_cut(values), "indefinite": case.indefinite}
    return Verdict(longer, off, reasons | _flushed(case))


def at_least(least: float) -> Check:
    """Every gradient keeps its own weight, others are only added (PCGrad, GradVac)."""

    def check(case: Case) -> Verdict:
        lost = (1 - case.weights.min(axis=1) / least) / (8 * EPS)
        return Verdict(lost, lost, {})

    return check


def positive(case: Case) -> Verdict:
    holds = _not_negative(case)
    return Verdict(holds, holds, {})


def sum_is_tasks(case: Case) -> Verdict:
    total = np.sum(case.weights, axis=1)
    off = np.abs(total / case.num_tasks - 1) / (16 * EPS)
    return Verdict(np.maximum(_not_negative(case), off), off, {})


def equal_products(case: Case) -> Verdict:
    """w_t L_t the same for every positive loss (GLS, scale-invariant)."""
    losses = case.batch.losses.astype(np.float64)
    products = np.where(losses > 0, case.weights * losses, np.nan)
    spread = np.nanmax(products, axis=1) - np.nanmin(products, axis=1)
    unequal = spread / (64 * EPS * np.nanmax(products, axis=1))
    return Verdict(_exactly(case.weights.min(axis=1) > 0), unequal, {})


def priority(case: Case) -> Verdict:
    """‖d‖ = ‖g_1‖, and no conflict with the others while the state calls them feasible."""
    halted = np.sum(np.abs(case.weights), axis=1) == 0
    square = np.einsum("nt,nt->n", case.weights, case.gains)
    lead = case.norms[:, 0]
    size = case.size[:, None]
    off = np.abs(square - lead**2) / (256 * EPS * _safe(case.size**2))
    conflict = _conflict(case.gains[:, 1:], 64 * EPS * case.norms[:, 1:] * size)
    alone = (np.abs(case.weights[:, 0] - 1) <= 4 * EPS) & ~case.weights[:, 1:].any(axis=1)
    feasible = case.state.feasible.astype(bool)
    infeasible = np.zeros(len(halted), bool)
    for i in np.nonzero(~feasible)[0]:
        infeasible[i] = _hull_distance(case.rows[i, 1:], case.norms[i, 1:]) <= HULL
    vanishes = square <= 64 * EPS * case.size**2
    fallen_back = _exactly(infeasible & (alone | halted))
    certified = np.where(feasible, np.where(halted, 0, conflict), fallen_back)
    reasons = {"d vanishes to rounding": vanishes, "indefinite": case.indefinite}
    return Verdict(np.where(halted, 0, off), certified, reasons | _flushed(case))


RowCheck = Callable[[Case, np.ndarray], Verdict]


def between(factor: float = 1.0) -> RowCheck:
    """Every coordinate in the range of the rows' entries, times `factor`."""

    def check(case: Case, direction: np.ndarray) -> Verdict:
        rows = factor * case.rows
        slack = 16 * EPS * np.max(np.abs(rows), axis=1)
        d = np.ldexp(direction, -case.exponent[:, None])
        off = _over(np.maximum(d - rows.max(axis=1), rows.min(axis=1) - d), slack)
        return Verdict(off, off, _flushed(case))

    return check


def below_sum(case: Case, direction: np.ndarray) -> Verdict:
    """Every coordinate at most Σ |g_t|."""
    d = np.ldexp(direction, -case.exponent[:, None])
    bound = np.sum(np.abs(case.rows), axis=1)
    off = _over(np.abs(d) - bound, 16 * EPS * bound)
    return Verdict(off, off, _flushed(case))


def _over(excess: np.ndarray, slack: np.ndarray) -> np.ndarray:
    return np.max(np.where(excess > 0, excess / _safe(slack), 0), axis=1)


def middle(trimmed: int | None) -> RowCheck:
    """The mean of every coordinate without as many of its extremes; None for the median."""

    def check(case: Case, direction: np.ndarray) -> Verdict:
        most = (case.num_tasks - 1) // 2
        drop = most if trimmed is None else min(trimmed, most)
        ordered = np.sort(case.rows, axis=1)[:, drop : case.num_tasks - drop]
        d = np.ldexp(direction, -case.exponent[:, None])
        slack = (
            8 * EPS * np.max(np.abs(ordered), axis=1) + np.ldexp(2.0**-126, -case.exponent)[:, None]
        )
        off = _over(np.abs(d - ordered.mean(axis=1)), slack)
        return Verdict(between()(case, direction).constraint, off, _flushed(case))

    return check


def equal_lengths(case: Case, direction: np.ndarray) -> Verdict:
    """DB-MTL's formula after two steps at L and 1.25 L, in float64."""
    losses = case.batch.losses.astype(np.float64)
    losses = np.maximum(losses, losses.max(axis=1, keepdims=True) * 1e-30)
    norms = np.linalg.norm(case.rows, axis=2)
    longest = np.max(norms / losses, axis=1) * 0.1 * (0.9 + 1 / 1.25)
    units = case.rows / _safe(norms)[:, :, None]
    wanted = longest[:, None] * np.sum(units, axis=1)
    d = np.ldexp(direction, -case.exponent[:, None])
    off = np.linalg.norm(d - wanted, axis=1) / (64 * EPS * case.num_tasks * longest)
    limit = np.ldexp(longest, case.exponent) * case.num_tasks
    # A zero loss beside a gradient that is none has a weight of 1e30.
    reasons = {
        "norms or losses ratio beyond float32's range": (limit > 1e37) | (limit < 1e-36),
    }
    return Verdict(off, off, reasons | _flushed(case))


def linear_program(case: Case) -> Verdict:
    """EPO: on the simplex, its constraints as its residual says."""
    off = _on_simplex(case)
    return Verdict(off, case.state.residual / (64 * EPS * case.num_tasks), {} | _flushed(case))


def constrained(case: Case) -> Verdict:
    """Pareto MTL: d conflicts with no active constraint, or where none is with no task."""
    tasks = [t % 4 for t in range(case.num_tasks)]
    unit, others = (
        r / np.linalg.norm(r, axis=-1, keepdims=True) for r in (RAY[tasks], RAYS[:, tasks])
    )
    losses = case.batch.losses.astype(np.float64)
    along = losses @ (others - unit).T / np.linalg.norm(losses, axis=1)[:, None]
    violated = along > 0
    outside = violated.any(axis=1)
    gains = np.einsum("kt,nt->nk", others - unit, case.gains)
    lengths = np.linalg.norm(np.einsum("kt,ntp->nkp", others - unit, case.rows), axis=2)
    bound = 64 * EPS**0.5 * case.size[:, None]
    back = np.max(np.where(violated, -gains / _safe(lengths * bound), 0), axis=1)
    conflict = np.where(outside, back, _conflict(case.gains, case.norms * bound))
    near = np.any(np.abs(along) <= 16 * EPS * case.num_tasks, axis=1)
    reasons = {"on the border of its part": near, "indefinite": case.indefinite} | _flushed(case)
    return Verdict(np.maximum(conflict, 0), np.maximum(conflict, 0), reasons)


def along_ray(case: Case) -> Verdict:
    """PBI with equal losses for a ray: ⟨w, λ⟩ = 1, and ‖w − λ‖ is θ, or zero on the ray."""
    unit = 1 / np.sqrt(case.num_tasks)
    along = np.abs(np.sum(case.weights, axis=1) * unit - 1) / (64 * EPS)
    penalty = np.linalg.norm(case.weights - unit, axis=1)
    off = np.minimum(np.abs(penalty - 5), penalty) / (64 * EPS)
    return Verdict(along, off, {})


CHECKS: dict[str, Check] = {
    "min_norm": min_norm,
    "cr_mogm": simplex,
    "upgrad": cone,
    "dual_proj": cone,
    "nash_mtl": bargain(1.0),
    "fair_grad": bargain(0.5),
    "cagrad": cagrad,
    "imtl_g": equal(True),
    "imtl": equal(False),
    "pcd": priority,
    "config": pseudo_inverse,
    "aligned_mtl": aligned,
    "pcgrad": at_least(1.0),
    "gradvac": at_least(1.0),
    "krum": simplex,
    "modo": simplex,
    "sdmgrad": simplex,
    "random": simplex,
    "rlw": simplex,
    "uniform": sum_is_tasks,
    "famo": simplex,
    "dwa": sum_is_tasks,
    "gradnorm": sum_is_tasks,
    "gls": equal_products,
    "scale_invariant": equal_products,
    "stch": positive,
    "tchebycheff": positive,
    "epo": linear_program,
    "pbi": along_ray,
    "pareto_mtl": constrained,
    "uncertainty": positive,
    "imtl_l": positive,
    "go4align": positive,
    "ntkmtl": positive,
    "fixed": positive,
}
ROWS: dict[str, RowCheck] = {
    "coordinate_median": middle(None),
    "trimmed_mean": middle(1),
    "excess_mtl": between(),
    "moco": between(0.5 + 0.5**1.5 * 0.5),  # of the tracked rows' second step
    "graddrop": below_sum,
    "sign_agreement": below_sum,
    "db_mtl": equal_lengths,
}
