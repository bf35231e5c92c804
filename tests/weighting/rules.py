"""Every rule of `mgda_jax.weighting`, how the shared tests make it, and what it promises.

`COLUMNS` are the claims of docs/rules.md. A rule makes a claim unless `blank` gives a
reason why it cannot apply; tests/weighting tests every claim, so a filled cell of the
table cannot be without a test.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mgda_jax import RowRule, weighting
from mgda_jax import Weighting as WeightingRule

COLUMNS = {
    "exact": "gradients of the shared parameters: `aggregate`, and the oracle's `exact` mode",
    "representation": "gradients of the representation: the oracle's `representation` mode",
    "lean": "exact weights without stacked gradients: the oracle's `Lean()`",
    "active": "a step on some of the tasks is the rule on those alone",
    "vmap": "many problems in one program give what they give one by one",
    "preference": "a vector that says how much each task counts",
}

Make = Callable[[Sequence[int]], WeightingRule | RowRule]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One rule.

    Attributes:
      make: the rule for the given tasks of a problem of four.
      degree: q where multiplying all gradients by c multiplies the direction by c^q; None
        where a hyperparameter has the unit of the gradients.
      permutes: permuting the tasks permutes the weights.
      draws: it draws at random; "weights" where the draw has one number a task.
      descends: the direction conflicts with no task.
      single: of one task it gives exactly the gradient, not some positive multiple.
      tracks: from the second step on the direction is not that of the step's gradients.
      extreme: at gradients of 1e±30 its weights are within float32's range.
      smaller: the tasks that stay in the comparison with the smaller problem.
      preference: the rule with a preference; None where it takes none.
      why_no_preference: reason for the blank cell.
    """

    make: Make
    degree: float | None = 1.0
    permutes: bool = True
    draws: bool | str = False
    descends: bool = False
    single: bool = False
    tracks: bool = False
    extreme: bool = True
    smaller: tuple[int, ...] = (0, 2, 3)
    preference: Callable[[Any], WeightingRule] | None = None
    why_no_preference: str = "the rule itself says how much each task counts"


def _always(factory: Callable[..., Any], **options: Any) -> Make:
    return lambda tasks: factory(**options)


_FIXED = (0.5, 2.0, 1.0, 0.25)
# The ray is further from the diagonal than the others: equal gradients lead back to its part.
RAY = np.array([1.0, 0.2, 0.3, 0.2])
RAYS = np.array([[1.0, 1.0, 1.0, 1.0], [0.2, 1.0, 0.5, 1.0], [0.5, 0.3, 1.0, 0.4]])
_RATIO = "`ray=` is the ratio of the losses to end at"
_DRAWN = "the weights are drawn"
_ROBUST = "every task has one vote; weights would undo the robustness"

