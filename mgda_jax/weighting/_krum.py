"""Krum: the gradient closest to its neighbours, for training with faulty or hostile tasks."""

import jax.numpy as jnp
import optax

from mgda_jax.tasks import check_int
from mgda_jax.weighting.arguments import active_mask
from mgda_jax.weighting.base import Weighting
from mgda_jax.weighting.origin import rule
from mgda_jax.weighting.unit_gramian import active_gramian


@rule
def krum(*, num_byzantine: int = 1, num_selected: int = 1) -> Weighting:
    """Krum and Multi-Krum: the mean of the m gradients with the closest neighbours.

    Task t scores Σ ‖g_t − g_s‖² over its T − f − 2 nearest other tasks s; the m tasks
    with the lowest scores get the weight 1/m, the others zero. Distances are read off
    the Gramian, ‖g_t‖² + ‖g_s‖² − 2⟨g_t, g_s⟩. T counts the active tasks; where fewer than
    f + 3 are active only the nearest one is looked at, where fewer than m all are
    taken. (The paper asks for T > 2f + 2.) Of equal scores the first wins.

    Args:
      num_byzantine: f, how many gradients may be anything: 0, or up to T − 3.
      num_selected: m, 1 … T; 1 is Krum.

    Returns:
      Weighting of scope "shared" that reads "gramian". Its weights lie on the simplex.

    Raises:
      ValueError: f or m is no int in its range; at init and update, too few tasks for it.

    Examples:
      >>> import jax.numpy as jnp
      >>> rows = jnp.array([[1.0, 0.0], [1.1, 0.0], [0.9, 0.1], [-50.0, 8.0]])
      >>> rule = krum(num_byzantine=1)
      >>> rule.update(rule.init(4), gramian=rows @ rows.T)[0]
      Array([1., 0., 0., 0.], dtype=float32)

    References:
      Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant
      Gradient Descent", NeurIPS 2017.
    """
    num_byzantine = check_int(
        num_byzantine, lambda n: n >= 0, "krum: num_byzantine must be an int >= 0"
    )
    num_selected = check_int(
        num_selected, lambda n: n >= 1, "krum: num_selected must be an int >= 1"
    )

    def check_tasks(num_tasks: int) -> None:
        if num_byzantine and num_tasks < num_byzantine + 3:
            raise ValueError(
                f"krum: num_byzantine={num_byzantine} needs at least {num_byzantine + 3} tasks, "
                f"got {num_tasks}"
            )
        if num_selected > num_tasks:
            raise ValueError(f"krum: num_selected must be <= {num_tasks} tasks, got {num_selected}")

    def init(num_tasks: int) -> optax.EmptyState:
        check_tasks(num_tasks)
        return optax.EmptyState()

    def update(state, *, gramian, active=None, **_):
        matrix = active_gramian(gramian, active).matrix
        num_tasks, dtype = len(matrix), matrix.dtype
        check_tasks(num_tasks)
        mask = active_mask(active, num_tasks)
        squares = jnp.diagonal(matrix)
        distances = jnp.maximum(squares[:, None] + squares[None, :] - 2 * matrix, 0)
        others = mask[:, None] & mask[None, :] & ~jnp.eye(num_tasks, dtype=bool)
        ordered = jnp.sort(jnp.where(others, distances, jnp.inf), axis=1)
        present = jnp.sum(mask)
        neighbours = jnp.clip(present - num_byzantine - 2, 1, jnp.maximum(present - 1, 0))
        near = jnp.arange(num_tasks) < neighbours
        scores = jnp.sum(jnp.where(near[None, :], ordered, jnp.zeros_like(ordered)), axis=1)
        order = jnp.argsort(jnp.where(mask, scores, jnp.inf))
        taken = jnp.minimum(present, num_selected)
        share = 1 / jnp.maximum(taken, 1).astype(dtype)
        chosen = jnp.where(jnp.arange(num_tasks) < taken, share, jnp.zeros_like(share))
        weights = jnp.zeros(num_tasks, dtype).at[order].set(chosen)
        # Sorting would hide a NaN.
        return jnp.where(jnp.all(jnp.isfinite(matrix)), weights, jnp.nan), state

    return Weighting(init, update)
