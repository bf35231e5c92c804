"""Dense layers, of which the models that share in other ways than one encoder are built."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

PyTree = Any


class Dense(nnx.Module):
    """Dense layers with a ReLU between them, and after the last one if asked."""

    def __init__(self, sizes: Sequence[int], *, last_relu: bool = False, rngs: nnx.Rngs):
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairs])
        self.last_relu = last_relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., sizes[0]) → (..., sizes[-1])."""
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if self.last_relu or i + 1 < len(self.layers):
                x = jax.nn.relu(x)
        return x


class SharedModel(NamedTuple):
    """A model whose tasks share an encoder, as pure functions.

    Attributes:
      init: `init(key) -> (shared, own)`, own a dict by task.
      encode: `encode(shared, x) -> z`, the representation.
      heads: {task: `head(own[task], z, x) -> (N, outputs)`}; x are the inputs of encode.
    """

    init: Callable[[jax.Array], tuple[PyTree, dict[str, PyTree]]]
    encode: Callable[[PyTree, PyTree], PyTree]
    heads: Mapping[str, Callable[[PyTree, PyTree, PyTree], jax.Array]]
