"""Which examples a step sees, and what some rules read beside losses and Gramian."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.trainer.problem import Problem
from mgda_jax import task_gradients
from mgda_jax.weighting import cross_gramian

PyTree = Any
_INDEPENDENT = 7919  # folded into the order's key for batches independent of the step's own


class StepPlan(NamedTuple):
    """The examples of one step; with a leading axis, of an epoch.

    What a step does not read is never gathered, so the plan holds all there may be to read.

    Attributes:
      number: () int32, steps since the start.
      rows: (batch,) indices of the step's examples in data in memory; of a stream's chunk of
        batches, () the index of the step's.
      previous: those of the step before; of the first step, its own.
      independent: (2, ...) of two further batches.
    """

    number: jax.Array
    rows: jax.Array
    previous: jax.Array
    independent: jax.Array


def plan_epoch(key: jax.Array, epoch: jax.Array, num_examples: int, batch_size: int) -> StepPlan:
    """An epoch's batches, from the key and the epoch alone, so that a resumed run sees the same.

    Args:
      key: of the run's data order.
      epoch: () int32, counted from 0.
      num_examples: examples in the training part.
      batch_size: examples a step; the last incomplete batch is dropped.

    Returns:
      StepPlan with a leading axis of steps.
    """
    steps = num_examples // batch_size

    def shuffled(key: jax.Array, epoch: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
        return order[: steps * batch_size].reshape(steps, batch_size)

    rows = shuffled(key, epoch)
    before = shuffled(key, jnp.maximum(epoch - 1, 0))[-1]
    before = jnp.where(epoch == 0, rows[0], before)
    others = [shuffled(jax.random.fold_in(key, _INDEPENDENT + i), epoch) for i in (0, 1)]
    return StepPlan(
        number=epoch * steps + jnp.arange(steps, dtype=jnp.int32),
        rows=rows,
        previous=jnp.concatenate([before[None], rows[:-1]]),
        independent=jnp.stack(others, axis=1),
    )


def plan_chunk(reads: frozenset[str], first: jax.Array, steps: int) -> StepPlan:
    """The steps of a chunk of batches: their own, then the previous one, then independent ones.

    Args:
      reads: the rule's; only what it reads is in the chunk.
      first: () int32, the number of the first step.
      steps: how many.

    Returns:
      StepPlan with a leading axis of steps; its rows count batches.
    """
    own = jnp.arange(steps, dtype=jnp.int32)
    others = steps + ("previous_losses" in reads) + jnp.arange(2 * steps, dtype=jnp.int32)
    return StepPlan(
        number=first + own,
        rows=own,
        previous=jnp.concatenate([jnp.full(1, steps, jnp.int32), own[:-1]]),
        independent=others.reshape(steps, 2),
    )


def chunk_size(reads: frozenset[str], steps: int) -> int:
    """How many batches `plan_chunk` refers to."""
    return steps + ("previous_losses" in reads) + 2 * steps * ("cross_gramian" in reads)


def extra_inputs(
    reads: frozenset[str],
    problem: Problem,
    params: tuple[PyTree, PyTree],
    plan: StepPlan,
    batch_of: Callable[[jax.Array, jax.Array, int], PyTree],
) -> dict[str, Any]:
    """The extra arguments of the oracle that a rule reads.

    previous_losses, of the previous batch at the current parameters, is one forward pass
    more (FAMO); cross_gramian, of the task gradients of two independent batches, two more
    sets of T gradients (MoDo, SDMGrad).

    Args:
      reads: the rule's.
      problem: model and losses.
      params: (shared, own).
      plan: the step's.
      batch_of: `batch_of(rows, number, stream) -> batch`; the stream of random numbers
        0 is that of the step itself.

    Returns:
      Keyword arguments; empty for most rules.
    """

    def losses_fn(shared: PyTree, own: PyTree, batch: PyTree) -> Any:
        has_aux = problem.absorb is not None
        z = problem.encode(shared, batch)
        copies = jax.tree.map(lambda a: jnp.stack([a] * len(problem.tasks)), z[0] if has_aux else z)
        losses = problem.decode(own, copies, batch)
        return losses[0] if has_aux else losses

    extra = {}
    if "previous_losses" in reads:
        before = batch_of(plan.previous, jnp.maximum(plan.number - 1, 0), 0)
        extra["previous_losses"] = losses_fn(*params, before)
    if "cross_gramian" in reads:
        one, two = (
            task_gradients(losses_fn)(*params, batch_of(plan.independent[i], plan.number, 1 + i))[1]
            for i in (0, 1)
        )
        extra["cross_gramian"] = cross_gramian(one, two)
    return extra
