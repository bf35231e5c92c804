"""FairGrad: the direction of α-fair bargaining."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_hyperparameter
from mgda_jax.weighting.arguments import check_preference, preference_vector
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
from mgda_jax.weighting.unit_gramian import unit_gramian

PyTree = Any


class FairReport(NamedTuple):
    """What the last solve of `fair_grad` reported.

    Attributes:
      residual: () max_t |(Mw + λ·diag(M)w)_t (w_t / c_t)^{1/α} − 1|.
      regularization: () λ, zero where the equation has a solution.
      steps: () int32 Newton steps.
    """

    residual: jax.Array
    regularization: jax.Array
    steps: jax.Array


@rule
def fair_grad(
    *,
    alpha: float | jax.Array = 2.0,
    preference: PyTree = None,
    max_norm: float | jax.Array | None = None,
) -> Weighting:
    """FairGrad: the α-fair direction, from the sum of the gains to the largest least gain.

    (Mw)_t = (c_t / w_t)^{1/α} for every t, with c = 1: the stationary point of the
    α-fair utility Σ c_t ⟨g_t, d⟩^{1−α}/(1 − α). α = 1 is Nash-MTL; as α grows it
    favours the task that gains least. Singular M, zero rows and overflow are
    handled as in `nash_mtl`.

    Args:
      alpha: α > 0; 2 in the published runs.
      preference: c, (T,) array, sequence or dict of named scalars > 0; ones by
        default. Not normalised.
      max_norm: longest ‖d‖ allowed, longer ones are shortened to it; None for
        the equation as it is. The public code uses 1.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete alpha, preference or max_norm that is not positive;
        at update, a preference of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 8.0]])
      >>> rule = fair_grad(alpha=2.0)
      >>> weights, _ = rule.update(rule.init(2), gramian=rows @ rows.T)
      >>> jnp.round(weights, 4)
      Array([1.    , 0.0625], dtype=float32)

    References:
      Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
      equation (4). Mo and Walrand, "Fair end-to-end window-based congestion
      control", 2000, for c.
    """
    check_hyperparameter(
        alpha, lambda x: x > 0 and x < float("inf"), "fair_grad: alpha must be > 0"
    )
    check_preference(preference, "fair_grad", positive=True)
    check_max_norm(max_norm, "fair_grad")

    def init(num_tasks: int) -> FairReport:
        del num_tasks
        return FairReport(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        power = 1 / (
            alpha if isinstance(alpha, (int, float)) else cast(jnp.asarray(alpha), unit.norms)
        )
        share = preference_vector(preference, unit, active, "fair_grad")
        bargain = solve_bargain(unit, share, power)
        # M·4^e w = w^−p is solved by 2^{−2e/(1+p)} times the solution for M. The
        # remainder is formed from exact products, so that no digits are lost to a large e.
        twice = -2 * unit.exponent.astype(unit.norms.dtype)
        whole = jnp.round(twice / (1 + power))
        fraction = (twice - whole * (1 + power)) / (1 + power)
        scaled = row_weights(unit, bargain.point) * jnp.exp2(fraction)
        whole = whole.astype(jnp.int32)
        if max_norm is None:
            weights = representable(scaled, whole)
        else:
            weights = clip_norm(scaled, whole, unit, max_norm)
        return weights, FairReport(bargain.residual, bargain.regularization, bargain.steps)

    return Weighting(init, update)
