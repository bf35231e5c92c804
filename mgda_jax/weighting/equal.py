"""IMTL-G, IMTL and ConFIG: directions whose projections on the unit gradients are prescribed."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.loss_learned import LearnedState, init_learned, learn
from mgda_jax.weighting.positive import active_losses
from mgda_jax.weighting.spectrum import Spectrum, spectrum
from mgda_jax.weighting.unit_gramian import (
    UnitGramian,
    check_preference,
    preference_vector,
    unit_gramian,
)

PyTree = Any


class EqualState(NamedTuple):
    """What the last solve reported.

    Attributes:
      residual: () max_t |⟨d, u_t⟩ − p c_t| / (p max_t c_t), u_t the unit gradients, p the
        common projection: zero where the equation has a solution, up to rounding.
    """

    residual: jax.Array


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
        shares, residual = _equal_shares(unit)
        weights = shares / unit.norms
        return _divide(weights, _total(weights)), EqualState(residual)

    return Weighting(_init_equal, update)


def imtl(*, optimizer: optax.GradientTransformation | None = None) -> Weighting:
    """IMTL: IMTL-G on the gradients of losses that IMTL-L scales.

    IMTL-L learns s by descending Σ_t (e^{s_t} L_t − s_t), see `imtl_l`; IMTL-G then
    combines the gradients e^{s_t} g_t with weights α, Σ α_t = 1. So w_t = α_t e^{s_t}.
    The direction is that of IMTL-G; s sets its length. The heads' own gradients stay
    unscaled here; the public code scales them by e^{s_t} as well.

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
    optimizer = optax.adam(0.025) if optimizer is None else optimizer

    def init(num_tasks: int) -> LearnedState:
        return init_learned(optimizer, num_tasks)

    def update(state, *, gramian, losses, active=None, **_):
        values, mask = active_losses(losses, active)
        scales = jnp.exp(state.parameters)
        unit = unit_gramian(gramian, active)
        shares, _ = _equal_shares(unit)
        weights = shares / unit.norms
        weights = _divide(weights, _total(weights / scales.astype(weights.dtype)))
        return weights, learn(optimizer, state, scales * values - 1, mask)

    return Weighting(init, update, frozenset({"gramian", "losses"}))


def config(*, preference: PyTree = None) -> Weighting:
    """ConFIG: the direction with the same cosine to every task, its length that of all projections.

    d = (Σ_t ⟨g_t, v⟩) v with v the unit vector along U⁺c, U the unit rows, c = 1: at full
    rank ⟨u_t, v⟩ is the same for all t. With other c the cosines are as c. U⁺ is the
    pseudo-inverse, computed from the Gramian C of the unit rows: eigenvalues up to
    T·eps of the largest count as zero. d = 0 where c is orthogonal to the range of
    C (an opposed pair). A zero gradient is left out.

    Args:
      preference: c up to its scale, (T,) array, sequence or dict of named scalars
        ≥ 0; ones by default.

    Returns:
      Weighting of scope "shared" that reads "gramian".

    Raises:
      ValueError: a concrete preference that is negative, not finite or all zero;
        at update, one of another length.

    Examples:
      >>> import jax.numpy as jnp
      >>> rule = config()
      >>> weights, _ = rule.update(rule.init(2), gramian=jnp.array([[1.0, 0.0], [0.0, 9.0]]))
      >>> weights.round(4)
      Array([2.    , 0.6667], dtype=float32)

    References:
      Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics
      Informed Neural Networks", ICLR 2025, equation (2).
    """
    check_preference(preference, "config")

    def update(state, *, gramian, active=None, **_):
        del state
        unit = unit_gramian(gramian, active)
        cosines = preference_vector(preference, unit, active, "config")
        cosines = jnp.where(unit.nonzero, cosines, jnp.zeros_like(cosines))
        size = jnp.max(cosines)
        cosines = cosines / jnp.where(size == 0, jnp.ones_like(size), size)
        spectral = spectrum(unit.matrix)
        coordinates = jnp.where(spectral.kept, _dot(cosines, spectral.vectors), 0)
        # What is left of c in the range of C, when it is nothing but rounding.
        unseen = jnp.sum(coordinates**2) <= jnp.finfo(size.dtype).eps * jnp.sum(cosines**2)
        coordinates = jnp.where(unseen, jnp.zeros_like(coordinates), coordinates)
        projections = _dot(spectral.vectors, coordinates)
        inverse = jnp.where(spectral.kept, 1 / spectral.values, 0)
        shares = _solve(unit, spectral, inverse, projections)
        length = jnp.sum(jnp.where(unit.nonzero, unit.norms * projections, 0))
        weights = _divide(shares, jnp.sum(shares * projections)) * length / unit.norms
        return weights, EqualState(_residual(unit, shares, cosines))

    return Weighting(_init_equal, update)


def _init_equal(num_tasks: int) -> EqualState:
    del num_tasks
    return EqualState(jnp.zeros(()))


def _equal_shares(unit: UnitGramian) -> tuple[jax.Array, jax.Array]:
    """a with Ca = 1 up to its scale, zero for zero rows, and its residual."""
    ones = unit.nonzero.astype(unit.norms.dtype)
    spectral = spectrum(unit.matrix)
    coordinates = _dot(ones, spectral.vectors)
    # Part of the ones outside the range of C, when it is more than rounding, is all that remains.
    lost = jnp.sum(jnp.where(spectral.kept, 0, coordinates) ** 2)
    opposed = lost > jnp.finfo(ones.dtype).eps * jnp.sum(ones)
    inverse = jnp.where(spectral.kept, 1 / spectral.values, 0)
    inverse = jnp.where(opposed, (~spectral.kept).astype(ones.dtype), inverse)
    target = jnp.where(opposed, _dot(spectral.vectors, inverse * coordinates), ones)
    shares = jnp.where(opposed, target, _solve(unit, spectral, inverse, target))
    shares = jnp.where(unit.nonzero, shares, jnp.zeros_like(shares))
    return shares, jnp.where(opposed, 0, _residual(unit, shares, ones))


def _solve(
    unit: UnitGramian, spectral: Spectrum, inverse: jax.Array, target: jax.Array
) -> jax.Array:
    """V diag(inverse) Vᵀ target, refined once."""

    def apply(vector):
        return _dot(spectral.vectors, inverse * _dot(vector, spectral.vectors))

    shares = apply(target)
    return shares + apply(target - _dot(unit.matrix, shares))


def _residual(unit: UnitGramian, shares: jax.Array, target: jax.Array) -> jax.Array:
    projections = jnp.where(unit.nonzero, _dot(unit.matrix, shares), 0)
    return jnp.max(jnp.abs(projections - target))


def _total(weights: jax.Array) -> jax.Array:
    """Σ w, zero where it is rounding only."""
    total = jnp.sum(weights)
    rounding = len(weights) * jnp.finfo(weights.dtype).eps * jnp.sum(jnp.abs(weights))
    return jnp.where(jnp.abs(total) <= rounding, jnp.zeros_like(total), total)


def _divide(vector: jax.Array, divisor: jax.Array) -> jax.Array:
    """vector / divisor, zero where the divisor is."""
    safe = jnp.where(divisor == 0, jnp.ones_like(divisor), divisor)
    return jnp.where(divisor == 0, jnp.zeros_like(vector), vector / safe)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")
