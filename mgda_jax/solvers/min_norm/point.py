"""`min_norm_point`: from any Gramian to certified, differentiable weights."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from mgda_jax._gramian import Gramian, as_gramian, normalize
from mgda_jax.solvers.min_norm import closed_form
from mgda_jax.solvers.min_norm.frank_wolfe import frank_wolfe
from mgda_jax.solvers.min_norm.implicit import hull_norm, on_face
from mgda_jax.solvers.min_norm.interior_point import default_max_steps, interior_point
from mgda_jax.solvers.min_norm.solution import MinNormSolution, kkt
from mgda_jax.tasks import check_int

Method = Literal["exact", "frank_wolfe"]
METHODS: tuple[Method, ...] = get_args(Method)

# The cap of the paper's public code.
_FRANK_WOLFE_STEPS = 250


def min_norm_point(
    gramian: Gramian | jax.typing.ArrayLike,
    *,
    active: jax.typing.ArrayLike | None = None,
    method: Method = "exact",
    max_steps: int | None = None,
) -> MinNormSolution:
    """The shortest vector in the convex hull of T gradients, as weights.

        w* = argmin over the simplex of wᵀMw = ‖Σ_t w_t g_t‖²,   M = G Gᵀ.

    d = Gᵀw* is zero (the point is Pareto stationary) or satisfies
    ⟨d, g_t⟩ ≥ ‖d‖² > 0 for every t. Scaling M leaves w* as it is. A zero row is a
    shortest vector by itself: zero rows share the weight equally. Where w* is not
    unique (equal gradients) one of the optimal weights is returned; d is unique.

    Pure: works under jit, vmap (a batch of Gramians in one call), scan and grad.
    Every step count is bounded; NaN or Inf in gives NaN weights.

    Derivatives: M is read as (M + Mᵀ)/2, so the derivative with respect to its
    entries is symmetric. On the face S = {t: w_t > 0} it is dw = −P dM w with
    P = M⁻¹ − M⁻¹11ᵀM⁻¹ / 1ᵀM⁻¹1 there, and ∂‖d‖²/∂M = w wᵀ. Where the face
    changes w has a kink, and the derivative is one-sided. kkt has none.

    Args:
      gramian: `Gramian`, or an array (T, T) of inner products, T ≥ 1, in a
        floating dtype; below float32 it is solved in float32.
      active: (T,) bool, tasks that take part; None for all. The result is that of
        the active sub-Gramian, with zeros elsewhere; rows of inactive tasks may
        hold anything, NaN included. Where none is active weights and norm are zero.
      method: "exact" (closed form for T ≤ 2, else an interior point method that
        ends at rounding level), or "frank_wolfe", the paper's Algorithm 2, which
        seldom does: see the kkt it returns. The two agree for T ≤ 2.
      max_steps: bound on the steps; None for 16 (float32) or 32 (float64) of
        "exact", of which most problems need 4 to 12, and 250 of "frank_wolfe".

    Returns:
      MinNormSolution(weights (T,), norm (), kkt (), steps ()).

    Raises:
      ValueError: gramian not (T, T) or not floating, active not (T,) bool, an
        unknown method, max_steps that is no int ≥ 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> solution = min_norm_point(rows @ rows.T)
      >>> solution.weights
      Array([0.6, 0.4], dtype=float32)
      >>> print(f"{solution.norm:.4f}")
      1.4142

    References:
      Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective
      optimization", 2012. Sener and Koltun, "Multi-Task Learning as
      Multi-Objective Optimization", NeurIPS 2018, Algorithms 1 and 2.
    """
    if method not in METHODS:
        raise ValueError(f"min_norm_point: method must be one of {METHODS}, got {method!r}")
    if max_steps is not None:
        message = "min_norm_point: max_steps must be an int >= 1 or None"
        max_steps = check_int(max_steps, lambda n: n >= 1, message)
    gramian, mask = _select(gramian, active)
    matrix = (gramian.matrix + gramian.matrix.T) / 2
    weights, face, certificate, steps = _solve(lax.stop_gradient(matrix), mask, method, max_steps)
    weights = on_face(matrix, weights, face)
    norm = jnp.ldexp(hull_norm(matrix, weights), gramian.exponent)
    return MinNormSolution(weights, norm, certificate, steps)


def _select(
    gramian: Gramian | jax.typing.ArrayLike, active: jax.typing.ArrayLike | None
) -> tuple[Gramian, jax.Array | None]:
    """The Gramian in its own scale with zeros where inactive, and the mask."""
    matrix = gramian.matrix if isinstance(gramian, Gramian) else jnp.asarray(gramian)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            "gramian: expected a Gramian or an array (T, T) (vmap over a batch of them), "
            f"got shape {matrix.shape}"
        )
    if active is None:
        return normalize(as_gramian(gramian)), None
    mask = jnp.asarray(active)
    if mask.shape != matrix.shape[:1] or mask.dtype != bool:
        raise ValueError(
            f"active: expected shape {matrix.shape[:1]} and dtype bool, "
            f"got {mask.shape} and {mask.dtype}"
        )
    # Before the scale is taken: an inactive NaN must not reach it.
    matrix = jnp.where(mask[:, None] & mask[None, :], matrix, jnp.zeros_like(matrix))
    if isinstance(gramian, Gramian):
        return normalize(Gramian(matrix, gramian.exponent)), mask
    return as_gramian(matrix), mask


def _solve(
    matrix: jax.Array, active: jax.Array | None, method: Method, max_steps: int | None
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """weights (T,), face (T,), kkt (), steps (), every degenerate case included."""
    size, dtype = matrix.shape[0], matrix.dtype
    diagonal = jnp.diagonal(matrix)
    taking_part = jnp.ones(size, bool) if active is None else active
    valid = jnp.all(jnp.isfinite(matrix)) & jnp.all(diagonal >= 0)
    zero = taking_part & (diagonal < jnp.finfo(dtype).tiny)
    # What a solver cannot read is answered below; meanwhile it gets the easiest problem.
    ordinary = valid & jnp.any(taking_part) & ~jnp.any(zero)
    readable = jnp.where(ordinary, matrix, jnp.eye(size, dtype=dtype))
    mask = None if active is None else active | ~ordinary

    weights, face, steps = _dispatch(readable, mask, method, max_steps)
    share = zero.astype(dtype)
    share = share / jnp.maximum(jnp.sum(share), 1)
    weights = jnp.where(ordinary, weights, share)
    weights = jnp.where(valid, weights, jnp.full_like(weights, jnp.nan))
    # A zero row is the shortest vector: nothing is left to certify, or to differentiate.
    certificate = jnp.where(jnp.any(zero) & valid, 0, kkt(matrix, weights, active))
    return weights, face & ordinary, certificate, steps


def _dispatch(
    matrix: jax.Array, active: jax.Array | None, method: Method, max_steps: int | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    size, dtype = matrix.shape[0], matrix.dtype
    if size <= 2:
        weights = closed_form.one(matrix) if size == 1 else closed_form.two(matrix)
        if active is not None:
            only = active.astype(dtype)
            weights = jnp.where(jnp.all(active), weights, only)
        return weights, weights > 0, jnp.zeros((), jnp.int32)
    if method == "frank_wolfe":
        return frank_wolfe(matrix, active, max_steps or _FRANK_WOLFE_STEPS)
    return interior_point(matrix, active, max_steps or default_max_steps(dtype))
