"""Nash-MTL: the direction of the Nash bargaining solution."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax.tasks import check_int
from mgda_jax.weighting.arguments import active_mask, check_preference, preference_vector
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.fairness import (
    cast,
    check_max_norm,
    clip_norm,
    representable,
    row_weights,
    solve_bargain,
)
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import UnitGramian, unit_gramian

PyTree = Any


class NashReport(NamedTuple):
    """What the last solve reported.

    Attributes:
      residual: () max_t |w_t (Mw + λ·diag(M)w)_t / c_t − 1|.
      regularization: () λ, zero where the equation has a solution.
      steps: () int32 Newton steps.
    """

    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


class NashState(NamedTuple):
    """State of `nash_mtl`.

    Attributes:
      weights: (T,) the last solution, before the norm is clipped.
      count: () int32, updates so far.
      solved: (T,) bool, the tasks that had a part in the last solve.
      report: of the last solve.
    """

    weights: jax.Array
    count: jax.Array
    solved: jax.Array
    report: NashReport


@rule
def nash_mtl(
    *,
    preference: PyTree = None,
    max_norm: float | jax.Array | None = None,
    every: int | jax.Array = 1,
) -> Weighting:
    """Nash-MTL: the Nash bargaining solution, to which every task gains the same share.

    w_t (Mw)_t = c_t for every t, with c = 1. So ⟨g_t, d⟩ w_t = 1, ‖d‖² = T, and
    rescaling one task's loss changes nothing. With other c it is the asymmetric
    bargaining solution, the maximum of Π ⟨g_t, d⟩^{c_t}, ‖d‖² = Σ c_t.

    Where the origin is in the convex hull of the rows (an opposed pair, a
    stationary point) no w solves this: then M + λ·diag(M) takes the place of M,
    see `mgda_jax.solvers.bargaining`, and λ is in the state. A task whose
    gradient is zero has nothing to bargain for: it gets the weight zero and
    the others bargain among themselves. Weights that
    leave the range of their dtype (gradients near the ends of it) are brought back by one
    power of two for all: the direction is that of the bargain, the length is not.

    Args:
      preference: c, (T,) array, sequence or dict of named scalars > 0; ones by
        default. Not normalised.
      max_norm: longest ‖d‖ allowed, longer ones are shortened to it; None for
        the equation as it is. The public code uses 1. (It solves with M/‖M‖_F, and puts the
        factor back in its constraints: the equation is this one.)
      every: solve at every so many updates and keep the weights in between, unless a
        task is active that had no part in the last solve. max_norm applies at every update.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete preference or max_norm that is not positive, every
        that is no int ≥ 1; at update, a preference of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[2.0, 0.0], [0.0, 0.5]])
      >>> rule = nash_mtl()
      >>> rule.update(rule.init(2), gramian=rows @ rows.T)[0]
      Array([0.5, 2. ], dtype=float32)

    References:
      Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
      equation (3). Kalai, "Nonsymmetric Nash solutions", 1977, for c.
    """
    check_preference(preference, "nash_mtl", positive=True)
    check_max_norm(max_norm, "nash_mtl")
    every = check_int(every, lambda n: n >= 1, "nash_mtl: every must be an int >= 1", traced=True)

    def init(num_tasks: int) -> NashState:
        # One array each: leaves that share a buffer cannot be donated.
        count, steps = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        solved = jnp.zeros(num_tasks, bool)
        report = NashReport(jnp.zeros(()), jnp.zeros(()), steps)
        return NashState(jnp.zeros(num_tasks), count, solved, report)

    def solve(unit: UnitGramian, active: jax.Array | None) -> NashState:
        share = preference_vector(preference, unit, active, "nash_mtl")
        bargain = solve_bargain(unit, share, 1.0)
        scaled = row_weights(unit, bargain.point)
        weights = representable(scaled, -unit.exponent)
        return NashState(
            weights,
            jnp.zeros((), jnp.int32),
            active_mask(active, len(weights)),
            NashReport(bargain.residual, bargain.regularization, bargain.steps),
        )

    # Jitted, so that a call outside any jit finds its program again.
    @jax.jit
    def renewed(state: NashState, unit: UnitGramian, active: jax.Array | None) -> NashState:
        taking_part = active_mask(active, len(state.solved))
        fresh = (state.count % every == 0) | jnp.any(taking_part & ~state.solved)
        kept = jax.tree.map(cast, state, jax.eval_shape(lambda: solve(unit, active)))
        return lax.cond(fresh, lambda: solve(unit, active), lambda: kept)

    def update(state, *, gramian, active=None, **_):
        unit = unit_gramian(gramian, active)
        always = isinstance(every, int) and every == 1
        new = solve(unit, active) if always else renewed(state, unit, active)
        weights = new.weights
        if max_norm is not None:
            exponent = jnp.zeros((), jnp.int32)
            weights = clip_norm(weights, exponent, unit, max_norm)
        return weights, new._replace(count=state.count + 1)

    return Weighting(init, update)
