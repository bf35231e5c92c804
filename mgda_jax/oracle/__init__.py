"""The gradient oracle for encoder–decoder models.

- `multitask_value_and_grad`: encode, decode and a rule → losses and combined gradients
- its modes, the ways to pull the encoder back: `Representation` (MGDA-UB), `Exact`, `Lean`,
  `PerTask`
- `per_task_decode`, `check_decode`: a decode from one head per task, and a check of one's own
"""

from mgda_jax.oracle._arguments import ModeName
from mgda_jax.oracle._exact import Exact
from mgda_jax.oracle._heads import check_decode, per_task_decode
from mgda_jax.oracle._lean import Lean
from mgda_jax.oracle._modes import Encoder, Mode
from mgda_jax.oracle._oracle import MultitaskValueAndGrad, multitask_value_and_grad
from mgda_jax.oracle._per_task import PerTask
from mgda_jax.oracle._ragged import Ragged
from mgda_jax.oracle._representation import Representation

__all__ = [
    "Encoder",
    "Exact",
    "Lean",
    "Mode",
    "ModeName",
    "MultitaskValueAndGrad",
    "PerTask",
    "Ragged",
    "Representation",
    "check_decode",
    "multitask_value_and_grad",
    "per_task_decode",
]
