"""What the trainer needs to know of an experiment: data, model, losses, metrics."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """A multi-task problem with an encoder, one head per task and data.

    Everything is a pure function of parameters; the trainer vmaps it over runs.

    Attributes:
      tasks: the tasks' names, sorted (the order in which JAX flattens a dict of losses).
      data: {"train": ..., "validation": ..., "test": ...}, each a pytree of arrays with a
        leading axis of examples; train may be a `Stream` of what does not fit in memory.
      init: `init(key) -> (shared, own)` parameters.
      prepare: `prepare(examples, key) -> batch`, from rows of the data to what the model
        takes; draws from key (augmentation, dropout keys), None in evaluation.
      encode: `encode(shared, batch) -> z`, the representation.
      decode: `decode(own, zs, batch) -> losses`, a dict by task name.
      tally: `tally(shared, own, batch, valid) -> tallies`, sums over the examples where
        valid (N,) bool; a pytree that adds up over batches.
      metrics: `metrics(tallies) -> {metric: (T,)}`, or () where a number is of all tasks together.
      score: the metric that selects epochs and learning rates; higher is better.
      score_label: how tables and axes name it.
      absorb: None, or `absorb((shared, own), aux) -> (shared, own)`, which after a step puts
        what its forward pass measured (BatchNorm statistics) where evaluation finds it:
        leaves of shared and own that no loss reads in training, so that their gradient is
        zero. encode and decode then return (value, aux), and aux is theirs as a pair.
      show: None, or `show(shared, own) -> {name: array}`, what pictures need of a trained model;
        kept of every method's first seed.
      log_gradients: whether cosines and norms of the tasks' gradients are logged for methods that
        read none, too; a backward pass per task.
      eval_batch: examples a step of evaluation.
      common: whether all tasks read the same z; else no method has the suffix _ub.
    """

    tasks: tuple[str, ...]
    data: Mapping[str, PyTree]
    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    prepare: Callable[[PyTree, jax.Array | None], PyTree]
    encode: Callable[[PyTree, PyTree], PyTree]
    decode: Callable[[PyTree, PyTree, PyTree], Any]
    tally: Callable[[PyTree, PyTree, PyTree, jax.Array], PyTree]
    metrics: Callable[[PyTree], Mapping[str, jax.Array]]
    score: str
    score_label: str
    absorb: Callable[[tuple[PyTree, PyTree], PyTree], tuple[PyTree, PyTree]] | None = None
    show: Callable[[PyTree, PyTree], Mapping[str, jax.Array]] | None = None
    log_gradients: bool = False
    eval_batch: int = 500
    common: bool = True

    def training_on(self, train: PyTree) -> "Problem":
        """The same problem with another training part."""
        return dataclasses.replace(self, data={**self.data, "train": train})


def num_examples(data: PyTree) -> int:
    """The length of a stream, or of the leading axis of a part in memory."""
    return len(jax.tree.leaves(data)[0])
