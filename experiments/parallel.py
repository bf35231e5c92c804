"""Data parallelism: batches divided over all visible devices, all else on each of them."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.errors import ExperimentError

PyTree = Any


class Devices:
    """All visible devices in a row.

    Attributes:
      replicated: the sharding of what every device has whole.
    """

    def __init__(self, batch_size: int):
        """Raise ExperimentError where the batch does not divide evenly over the devices."""
        self._count = jax.device_count()
        if batch_size % self._count:
            raise ExperimentError(
                f"--batch-size: expected a multiple of the {self._count} devices, got {batch_size}"
            )
        mesh = jax.make_mesh((self._count,), ("batch",), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self._divided = NamedSharding(mesh, PartitionSpec("batch"))

    def replicate(self, tree: PyTree) -> PyTree:
        """The tree's arrays on every device."""
        return jax.device_put(tree, self.replicated)

    def split(self, batch: PyTree) -> PyTree:
        """Inside jit: the leading axis of every array divided over the devices."""
        if self._count == 1:
            return batch
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._divided), batch)

    def round_up(self, size: int) -> int:
        """The next multiple of the number of devices."""
        return -(-size // self._count) * self._count
