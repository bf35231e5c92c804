"""Multiple gradient descent in JAX: T conflicting losses in, one update out."""

from mgda_jax import oracle, pareto, weighting
from mgda_jax._aggregate import aggregate, aggregate_states, mgda
from mgda_jax._branch import branch
from mgda_jax._branched import branched
from mgda_jax._diagnostics import Diagnostics, diagnostics
from mgda_jax._gramian import Gramian, gramian, weighted_sum
from mgda_jax._log import log_dict
from mgda_jax._probe import branch_probe
from mgda_jax._recorded import Recorded, recorded
from mgda_jax.gradients import check_shared, masked_mean, task_gradients
from mgda_jax.oracle import check_decode, multitask_value_and_grad, per_task_decode
from mgda_jax.solvers.min_norm import MinNormSolution, min_norm_point
from mgda_jax.weighting.base import RowRule, Weighting
from mgda_jax.weighting.state import AggregateState

__version__ = "0.1.0"

__all__ = [
    "AggregateState",
    "Diagnostics",
    "Gramian",
    "MinNormSolution",
    "Recorded",
    "RowRule",
    "Weighting",
    "aggregate",
    "aggregate_states",
    "branch",
    "branch_probe",
    "branched",
    "check_decode",
    "check_shared",
    "diagnostics",
    "gramian",
    "log_dict",
    "masked_mean",
    "mgda",
    "min_norm_point",
    "multitask_value_and_grad",
    "oracle",
    "pareto",
    "per_task_decode",
    "recorded",
    "task_gradients",
    "weighted_sum",
    "weighting",
]
