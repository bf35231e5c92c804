"""Training batches of data that does not fit in memory, read by grain ahead of the training.

The order is a function of seed and step alone: the batch of a step is found without reading those
before it, so that a resumed run needs no state but the number of its next step.
"""

import dataclasses
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

PyTree = Any
_THREADS = 8  # a process; reading and decompressing leave Python's lock
_BUFFERED = 16  # batches a process holds ready


class Source(Protocol):
    """Random access to examples, such as a tfds.data_source; pickled for worker processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Stream:
    """A training part that is read while it is trained on; its length counts the examples.

    Attributes:
      source: the examples, each a pytree of arrays without an axis of examples.
      transform: `transform(example) -> example`, done in the worker; None for none. A function
        of a module, where there are worker processes.
      workers: processes that read; 0 for threads of this one.
      seed: of the order.
    """

    source: Source
    transform: Callable[[Any], PyTree] | None = None
    workers: int = 0
    seed: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, batch_size: int, first: int, order: int = 0) -> Any:
        """Batches without end; each epoch is a new permutation, its incomplete batch dropped.

        Args:
          batch_size: examples a batch.
          first: the step whose batch comes first, counted from 0 over all epochs.
          order: batches of another order are independent of these.

        Returns:
          Iterator of pytrees of NumPy arrays (batch, ...), the same whatever the workers; to be
          closed.
        """
        # Imported here: it takes a second that data in memory has no use for.
        import grain
        from absl import flags

        if self.workers and not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain's workers take their options from absl's flags
        entropy = np.random.SeedSequence([self.seed, order])
        examples = grain.MapDataset.source(self.source).shuffle(
            seed=int(entropy.generate_state(1)[0])
        )
        if self.transform is not None:
            examples = examples.map(self.transform)
        steps = examples.batch(batch_size, drop_remainder=True).repeat().slice(slice(first, None))
        read = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BUFFERED)
        batches = steps.to_iter_dataset(read)
        if self.workers:
            options = grain.MultiprocessingOptions(num_workers=self.workers)
            batches = batches.mp_prefetch(options, _end_with_parent)
        return iter(batches)

    def shapes(self, batches: int, batch_size: int) -> PyTree:
        """ShapeDtypeStructs of so many batches, leaves (batches, batch, ...)."""
        example = self.source[0] if self.transform is None else self.transform(self.source[0])

        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            array = np.asarray(leaf)
            dtype = jax.dtypes.canonicalize_dtype(array.dtype)
            return jax.ShapeDtypeStruct((batches, batch_size, *array.shape), dtype)

        return jax.tree.map(shape, example)


def _end_with_parent(worker: int, workers: int) -> None:
    """In a worker process: a parent that is killed cannot end it, and it would wait for ever."""
    parent = multiprocessing.parent_process()

    def end() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
