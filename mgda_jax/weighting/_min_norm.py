"""MGDA: the min-norm point of the (normalised) per-task gradients."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from mgda_jax._gramian import Gramian, as_gramian, normalize
from mgda_jax.solvers.min_norm import METHODS, Method, min_norm_point
from mgda_jax.tasks import check_int
from mgda_jax.weighting.arguments import active_mask, check_choice, check_flag
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.division import one_for_zero
from mgda_jax.weighting.losses import valid_losses
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import normalized

Normalization = Literal["none", "l2", "loss", "loss+"]


class MinNormReport(NamedTuple):
    """What the last solve reported.

    Attributes:
      min_norm: () ‖Σ α_t g_t / n_t‖, the norm of the min-norm point (of the
        normalised rows, where there is a normalisation).
      kkt: () the solver's scale-free certificate, see `min_norm_point`.
      steps: () int32, steps the solver took.
    """

    min_norm: jax.Array
    kkt: jax.Array
    steps: jax.Array


@rule
def min_norm(
    *,
    normalization: Normalization = "none",
    method: Method = "exact",
    max_steps: int | None = None,
    authors_form: bool = False,
) -> Weighting:
    """MGDA: weights of the shortest vector in the convex hull of the task gradients.

    α = argmin over the simplex of ‖Σ_t α_t g_t / n_t‖², w = (α/n) / Σ(α/n), with
    n_t = 1 ("none"), ‖g_t‖ ("l2"), L_t ("loss") or L_t ‖g_t‖ ("loss+"). The
    direction d = Σ w_t g_t satisfies ⟨d, g_t⟩ ≥ 0 for every t, and with "none"
    ⟨d, g_t⟩ ≥ ‖d‖². A zero gradient takes all the weight: that task is
    stationary. A short one takes most: with losses of unequal units, or a task nearly
    solved, training stands still there; take `cagrad`, `upgrad` or `nash_mtl` then.
    Losses must not be negative (NaN where one is), and count as at least eps · max L.

    Args:
      normalization: "none", "l2", "loss" or "loss+".
      method: "exact" or "frank_wolfe" (the paper's Algorithm 2), see `min_norm_point`.
      max_steps: bound on the solver's steps; None for the method's own.
      authors_form: use w = α, as the authors' public code does: weights found on
        normalised gradients, applied to the raw ones. The result is the min-norm
        point of nothing and can ascend a task; it is here to reproduce their runs.

    Returns:
      Weighting of scope "shared" that reads "gramian", and "losses" for "loss"
      and "loss+". Its weights lie on the simplex.

    Raises:
      ValueError: an unknown normalization or method, max_steps that is no int ≥ 1, authors_form
        that is no bool.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> rule = min_norm()
      >>> rule.update(rule.init(2), gramian=rows @ rows.T)[0]
      Array([0.6, 0.4], dtype=float32)

    References:
      Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective
      optimization", 2012. Sener and Koltun, "Multi-Task Learning as
      Multi-Objective Optimization", NeurIPS 2018, Algorithms 1 and 2.
    """
    check_choice(normalization, get_args(Normalization), "min_norm: normalization")
    check_choice(method, METHODS, "min_norm: method")
    if max_steps is not None:
        max_steps = check_int(
            max_steps, lambda n: n >= 1, "min_norm: max_steps must be an int >= 1 or None"
        )
    check_flag(authors_form, "min_norm: authors_form")

    def init(num_tasks: int) -> MinNormReport:
        del num_tasks
        return MinNormReport(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(state, *, gramian, losses=None, active=None, **_):
        del state
        rows = as_gramian(gramian)
        scale = _scales(rows, losses, active, normalization)
        scaled = rows if normalization == "none" else _divide(rows, scale)
        solution = min_norm_point(scaled, active=active, method=method, max_steps=max_steps)
        weights = solution.weights
        if normalization != "none" and not authors_form:
            weights = normalized(weights / scale)
        return weights, MinNormReport(solution.norm, solution.kkt, solution.steps)

    reads = {"gramian", "losses"} if normalization.startswith("loss") else {"gramian"}
    return Weighting(init, update, frozenset(reads), "shared")


def _scales(
    rows: Gramian, losses: jax.Array | None, active: jax.Array | None, normalization: Normalization
) -> jax.Array:
    """n_t up to a common factor, positive where the rows and losses are finite."""
    diagonal = jnp.diagonal(rows.matrix)
    scale = jnp.ones_like(diagonal)
    if normalization in ("l2", "loss+"):
        scale = jnp.where(diagonal == 0, scale, jnp.sqrt(diagonal))
    if normalization in ("loss", "loss+"):
        assert losses is not None
        mask = active_mask(active, len(scale))
        value = jnp.where(mask, losses.astype(scale.dtype), jnp.zeros_like(scale))
        relative = value / one_for_zero(jnp.max(value))
        eps = jnp.finfo(scale.dtype).eps
        relative = jnp.where(relative < eps, eps, relative)
        relative = jnp.where(jnp.any(value > 0), relative, jnp.ones_like(relative))
        scale = scale * jnp.where(valid_losses(value, mask), relative, jnp.nan)
    return scale if active is None else jnp.where(active, scale, jnp.ones_like(scale))


def _divide(rows: Gramian, scale: jax.Array) -> Gramian:
    """The Gramian of g_t / n_t; row by row and column by column, so that no product underflows."""
    return normalize(Gramian(rows.matrix / scale[:, None] / scale[None, :], rows.exponent))
