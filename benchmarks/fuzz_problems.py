"""Batches of the problem families of tests.problems, and inputs at the edge of float32.

A family is a function of (rng, count, num_tasks) → rows (count, T, P), drawn all at once.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Problems of all families in turn: problem i is of family names[family[i]].

    Attributes:
      rows: (N, T, P) float32.
      losses: (N, T) float32.
      rounded: (N,) bool: the Gramian's entries are rounded to bfloat16.
      entry: (N,) float32: what to put into the Gramian's entries (0, 1) and (1, 0); 0 for nothing.
      family: (N,) int.
    """

    rows: np.ndarray
    losses: np.ndarray
    rounded: np.ndarray
    entry: np.ndarray
    family: np.ndarray


def make_batch(count: int, num_tasks: int, seed: int) -> Batch:
    """`count` problems, as many of each family; the same for the same arguments."""
    rng = np.random.default_rng([seed, num_tasks])
    family = np.arange(count) * len(NAMES) // count
    rows = np.empty((count, num_tasks, _columns(num_tasks)), np.float32)
    entry = np.zeros(count, np.float32)
    losses = np.exp(2 * rng.standard_normal((count, num_tasks))).astype(np.float32)
    for k, name in enumerate(NAMES):
        (chosen,) = np.nonzero(family == k)
        with np.errstate(over="ignore", under="ignore"):
            rows[chosen] = FAMILIES[name](rng, len(chosen), num_tasks)
        bad = _BAD_LOSS.get(name)
        if bad is not None:
            losses[chosen, rng.integers(num_tasks, size=len(chosen))] = bad
        entry[chosen] = _BAD_ENTRY.get(name, 0)
        losses[chosen] *= np.float32(_LOSS_SCALE.get(name, 1))
    rounded = np.isin(family, [NAMES.index(n) for n in ROUNDED])
    return Batch(rows, losses, rounded, entry, family)


def _columns(num_tasks):
    return max(16, 2 * num_tasks)


def _normal(rng, count, num_tasks):
    return rng.standard_normal((count, num_tasks, _columns(num_tasks)))


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _realistic(rng, count, num_tasks):
    rows = _normal(rng, count, num_tasks)
    shared = rng.standard_normal((count, 1, rows.shape[-1]))
    norms = np.exp(rng.standard_normal((count, num_tasks, 1)))
    return norms * _unit(0.7 * shared + rows)


def _scaled(family, factor):
    return lambda rng, count, num_tasks: factor * family(rng, count, num_tasks)


def _orthogonal(rng, count, num_tasks):
    basis = np.linalg.qr(_normal(rng, count, num_tasks).swapaxes(1, 2))[0].swapaxes(1, 2)
    return basis * rng.uniform(0.5, 2.0, (count, num_tasks, 1))


def _spread(decades):
    def family(rng, count, num_tasks):
        norms = 10 ** rng.uniform(0, decades, (count, num_tasks, 1))
        return norms * _unit(_normal(rng, count, num_tasks))

    return family


def _cone(rng, count, num_tasks):
    """Unit rows, 1 − cosine between 1e-2 and 1e-7."""
    axis = _unit(rng.standard_normal((count, 1, _columns(num_tasks))))
    across = _normal(rng, count, num_tasks)
    across = _unit(across - np.sum(across * axis, axis=-1, keepdims=True) * axis)
    apart = 10 ** rng.uniform(-7, -2, (count, 1, 1))
    return np.sqrt(1 - apart) * axis + np.sqrt(apart) * across


def _spread_common(rng, count, num_tasks):
    return _cone(rng, count, num_tasks) * 10 ** rng.uniform(0, 4, (count, num_tasks, 1))


def _duplicates(low, high):
    """The second half of the rows are the first half's, off by a relative 10^low … 10^high."""

    def family(rng, count, num_tasks):
        rows, half = _normal(rng, count, num_tasks), num_tasks // 2
        size = 10 ** rng.uniform(low, high, (count, half, 1))
        noise = rng.standard_normal((count, half, rows.shape[-1]))
        rows[:, half : 2 * half] = rows[:, :half] * (1 + size * noise)
        return rows

    return family


