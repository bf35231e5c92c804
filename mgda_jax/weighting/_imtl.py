"""IMTL-G, IMTL-L and IMTL: equal projections on all unit gradients, and losses of one scale."""

import jax
import jax.numpy as jnp
import optax

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import divide
from mgda_jax.weighting.equal_shares import EqualReport, equal_shares, init_equal
from mgda_jax.weighting.learned import LearnedState, chosen_optimizer, init_learned, learn
from mgda_jax.weighting.losses import active_losses, raised_losses, valid_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import unit_gramian


@rule
def imtl_g() -> Weighting:
    """IMTL-G: weights with sum one for which d has the same projection on every task.

    ⟨d, u_t⟩ = ⟨d, u_s⟩ for all s, t with u_t = g_t/‖g_t‖ and Σ w_t = 1. With C the
    Gramian of the unit rows, w_t = (a_t/‖g_t‖) / Σ_s a_s/‖g_s‖ for Ca = 1; at full
    rank that is the paper's closed form g_1Uᵀ(DUᵀ)⁻¹. Where C is singular it is the
    limit of (C + λI)a = 1 as λ vanishes: the usual solution where there is one, and
    d = 0 where the tasks have no common projection (an opposed pair). Eigenvalues
    of C up to T·eps of the largest count as zero.

    Weights may be negative, and the common projection too: the rule makes the
    sum of the weights one whatever its sign. Where that sum vanishes to rounding no
    weights solve this and all are zero. A zero gradient has no direction: its
    weight is zero and the others are treated as if alone.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = imtl_g()
      >>> weights, _ = rule.update(rule.init(2), gramian=jnp.array([[1.0, 0.0], [0.0, 9.0]]))
      >>> weights.round(4)
      Array([0.75, 0.25], dtype=float32)

    References:
      Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1.
    """

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        shares, residual = equal_shares(unit)
        weights = shares / unit.norms
        return divide(weights, _total(weights)), EqualReport(residual)

    return Weighting(init_equal, update)


@rule
def imtl_l(*, optimizer: optax.GradientTransformation | None = None) -> Weighting:
    """IMTL-L: learned scales that bring every scaled loss to one.

    Descends Σ_t (e^{s_t} L_t − s_t) in the parameters and in s together: w_t = e^{s_t},
    ∂/∂s_t = e^{s_t} L_t − 1, s = 0 at first. At rest w_t L_t = 1 for every task, so losses
    must be positive; a zero loss counts as 1e-30 of the largest, a negative one gives NaN.

    Args:
      optimizer: of s; `optax.adam(0.025)` by default, as in `uncertainty`. (The paper
        learns s with the model's own optimiser.)

    Returns:
      Weighting of scope "all" that reads "losses"; s is its state's `parameters`.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = imtl_l(optimizer=optax.sgd(1.0))
      >>> weights, state = rule.update(rule.init(2), losses=jnp.array([1.0, 3.0]))
      >>> weights, state.parameters
      (Array([1., 1.], dtype=float32), Array([ 0., -2.], dtype=float32))

    References:
      Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.2.
    """
    optimizer = chosen_optimizer(optimizer, "imtl_l")

    def update(state, *, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        scales = jnp.exp(state.parameters)
        weights = jnp.where(mask, scales, jnp.zeros_like(scales))
        weights = jnp.where(valid_losses(values, mask), weights, jnp.nan)
        gradient = scales * raised_losses(values, mask) - 1
        return weights, learn(optimizer, state, gradient, mask)

    return Weighting(
        lambda num_tasks: init_learned(optimizer, num_tasks), update, frozenset({"losses"}), "all"
    )


@rule
def imtl(*, optimizer: optax.GradientTransformation | None = None) -> Weighting:
    """IMTL: IMTL-G on the gradients of losses that IMTL-L scales.

    IMTL-L learns s by descending Σ_t (e^{s_t} L_t − s_t), see `imtl_l`; IMTL-G then
    combines the gradients e^{s_t} g_t with weights α, Σ α_t = 1. So w_t = α_t e^{s_t}.
    The direction is that of IMTL-G; s sets its length. The heads' own gradients stay
    unscaled here; the public code scales them by e^{s_t} as well. Losses as in `imtl_l`.

    Args:
      optimizer: of s; `optax.adam(0.025)` by default, as in `imtl_l`.

    Returns:
      Weighting of scope "shared" that reads "gramian" and "losses"; s is its state's
      `parameters`.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = imtl(optimizer=optax.sgd(1.0))
      >>> given = dict(gramian=jnp.eye(2), losses=jnp.array([1.0, 3.0]))
      >>> weights, state = rule.update(rule.init(2), **given)
      >>> weights.round(4), state.parameters
      (Array([0.5, 0.5], dtype=float32), Array([ 0., -2.], dtype=float32))

    References:
      Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021.
    """
    optimizer = chosen_optimizer(optimizer, "imtl")

    def init(num_tasks: int) -> LearnedState:
        return init_learned(optimizer, num_tasks)

    def update(state, *, gramian, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        scales = jnp.exp(state.parameters)
        unit = unit_gramian(gramian, active)
        shares, _ = equal_shares(unit)
        weights = shares / unit.norms
        weights = divide(weights, _total(weights / scales.astype(weights.dtype)))
        weights = jnp.where(valid_losses(values, mask), weights, jnp.nan)
        gradient = scales * raised_losses(values, mask) - 1
        return weights, learn(optimizer, state, gradient, mask)

    return Weighting(init, update, frozenset({"gramian", "losses"}))


def _total(weights: jax.Array) -> jax.Array:
    """Σ w, zero where it is rounding only."""
    total = jnp.sum(weights)
    rounding = len(weights) * jnp.finfo(weights.dtype).eps * jnp.sum(jnp.abs(weights))
    return jnp.where(jnp.abs(total) <= rounding, jnp.zeros_like(total), total)
