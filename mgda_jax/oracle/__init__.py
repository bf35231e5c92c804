"""The gradient oracle for encoder–decoder models, and its modes: how the encoder is pulled back.

- `Representation`: MGDA-UB, one pullback
- `Exact`: T pullbacks; `Lean`: the same without T gradients in memory
- `PerExample`: as `Lean`, where every example is a task
- `PerTask`: exact, where every task has a batch of its own
"""

from mgda_jax.oracle._arguments import ModeName as ModeName
from mgda_jax.oracle._exact import Exact
from mgda_jax.oracle._heads import check_decode as check_decode
from mgda_jax.oracle._heads import per_task_decode as per_task_decode
from mgda_jax.oracle._lean import Lean
from mgda_jax.oracle._modes import Encoder, Mode
from mgda_jax.oracle._oracle import MultitaskValueAndGrad as MultitaskValueAndGrad
from mgda_jax.oracle._oracle import multitask_value_and_grad as multitask_value_and_grad
from mgda_jax.oracle._per_example import PerExample
from mgda_jax.oracle._per_task import PerTask
from mgda_jax.oracle._ragged import Ragged
from mgda_jax.oracle._representation import Representation

__all__ = ["Encoder", "Exact", "Lean", "Mode", "PerExample", "PerTask", "Ragged", "Representation"]
