"""One training loop for all experiments: jitted, vmapped over runs, many steps a dispatch.

A run is one seed, learning rate and variant of a method. All runs of a method are one
compiled program with a leading axis of runs; what differs between them is data (`Run`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

import mgda_jax
from experiments.trainer.methods import Method
from experiments.trainer.problem import Problem, num_examples
from experiments.trainer.recording import rule_log
from experiments.trainer.step_inputs import StepPlan, extra_inputs, plan_chunk, plan_epoch
from experiments.trainer.stream import Stream
from mgda_jax.weighting.base import Scope

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
      batch_size: examples a step; an epoch's last incomplete batch is dropped.
      optimizer: `optimizer(learning_rate) -> GradientTransformation`.
      decay: `decay(epoch) -> factor` of the learning rate.
      scope: whether head gradients are scaled too, "shared" or "all"; None for the
        rule's own.
    """

    batch_size: int
    optimizer: Callable[[jax.Array], optax.GradientTransformation]
    decay: Callable[[jax.Array], jax.Array]
    scope: Scope | None = None


class Run(NamedTuple):
    """What one run does not share with the others; leaves stacked over runs.

    Attributes:
      seed: () uint32, of initialisation, data order and dropout.
      learning_rate: () at the start.
      coefficients: (T,) static loss weights.
      scored: (T,) bool, the tasks whose metric selects the epoch.
    """

    seed: jax.Array
    learning_rate: jax.Array
    coefficients: jax.Array
    scored: jax.Array


class RunState(NamedTuple):
    """All that changes while a run trains, and so all that a checkpoint holds.

    Attributes:
      params: (shared, own).
      optimizer: the optimiser's state.
      oracle: the oracle's `AggregateState`.
      best_params: (shared, own) of the best epoch by validation.
      best_score: () its score.
      best_epoch: () int32, −1 before the first validation.
      failed_step: () int32, the step that met a number that is not finite, else −1; from
        then on nothing of the run changes.
      failed_task: () int32, the first task with such a loss, T when only gradients were.
    """

    params: tuple[PyTree, PyTree]
    optimizer: PyTree
    oracle: mgda_jax.AggregateState
    best_params: tuple[PyTree, PyTree]
    best_score: jax.Array
    best_epoch: jax.Array
    failed_step: jax.Array
    failed_task: jax.Array


class Keys(NamedTuple):
    """The random streams of a run: of its parameters, data order, batches and rule."""

    init: jax.Array
    order: jax.Array
    step: jax.Array
    rule: jax.Array


