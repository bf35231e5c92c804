"""One number for several metrics of several methods: Δm and the mean rank."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

CONVENTIONS = ("gain", "drop")


def delta_m(
    scores: ArrayLike,
    baseline: ArrayLike,
    higher_is_better: Sequence[bool],
    *,
    convention: str = "drop",
    tasks: Sequence[int] | None = None,
) -> np.ndarray:
    """Mean relative change to a baseline, usually one model per task, in percent.

    "gain": Δm = 100/K Σ_k s_k (m_k − b_k) / b_k with s_k = 1 where higher is better, else −1:
    positive is better than the baseline (Maninis et al.). "drop" is its negative: lower is
    better, as in the tables since Nash-MTL. Benchmarks differ too in what they average: all
    metrics alike, or with `tasks` first those of each task.

    Args:
      scores: (..., K) metrics m.
      baseline: (K,) metrics b, none zero.
      higher_is_better: K bools, one a metric.
      convention: "gain" or "drop".
      tasks: K ints, the task of each metric; None to average all metrics alike.

    Returns:
      (...) percent in float64; NaN where an entry is.

    Raises:
      ValueError: lengths that do not fit, an unknown convention, a baseline with a zero.

    Examples:
      >>> scores, single = [0.9, 2.0], [1.0, 4.0]  # accuracy, error
      >>> float(delta_m(scores, single, [True, False], convention="gain"))
      20.0

    References:
      Maninis et al., "Attentive Single-Tasking of Multiple Tasks", CVPR 2019. Navon et al.,
      "Multi-Task Learning as a Bargaining Game", ICML 2022.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"delta_m: convention must be one of {CONVENTIONS}, got {convention!r}")
    found, single = np.asarray(scores, np.float64), np.asarray(baseline, np.float64)
    higher = _flags(higher_is_better, found, "delta_m")
    count = len(higher)
    if single.shape != (count,) or (tasks is not None and len(tasks) != count):
        raise ValueError(
            f"delta_m: expected a baseline ({count},) and {count} tasks or None, got "
            f"{single.shape} and {tasks}"
        )
    if not single.all():
        raise ValueError("delta_m: baseline: expected no zero, to which no change is relative")
    owner = np.arange(count) if tasks is None else np.asarray(tasks)
    share = 1 / np.array([np.sum(owner == task) for task in owner]) / len(np.unique(owner))
    sign = np.where(higher, 1, -1) * (1 if convention == "gain" else -1)
    # The magnitude divides: of a negative baseline a higher score is still a rise.
    return (found - single) / np.abs(single) @ (100 * share * sign)


def mean_rank(scores: ArrayLike, higher_is_better: Sequence[bool]) -> np.ndarray:
    """The mean over metrics of each method's rank among the methods: 1 is first; ties share.

    r_mk = 1 + #{better than m in k} + ½ #{others equal to m in k}; MR_m = 1/K Σ_k r_mk.

    Args:
      scores: (M, K) metrics of M methods.
      higher_is_better: K bools, one a metric.

    Returns:
      (M,) ranks in [1, M], float64; NaN for all where an entry is NaN.

    Raises:
      ValueError: scores that are not (M, K).

    Examples:
      >>> mean_rank([[0.9, 1.0], [0.8, 2.0], [0.8, 0.5]], [True, False]).tolist()
      [1.5, 2.75, 1.75]

    References:
      Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.
    """
    found = np.asarray(scores, np.float64)
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"mean_rank: expected scores (M, K), got {found.shape}")
    costs = np.where(_flags(higher_is_better, found, "mean_rank"), -found, found)
    better = np.sum(costs[None] < costs[:, None], axis=1)
    equal = np.sum(costs[None] == costs[:, None], axis=1) - 1
    ranks = np.mean(1 + better + equal / 2, axis=1)
    return np.full_like(ranks, np.nan) if np.isnan(found).any() else ranks


def _flags(higher_is_better: Sequence[bool], scores: np.ndarray, who: str) -> np.ndarray:
    flags = np.asarray(higher_is_better)
    if flags.dtype != bool or flags.ndim != 1 or scores.shape[-1:] != flags.shape:
        raise ValueError(
            f"{who}: expected scores (..., K) and K bools higher_is_better, got {scores.shape}, "
            f"{higher_is_better!r}"
        )
    return flags