def _rank_deficient(away):
    def family(rng, count, num_tasks):
        rows, rank = _normal(rng, count, num_tasks), max(1, num_tasks // 2)
        rows[..., rank:] = 0
        if away:
            rows[..., 0] = np.abs(rows[..., 0]) + 0.5
        return rows

    return family


def _zero_row(rng, count, num_tasks):
    rows = _normal(rng, count, num_tasks)
    rows[np.arange(count), rng.integers(num_tasks, size=count)] = 0
    return rows


def _stationary(rng, count, num_tasks):
    """Σ w_t g_t = 0 exactly for small positive integers w: entries are multiples of 2⁻⁸."""
    rows = np.round(_normal(rng, count, num_tasks) * 2**8) / 2**8
    weights = rng.integers(1, 4, (count, num_tasks - 1, 1))
    rows[:, -1] = -np.sum(weights * rows[:, :-1], axis=1)
    return rows


def _stationary_face(rng, count, num_tasks):
    """The origin on a face of half the tasks, the others to one side of it."""
    face = max(2, (num_tasks + 1) // 2)
    rows = _normal(rng, count, num_tasks)
    balanced = np.round(rng.standard_normal((count, face, rows.shape[-1])) * 2**8) / 2**8
    balanced[:, -1] = -np.sum(balanced[:, :-1], axis=1)
    rows[:, :face] = balanced
    rows[:, :face, 0] = 0
    rows[:, face:, 0] = np.abs(rows[:, face:, 0]) + 0.5
    return rows


def _opposed_pair(rng, count, num_tasks):
    rows = _normal(rng, count, num_tasks)
    rows[:, -1] = -rows[:, 0]
    return rows


def _spread_tied_opposed(rng, count, num_tasks):
    rows = _spread(8)(rng, count, num_tasks)
    if num_tasks > 3:
        rows[:, 1] = rows[:, 0]
    rows[:, -1] = -rows[:, num_tasks // 2 if num_tasks > 2 else 0]
    return rows


def _vandermonde(rng, count, num_tasks):
    """Rows (1, x, x², …) minus their mean but a little: badly conditioned, hull close to 0."""
    nodes = np.linspace(-1, 1, num_tasks) + 0.01 * rng.standard_normal((count, num_tasks))
    rows = nodes[..., None] ** np.arange(_columns(num_tasks))
    weights = rng.dirichlet(np.ones(num_tasks), count)
    return rows - (1 - 1e-3) * np.einsum("nt,ntp->np", weights, rows)[:, None, :]


def _poisoned(value):
    def family(rng, count, num_tasks):
        rows = _normal(rng, count, num_tasks)
        task = rng.integers(num_tasks, size=count)
        rows[np.arange(count), task, rng.integers(rows.shape[-1], size=count)] = value
        return rows

    return family


Family = Callable[[np.random.Generator, int, int], np.ndarray]

FAMILIES: dict[str, Family] = {
    "gaussian": _normal,
    "realistic": _realistic,
    "orthogonal": _orthogonal,
    "spread_1e4": _spread(4),
    "spread_1e8": _spread(8),
    "spread_common": _spread_common,
    "cosine_near_1": _cone,
    "near_duplicates": _duplicates(-7, -4),
    "duplicates": _duplicates(-99, -98),
    "rank_deficient": _rank_deficient(False),
    "rank_deficient_away": _rank_deficient(True),
    "zero_row": _zero_row,
    "stationary": _stationary,
    "stationary_face": _stationary_face,
    "opposed_pair": _opposed_pair,
    "spread_tied_opposed": _spread_tied_opposed,
    "vandermonde": _vandermonde,
    "scale_1e30": _scaled(_realistic, 1e30),
    "scale_1e-30": _scaled(_realistic, 1e-30),
    "denormal": _scaled(_realistic, 2.0**-135),
    "bfloat16_gramian": _realistic,
    "bfloat16_gramian_cosine": _cone,
    "nan": _poisoned(np.nan),
    "inf": _poisoned(np.inf),
    "nan_loss": _normal,
    "inf_loss": _normal,
    "nan_entry": _normal,
    "inf_entry": _normal,
}
NAMES = tuple(FAMILIES)
ROUNDED = ("bfloat16_gramian", "bfloat16_gramian_cosine")
# What is bad in a problem, by what a rule must read to be touched by it.
POISONED = {
    "rows": ("nan", "inf"),
    "losses": ("nan_loss", "inf_loss"),
    "gramian": ("nan_entry", "inf_entry"),
}
_BAD_LOSS = {"nan_loss": np.nan, "inf_loss": np.inf, "zero_row": 0.0}
_BAD_ENTRY = {"nan_entry": np.nan, "inf_entry": np.inf}
_LOSS_SCALE = {"scale_1e30": 1e30, "scale_1e-30": 1e-30}