def _keys(seed: jax.Array) -> Keys:
    return Keys(*jax.random.split(jax.random.key(seed), 4))


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The pure functions that train all runs of one method on one problem.

    Attributes:
      problem: what is trained.
      method: how the tasks are weighed.
      recipe: batch size, optimiser, schedule.
      split: divides the rows of a batch over devices.
    """

    problem: Problem
    method: Method
    recipe: Recipe
    split: Callable[[PyTree], PyTree] = lambda batch: batch

    @property
    def reads(self) -> frozenset[str]:
        """What the method's rule reads."""
        return self.method.rule(jnp.ones(len(self.problem.tasks))).reads

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training part."""
        return num_examples(self.problem.data["train"]) // self.recipe.batch_size

    def init(self, run: Run) -> RunState:
        """The state of one run before its first step."""
        params = self.problem.init(_keys(run.seed).init)
        optimizer = self.recipe.optimizer(run.learning_rate).init(params)
        never = jnp.array(-1, jnp.int32)
        return RunState(
            params=params,
            optimizer=optimizer,
            oracle=self._oracle(run).init(params[0]),
            best_params=params,
            best_score=jnp.array(-jnp.inf),
            best_epoch=never,
            failed_step=never,
            failed_task=never,
        )

    def train_epoch(
        self, state: RunState, run: Run, data: PyTree, epoch: jax.Array
    ) -> tuple[RunState, dict[str, jax.Array]]:
        """`train_steps` of a whole epoch of data in memory."""
        return self.train_steps(state, run, data, epoch, jnp.int32(0), self.steps_per_epoch)

    def train_steps(
        self,
        state: RunState,
        run: Run,
        data: PyTree,
        epoch: jax.Array,
        first: jax.Array,
        steps: int,
    ) -> tuple[RunState, dict[str, jax.Array]]:
        """Consecutive steps of one epoch of one run.

        Args:
          state: the run's state.
          run: what is its own.
          data: the training part, leaves (N, ...); of a `Stream`, the batches that these
            steps read, leaves (batches, batch, ...), laid out as `plan_chunk` says.
          epoch: () int32, counted from 0. Order and noise follow from seed and epoch, so
            a resumed run sees the same batches.
          first: () int32, the first of the steps, counted from 0 in each epoch.
          steps: how many.

        Returns:
          The new state and what was logged, leaves (steps, ...).
        """
        keys = _keys(run.seed)
        tx = self.recipe.optimizer(run.learning_rate * self.recipe.decay(epoch))

        def batch_of(rows: jax.Array, number: jax.Array, stream: int) -> PyTree:
            key = jax.random.fold_in(jax.random.fold_in(keys.step, number), stream)
            examples = self.split(jax.tree.map(lambda a: a[rows], data))
            return self.problem.prepare(examples, key)

        def step(state: RunState, plan: StepPlan):
            extra = extra_inputs(self.reads, self.problem, state.params, plan, batch_of)
            batch = batch_of(plan.rows, plan.number, 0)
            return self._step(state, run, tx, batch, plan.number, keys, extra)

        return lax.scan(step, state, self._plan(keys.order, epoch, first, steps))

    def _plan(self, key: jax.Array, epoch: jax.Array, first: jax.Array, steps: int) -> StepPlan:
        train = self.problem.data["train"]
        if isinstance(train, Stream):
            return plan_chunk(self.reads, epoch * self.steps_per_epoch + first, steps)
        plan = plan_epoch(key, epoch, num_examples(train), self.recipe.batch_size)
        if steps == self.steps_per_epoch:
            return plan
        return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, first, steps), plan)

    def _step(
        self,
        state: RunState,
        run: Run,
        tx: optax.GradientTransformation,
        batch: PyTree,
        number: jax.Array,
        keys: Keys,
        extra: dict[str, Any],
    ) -> tuple[RunState, dict[str, jax.Array]]:
        rule_key = jax.random.fold_in(keys.rule, number)
        (losses, aux), grads, oracle = self._oracle(run)(
            *state.params, batch, state.oracle, key=rule_key, **extra
        )
        losses = jnp.stack([losses[task] for task in self.problem.tasks])
        updates, optimizer = tx.update(grads, state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        if self.problem.absorb is not None:
            params = self.problem.absorb(params, aux)
        new = state._replace(params=params, optimizer=optimizer, oracle=oracle)
        finite = jnp.isfinite(losses)
        sound = jnp.all(finite) & jnp.isfinite(optax.tree.norm(updates))
        alive = state.failed_step < 0
        fails = alive & ~sound
        first_bad = jnp.where(jnp.all(finite), len(losses), jnp.argmin(finite))
        kept = jax.tree.map(lambda n, o: jnp.where(alive & sound, n, o), new, state)
        kept = kept._replace(
            failed_step=jnp.where(fails, number, state.failed_step),
            failed_task=jnp.where(fails, first_bad.astype(jnp.int32), state.failed_task),
        )
        return kept, {"loss": losses, **rule_log(oracle)}

    def _oracle(self, run: Run) -> Any:
        rule = self.method.rule(run.coefficients)
        return mgda_jax.multitask_value_and_grad(
            self.problem.encode,
            self.problem.decode,
            mgda_jax.recorded(rule, always=self.problem.log_gradients),
            len(self.problem.tasks),
            mode=self.method.mode,
            has_aux=self.problem.absorb is not None,
            scope=self.recipe.scope,
        )

    def tally(self, params: tuple[PyTree, PyTree], examples: PyTree, valid: jax.Array) -> PyTree:
        """Sums over the valid ones of some examples, for one run."""
        batch = self.problem.prepare(self.split(examples), None)
        return self.problem.tally(*params, batch, valid)

    def select(self, state: RunState, run: Run, scores: jax.Array, epoch: jax.Array) -> RunState:
        """Keep the parameters where the mean score of the scored tasks is the best so far."""
        score = jnp.sum(jnp.where(run.scored, scores, 0)) / jnp.sum(run.scored)
        better = (score > state.best_score) & (state.failed_step < 0)
        best = jax.tree.map(
            lambda n, o: jnp.where(better, n, o),
            (state.params, score, epoch),
            (state.best_params, state.best_score, state.best_epoch),
        )
        return state._replace(best_params=best[0], best_score=best[1], best_epoch=best[2])
