"""What each dispatch trains on: data kept on the device, or the next batches of a stream.

A `StepPlan` reads both by the same expression, a[rows]: of data in memory, rows are the indices
of a batch's examples; of a stream's chunk of batches, rows is the index of one.
"""

from typing import Any

import jax
import numpy as np

from experiments.trainer.parallel import Devices
from experiments.trainer.step_inputs import chunk_size
from experiments.trainer.stream import Stream

PyTree = Any


class MemoryFeed:
    """The training part, whole on the device for every dispatch."""

    def __init__(self, data: PyTree, devices: Devices):
        """Move the data to the device."""
        self._data = devices.replicate(data)

    def like(self, steps: int) -> PyTree:
        """What `take` returns."""
        return self._data

    def take(self, steps: int) -> PyTree:
        """What the next steps read, on the device."""
        return self._data

    def close(self) -> None:
        """End the reading."""


class StreamFeed:
    """The next batches of a stream, and with them what the rule reads beside the steps' own."""

    def __init__(
        self, stream: Stream, reads: frozenset[str], batch_size: int, first: int, devices: Devices
    ):
        """Read on from step first, counted from the start of training."""
        self._stream, self._reads, self._batch_size = stream, reads, batch_size
        self._devices = devices
        earlier = int("previous_losses" in reads and first > 0)
        self._own = stream.batches(batch_size, first - earlier)
        self._previous = [next(self._own) for _ in range(earlier)]
        orders = (1, 2) if "cross_gramian" in reads else ()
        self._independent = [stream.batches(batch_size, first, order) for order in orders]

    def like(self, steps: int) -> PyTree:
        """The shapes of what `take` returns."""
        shapes = self._stream.shapes(chunk_size(self._reads, steps), self._batch_size)
        return jax.tree.map(lambda a: a.update(sharding=self._devices.batches), shapes)

    def take(self, steps: int) -> PyTree:
        """What the next steps read, on the device: leaves (batches, batch, ...)."""
        own = [next(self._own) for _ in range(steps)]
        previous = []
        if "previous_losses" in self._reads:
            previous, self._previous = self._previous or own[:1], own[-1:]
        independent = [next(o) for _ in range(steps) for o in self._independent]
        chunk = jax.tree.map(lambda *a: np.stack(a), *own, *previous, *independent)
        return self._devices.place(chunk, self._devices.batches)

    def close(self) -> None:
        """End the reading, and the processes that do it."""
        for batches in (self._own, *self._independent):
            batches.close()


Feed = MemoryFeed | StreamFeed
