"""Exact MGDA: T pullbacks of the encoder give the rows ∂L_t/∂θ."""

import dataclasses

from mgda_jax._gramian import gramian, weighted_sum
from mgda_jax.gradients import Pullbacks, check_pullbacks, over_tasks
from mgda_jax.oracle._modes import Encoder, Mode, one_forward


@dataclasses.dataclass(frozen=True)
class Exact(Mode):
    """MGDA: the rule sees the per-task gradients g_t = Jᵀ ∂L_t/∂z, stacked: T pullbacks.

    For every rule; what reads no gradients costs one pullback.

    Attributes:
      pullbacks: how they run, "vmap", "map", "unroll" or None for what is fastest; see
        `task_gradients`.

    Raises:
      ValueError: pullbacks is none of these.

    Examples:
      >>> Exact(pullbacks="map")
      Exact(pullbacks='map')
    """

    pullbacks: Pullbacks | None = None

    def __post_init__(self):
        check_pullbacks(self.pullbacks)

    def at(self, encode, shared, batch, *, num_tasks, has_aux, axis_name):
        zs, pull, aux = one_forward(encode, shared, batch, num_tasks, has_aux, axis_name)

        def combine(dzs, rows, weights, active):
            if rows is None:
                return pull(weighted_sum(dzs, weights, active=active))
            return weighted_sum(rows, weights, active=active)

        def rows(dzs):
            return over_tasks(pull, dzs, self.pullbacks)

        return Encoder(zs, aux, rows, lambda rows, active: gramian(rows, active=active), combine)