RULES: dict[str, Entry] = {
    "aligned_mtl": Entry(
        _always(weighting.aligned_mtl),
        single=True,
        preference=lambda c: weighting.aligned_mtl(preference=c),
    ),
    "cagrad": Entry(_always(weighting.cagrad), preference=lambda c: weighting.cagrad(preference=c)),
    "config": Entry(
        _always(weighting.config),
        descends=True,
        single=True,
        preference=lambda c: weighting.config(preference=c),
    ),
    "coordinate_median": Entry(
        _always(weighting.coordinate_median), single=True, why_no_preference=_ROBUST
    ),
    "cr_mogm": Entry(
        lambda tasks: weighting.cr_mogm(weighting.min_norm()),
        single=True,
        why_no_preference="that of the rule it wraps",
    ),
    "db_mtl": Entry(_always(weighting.db_mtl), tracks=True),
    "dual_proj": Entry(
        _always(weighting.dual_proj),
        descends=True,
        single=True,
        preference=lambda c: weighting.dual_proj(preference=c),
    ),
    "dwa": Entry(_always(weighting.dwa, steps_per_epoch=1), single=True),
    "epo": Entry(
        _always(weighting.epo), single=True, preference=lambda c: weighting.epo(preference=c)
    ),
    "excess_mtl": Entry(_always(weighting.excess_mtl, step_size=0.5), single=True),
    "fair_grad": Entry(
        _always(weighting.fair_grad),
        degree=-1 / 3,  # w ∝ c^(−2/(1 + 1/α)), which is 1e∓40
        extreme=False,
        descends=True,
        preference=lambda c: weighting.fair_grad(preference=c),
    ),
    "famo": Entry(_always(weighting.famo), single=True),
    "fixed": Entry(
        lambda tasks: weighting.fixed(jnp.array([_FIXED[t] for t in tasks])),
        permutes=False,
        why_no_preference="the weights are the preference",
    ),
    "gls": Entry(_always(weighting.gls), single=True),
    "go4align": Entry(_always(weighting.go4align, beta=0.1), single=True),
    "graddrop": Entry(
        _always(weighting.graddrop),
        draws=True,
        single=True,
        why_no_preference="`leak=` says how much of each task always passes",
    ),
    "gradnorm": Entry(_always(weighting.gradnorm), single=True),
    "gradvac": Entry(_always(weighting.gradvac), draws=True, single=True, smaller=(0, 3)),
    "imtl": Entry(_always(weighting.imtl)),
    "imtl_g": Entry(_always(weighting.imtl_g), single=True),
    "imtl_l": Entry(_always(weighting.imtl_l)),
    "krum": Entry(_always(weighting.krum, num_byzantine=0), single=True, why_no_preference=_ROBUST),
    "min_norm": Entry(_always(weighting.min_norm), descends=True, single=True),
    "moco": Entry(_always(weighting.moco), degree=None, tracks=True),
    "modo": Entry(_always(weighting.modo, gamma=0.01), degree=None, single=True),
    "nash_mtl": Entry(
        _always(weighting.nash_mtl),
        degree=0.0,
        descends=True,
        preference=lambda c: weighting.nash_mtl(preference=c),
    ),
    "ntkmtl": Entry(_always(weighting.ntkmtl), single=True),
    "pareto_mtl": Entry(
        lambda tasks: weighting.pareto_mtl(RAY[list(tasks)], RAYS[:, list(tasks)]),
        permutes=False,
        single=True,
        why_no_preference=_RATIO,
    ),
    "pbi": Entry(_always(weighting.pbi), single=True, why_no_preference=_RATIO),
    "pcd": Entry(
        _always(weighting.pcd),
        permutes=False,
        single=True,
        why_no_preference="`primary=` and `tau=` rank the tasks",
    ),
    "pcgrad": Entry(_always(weighting.pcgrad), draws=True, single=True, smaller=(0, 3)),
    "random": Entry(
        _always(weighting.random), draws="weights", single=True, why_no_preference=_DRAWN
    ),
    "rlw": Entry(_always(weighting.rlw), draws="weights", single=True, why_no_preference=_DRAWN),
    "scale_invariant": Entry(_always(weighting.scale_invariant)),
    "sdmgrad": Entry(
        _always(weighting.sdmgrad, learning_rate=0.2),
        single=True,
        preference=lambda c: weighting.sdmgrad(preference=c, learning_rate=0.2),
    ),
    "sign_agreement": Entry(
        _always(weighting.sign_agreement), single=True, why_no_preference=_ROBUST
    ),
    "stch": Entry(_always(weighting.stch, steps_per_epoch=1, warmup_epochs=1)),
    "tchebycheff": Entry(
        _always(weighting.tchebycheff),
        single=True,
        preference=lambda c: weighting.tchebycheff(preference=c),
    ),
    "trimmed_mean": Entry(_always(weighting.trimmed_mean), single=True, why_no_preference=_ROBUST),
    "uncertainty": Entry(_always(weighting.uncertainty)),
    "uniform": Entry(
        _always(weighting.uniform), single=True, why_no_preference="`fixed` takes the weights"
    ),
    "upgrad": Entry(
        _always(weighting.upgrad),
        descends=True,
        single=True,
        preference=lambda c: weighting.upgrad(preference=c),
    ),
}


@functools.cache
def public_rules() -> dict[str, Callable[..., Any]]:
    """The factories among the public names, by their return annotation."""
    found = {}
    for name in weighting.__all__:
        thing = getattr(weighting, name)
        if inspect.isfunction(thing):
            if inspect.signature(thing).return_annotation in (WeightingRule, RowRule):
                found[name] = thing
    return found


def blank(name: str, column: str) -> str | None:
    """Why the claim cannot apply to the rule; None where it does."""
    entry = RULES[name]
    if column == "preference":
        return None if entry.preference else entry.why_no_preference
    if isinstance(entry.make((0, 1, 2, 3)), RowRule):
        if column == "representation":
            return "combines coordinates of the parameters' gradients"
        if column == "lean":
            return "reads the stacked gradients that lean mode does not form"
    return None


def claiming(column: str) -> list[str]:
    """The rules with a filled cell in a column."""
    return [name for name in RULES if blank(name, column) is None]
