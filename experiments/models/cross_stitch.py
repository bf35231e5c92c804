"""Cross-stitch networks: a column of layers per task, mixed after every layer.

After layer l task t goes on with Σ_s A^l_ts x_s, the matrix A^l being learned. All columns and
all matrices are shared: each task's loss reaches every one of them. Heads alone are own. There
is no single representation: the last layer has one per task, and head t reads the t-th. The
Gramian of the gradients with respect to all of them would be diagonal by construction and its
weights would see norms, never conflicts. So exact MGDA, mode "parameters", not MGDA-UB.

References:
  Misra, Shrivastava, Gupta and Hebert, Cross-stitch Networks for Multi-task Learning,
  CVPR 2016.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.dense import Dense, SharedModel
from experiments.models.lenet import split

PyTree = Any


class CrossStitch(nnx.Module):
    """Columns and the matrices between them; a matrix starts near the identity."""

    def __init__(self, tasks: int, sizes: Sequence[int], own_share: float, *, rngs: nnx.Rngs):
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.columns = nnx.List(
            [nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairs]) for _ in range(tasks)]
        )
        rest = (1 - own_share) / max(tasks - 1, 1)
        start = rest + (own_share - rest) * jnp.eye(tasks)
        self.stitches = nnx.List([nnx.Param(start) for _ in pairs])

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, sizes[0]) → (T, N, sizes[-1])."""
        xs = jnp.stack([x] * len(self.columns))
        for i, stitch in enumerate(self.stitches):
            outs = [column[i](x) for column, x in zip(self.columns, xs, strict=True)]
            xs = jnp.einsum("ts,snf->tnf", stitch[...], jax.nn.relu(jnp.stack(outs)))
        return xs


def cross_stitch(
    inputs: int,
    outputs: Mapping[str, int],
    *,
    sizes: Sequence[int] = (32, 32),
    own_share: float = 0.9,
) -> SharedModel:
    """The model as pure functions.

    Args:
      inputs: features of the inputs x (N, inputs).
      outputs: {task: size of its output}.
      sizes: layers of a column.
      own_share: of a column in its own next layer's input, at the start.

    Returns:
      SharedModel with z (T, N, sizes[-1]), tasks sorted; for mode "parameters".

    Examples:
      >>> model = cross_stitch(5, {"a": 1, "b": 3})
      >>> shared, own = model.init(jax.random.key(0))
      >>> model.encode(shared, jnp.ones((2, 5))).shape
      (2, 2, 32)
    """
    tasks = sorted(outputs)
    columns = split(lambda rngs: CrossStitch(len(tasks), (inputs, *sizes), own_share, rngs=rngs))
    layers = {
        task: split(lambda rngs, size=outputs[task]: Dense((sizes[-1], size), rngs=rngs))
        for task in tasks
    }

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        column_key, *keys = jax.random.split(key, 1 + len(tasks))
        own = {task: layers[task].init(k) for task, k in zip(tasks, keys, strict=True)}
        return columns.init(column_key), own

    def reading(t: int, apply: Any) -> Any:
        return lambda own, z, x: apply(own, z[t])

    heads = {task: reading(t, layers[task].apply) for t, task in enumerate(tasks)}
    return SharedModel(init, columns.apply, heads)
