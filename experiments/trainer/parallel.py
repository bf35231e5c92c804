"""Data parallelism: batches divided over all devices of all processes, all else on each."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.errors import ExperimentError

PyTree = Any
Loaded = TypeVar("Loaded")


def join_processes() -> None:
    """Connect this process to the others of the run, before anything else asks for a device.

    Where JAX finds them by itself (Slurm, Open MPI, Kubernetes, Cloud TPU) nothing is needed;
    elsewhere the environment holds JAX_COORDINATOR_ADDRESS (host:port of the first process),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      ExperimentError: when the others are not described or not found.
    """
    given = {}
    for argument in ("num_processes", "process_id"):
        text = os.environ.get(f"JAX_{argument.upper()}")
        if text is not None and not text.isdigit():
            raise ExperimentError(f"JAX_{argument.upper()}: expected a number, got {text!r}")
        given[argument] = None if text is None else int(text)
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(
            f"--distributed: cannot join the other processes ({reason})"
        ) from None


def leads() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def wait_for_all(moment: str) -> None:
    """Return when every process has got to this moment."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(moment)


def leader_first(load: Callable[..., Loaded], *args: Any) -> Loaded:
    """`load(*args)`, the leading process before the others, which then find its files."""
    if leads():
        loaded = load(*args)
        wait_for_all("files prepared")
        return loaded
    wait_for_all("files prepared")
    return load(*args)


def as_the_leader_says(decision: bool) -> bool:
    """The leading process's decision, in every process (their clocks differ)."""
    if jax.process_count() == 1:
        return decision
    return bool(multihost_utils.broadcast_one_to_all(np.array(decision)))


class Devices:
    """All devices of all processes in a row.

    Attributes:
      replicated: the sharding of what every device has whole.
      batches: that of arrays (batches, batch, ...), each batch divided over the devices.
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
        self.batches = NamedSharding(mesh, PartitionSpec(None, "batch"))

    def replicate(self, tree: PyTree) -> PyTree:
        """The tree's arrays, the same in every process, on every device."""
        return self.place(tree, self.replicated)

    def place(self, tree: PyTree, sharding: NamedSharding) -> PyTree:
        """The tree's arrays, the same in every process, divided over the devices."""
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        def spread(array: Any) -> jax.Array:
            host = np.asarray(array)
            with jax.transfer_guard("allow"):  # JAX does not count it as asked for
                return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

        return jax.tree.map(spread, tree)

    def split(self, batch: PyTree) -> PyTree:
        """Inside jit: the leading axis of every array divided over the devices."""
        if self._count == 1:
            return batch
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._divided), batch)

    def round_up(self, size: int) -> int:
        """The next multiple of the number of devices."""
        return -(-size // self._count) * self._count
