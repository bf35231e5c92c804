"""Exact MGDA where every task has a batch of its own: one forward and one pullback a task."""

import dataclasses

import jax
import jax.numpy as jnp

from mgda_jax._gramian import gramian, weighted_sum
from mgda_jax.gradients import vjp
from mgda_jax.oracle._modes import Encoder, Mode, reduced
from mgda_jax.oracle._ragged import part, stack_or_ragged
from mgda_jax.tasks import child_names, one_level, task_names


@dataclasses.dataclass(frozen=True)
class PerTask(Mode):
    """MGDA on a batch per task: the encoder runs once on each, exact as `Exact` is.

    batch is then a dict, tuple or list of T batches under the names of the losses
    (positions, where they have none). aux, BatchNorm statistics included, comes once per
    task, as a tuple. Where the representations differ in shape zs is a `Ragged`, its parts
    in task order. For every rule.

    Examples:
      >>> PerTask()
      PerTask()
    """

    def check_batch(self, batch, losses):
        given, names = child_names(batch), task_names(losses)
        if given != names:
            raise ValueError(
                "batch: with mode PerTask() expected a batch for each of the losses "
                f"{list(names)}, under the same names, got {list(given)}"
            )

    def at(self, encode, shared, batch, *, num_tasks, has_aux, axis_name):
        batches = one_level(batch)
        if len(batches) != num_tasks:
            raise ValueError(
                f"batch: with mode PerTask() expected a dict, tuple or list of {num_tasks} "
                f"batches, one per task, got {len(batches)}"
            )
        forwards = [vjp(lambda p, b=b: encode(p, b), shared, has_aux=has_aux) for b in batches]
        pulls = [reduced(pull, axis_name) for _, pull, _ in forwards]

        def rows_of(dzs):
            pulled = [pull(part(dzs, task)) for task, pull in enumerate(pulls)]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pulled)

        def combine(dzs, rows, weights, active):
            rows = rows_of(dzs) if rows is None else rows
            return weighted_sum(rows, weights, active=active)

        zs = stack_or_ragged([z for z, _, _ in forwards])
        aux = tuple(aux for _, _, aux in forwards) if has_aux else None
        return Encoder(zs, aux, rows_of, lambda rows, active: gramian(rows, active=active), combine)
