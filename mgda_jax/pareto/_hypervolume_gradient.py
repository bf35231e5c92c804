"""How a population of points makes its hypervolume grow."""

import jax
import jax.numpy as jnp

from mgda_jax.pareto._dominance import fronts
from mgda_jax.pareto._hypervolume import hypervolume
from mgda_jax.pareto._points import check_reference


def hypervolume_gradient(points: jax.Array, reference: jax.Array) -> jax.Array:
    """The derivative of the hypervolume by each loss of each point, front by front.

    ∂ HV(F(p), r) / ∂ p_t with F(p) the non-dominated front (see `fronts`) that p is in, so that
    dominated points move too. Its negative, w_it ≥ 0, are the task weights of point i: with
    parameters of their own, descending Σ_t w_it L_t spreads the points over the Pareto front, a
    concave one too. Divide each point's weights by their norm for steps of one length.
    O(N) times the cost of `hypervolume`.

    Args:
      points: (N, T) losses, T ≥ 2, of N sets of parameters.
      reference: (T,) worse than all points: one beyond it has a zero derivative. How far
        beyond the front it is says how much the ends count.

    Returns:
      (N, T), entries ≤ 0; one side's derivative where points are equal or share a coordinate;
      NaN when an entry is NaN.

    Raises:
      ValueError: points are not (N, T) with T ≥ 2, or the reference not (T,).

    Examples:
      >>> import jax.numpy as jnp
      >>> points = jnp.array([[1.0, 2.0], [2.0, 1.0], [2.5, 2.5]])
      >>> hypervolume_gradient(points, jnp.array([3.0, 3.0]))
      Array([[-1. , -1. ],
             [-1. , -1. ],
             [-0.5, -0.5]], dtype=float32)

    References:
      Emmerich and Deutz, "Time Complexity and Zeros of the Hypervolume Indicator Gradient
      Field", EVOLVE III, 2014. Deist et al., "Multi-objective Learning to Predict Pareto Fronts
      Using Hypervolume Maximization", 2021, for the fronts.
    """
    check_reference(points, reference, "hypervolume_gradient")
    numbers = fronts(points)

    def volume(points: jax.Array) -> jax.Array:
        def of_front(number: jax.Array) -> jax.Array:
            inside = (numbers == number)[:, None]
            # The reference itself adds nothing.
            top = jnp.broadcast_to(reference, points.shape)
            return hypervolume(jnp.where(inside, points, top), reference)

        return jnp.sum(jax.vmap(of_front)(jnp.arange(len(points), dtype=numbers.dtype)))

    known = ~(jnp.any(jnp.isnan(points)) | jnp.any(jnp.isnan(reference)))
    return jnp.where(known, jax.grad(volume)(points), jnp.nan)
