"""MGDA-UB: the rows are ∂L_t/∂z, and one pullback takes their combination to θ."""

import dataclasses

import jax
import jax.numpy as jnp

from mgda_jax._gramian import gramian, rescale, weighted_sum
from mgda_jax.mapped_axis import sum_over_axis
from mgda_jax.oracle._modes import Encoder, Mode, one_forward
from mgda_jax.weighting.base import RowRule


@dataclasses.dataclass(frozen=True)
class Representation(Mode):
    """MGDA-UB: the rule sees the Gramian of the ∂L_t/∂z, and one pullback does: a plain step.

    ‖Σ w_t g_t‖ ≤ ‖∂z/∂θ_sh‖ ‖Σ w_t ∂L_t/∂z‖, so this minimises an upper bound; it is the
    exact rule where J Jᵀ (J = ∂z/∂θ_sh) acts as a multiple of the identity on the span of
    the ∂L_t/∂z, and otherwise no common descent is promised. For every `Weighting`.

    Examples:
      >>> Representation()
      Representation()

    References:
      Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
      NeurIPS 2018, section 3.3.
    """

    def check_rule(self, weighting):
        if isinstance(weighting, RowRule):
            raise ValueError(
                "mode: a RowRule needs the rows themselves, expected 'exact', got 'representation'"
            )

    def at(self, encode, shared, batch, *, num_tasks, has_aux, axis_name):
        zs, pull, aux = one_forward(encode, shared, batch, num_tasks, has_aux, axis_name)

        def whole(rows, active):
            gram = gramian(rows, active=active)
            if axis_name is None:
                return gram
            # Of the mean loss the examples of one device have a share of one in so many.
            count = jax.lax.psum(1, axis_name)
            gram = sum_over_axis(gram, axis_name)
            return rescale(gram, jnp.asarray(1 / count, gram.matrix.dtype))

        def combine(dzs, rows, weights, active):
            del rows
            return pull(weighted_sum(dzs, weights, active=active))

        return Encoder(zs, aux, lambda dzs: dzs, whole, combine)
