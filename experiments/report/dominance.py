"""Whether one task holds nearly all the weight while its gradient is far below the others'."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

NEARLY_ALL = 0.95  # of Σ |w|
FAR_BELOW = 0.1  # of the other tasks' median
REMEDY = "normalization=l2, or a rule to which the losses' units are nothing, such as nash_mtl"


class Dominance(NamedTuple):
    """One task with nearly all the weight.

    Attributes:
      task: its index.
      share: |w_t| / Σ |w|.
      shorter: how many times its gradient is shorter than the median of the others, infinite for
        a zero gradient; None where the rule saw no gradients.
    """

    task: int
    share: float
    shorter: float | None

    def text(self, tasks: Sequence[str]) -> str:
        """In words."""
        said = f"task '{tasks[self.task]}' held {100 * self.share:.3g}% of the weight"
        if self.shorter is None:
            return said
        times = f"{self.shorter:.2g} times shorter than the others'"
        return f"{said}, its gradient {times if np.isfinite(self.shorter) else 'zero'}"


def dominance(means: Mapping[str, Any]) -> Dominance | None:
    """The task that an epoch's weights sat on; None where there is none, or it is as it should be.

    A rule that balances gradients rightly gives a short one a large weight: then all have a part
    w_t ‖g_t‖ of like size in the direction d, and a like cosine with it. The min-norm point fails
    one or the other: of orthogonal gradients the parts are 1/‖g_t‖, and where opposed ones have
    parts of like size, near the Pareto set, ⟨g_t, d⟩ = ‖d‖² makes the cosines 1/‖g_t‖.

    Args:
      means: over the epoch: weight (T,) and loss (T,), and of a rule that reads the Gramian
        norm (T,) and direction_cosine (T,).

    Returns:
      Dominance or None.
    """
    weight = np.abs(np.array(means.get("weight", ()), float))
    total = weight.sum()
    if len(weight) < 2 or not np.isfinite(total) or total == 0:
        return None
    task = int(np.argmax(weight))
    share = float(weight[task] / total)
    if share < NEARLY_ALL:
        return None
    others = np.arange(len(weight)) != task
    if "norm" not in means:  # a rule on the losses: its weights may make up for their sizes
        part = weight * np.abs(np.array(means.get("loss", np.ones_like(weight)), float))
        balanced = np.median(part[others]) > FAR_BELOW * part[task]
        return None if balanced else Dominance(task, share, None)
    if "direction_cosine" not in means:  # a run that an older revision logged
        return None
    norm, cosine = (np.array(means[key], float) for key in ("norm", "direction_cosine"))
    median, part = np.median(norm[others]), weight * norm
    balanced = np.median(part[others]) > FAR_BELOW * part[task]
    served = np.median(cosine[others]) > FAR_BELOW * max(cosine[task], FAR_BELOW)
    if (balanced and served) or not norm[task] <= FAR_BELOW * median or median == 0:
        return None
    return Dominance(task, share, float(median / norm[task]) if norm[task] > 0 else np.inf)
