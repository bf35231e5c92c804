"""Descend a rule of a preference in the parameters of the network that the preference gets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments.pareto_set.hypernetwork import NetworkSet
from experiments.trainer.problem import Problem, num_examples
from mgda_jax import Weighting, multitask_value_and_grad, pareto

PyTree = Any
MakeRule = Callable[[jax.Array], Weighting]
REFERENCE = 2.0  # of each loss in the hypervolume, as published for MultiMNIST
CHECKS = 10  # on validation while training; the best is kept


class Recipe(NamedTuple):
    """How a set of networks is trained: Adam, its rate falling to zero along a cosine.

    Attributes:
      epochs: passes over the training part.
      batch_size: examples a step.
      learning_rate: at the start.
      seed: of initialisation, preferences, data order and dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


class Trained(NamedTuple):
    """A trained set of networks.

    Attributes:
      params: where the hypervolume on validation was largest.
      hypervolume: there; −inf where it never was a number.
      epoch: after which.
      failed_step: the step by which a loss was not finite, None where none was.
    """

    params: PyTree
    hypervolume: float
    epoch: int
    failed_step: int | None


class Programs(NamedTuple):
    """The compiled functions of one set of networks and one rule.

    Attributes:
      init: `init(seed, learning_rate) -> state`.
      epoch: `epoch(state, number) -> state`.
      measure: `measure(params, chunks of a part, preferences (K, T)) -> {metric: (K, T)}`.
    """

    init: Callable[..., PyTree]
    epoch: Callable[..., PyTree]
    measure: Callable[..., dict[str, np.ndarray]]


class _State(NamedTuple):
    params: PyTree
    optimizer: PyTree
    seed: jax.Array
    learning_rate: jax.Array


def programs(
    problem: Problem, networks: NetworkSet, make_rule: MakeRule, epochs: int, batch_size: int
) -> Programs:
    """The functions that train a set of networks θ(r; φ) on a problem of T tasks.

    A step draws preferences r and takes of each network the direction Σ_t w_t ∂L_t/∂θ, w by the
    rule of r, as if the network were trained alone; it is pulled back to φ through all networks
    at once, (∂θ/∂φ)ᵀ, in place of one pullback of φ a task.

    Args:
      problem: what θ = (shared, own) solves.
      networks: θ(r; φ).
      make_rule: `make_rule(preference (T,)) -> Weighting`, under vmap; without memory.
      epochs: for the schedule.
      batch_size: examples a step, of which every preference gets the same number.

    Returns:
      Programs, compiled once each.
    """
    train = jax.tree.map(jnp.asarray, problem.data["train"])
    size = num_examples(train)
    steps = size // batch_size
    num_tasks = len(problem.tasks)

    def optimizer(rate: jax.Array) -> optax.GradientTransformation:
        falling = optax.cosine_decay_schedule(-1.0, epochs * steps)
        return optax.chain(
            optax.scale_by_adam(), optax.scale_by_schedule(falling), optax.scale(rate)
        )

    def init(seed: jax.Array, learning_rate: jax.Array) -> _State:
        params = networks.init(jax.random.fold_in(jax.random.key(seed), 0))
        return _State(params, optimizer(learning_rate).init(params), seed, learning_rate)

    def direction(theta: PyTree, preference: jax.Array, rows: PyTree, key: jax.Array) -> PyTree:
        batch = problem.prepare(rows, key)
        oracle = multitask_value_and_grad(
            problem.encode, problem.decode, make_rule(preference), num_tasks, mode="exact"
        )
        shared, own = theta
        return oracle(shared, own, batch, oracle.init())[1]

    def step(state: _State, train: PyTree, inputs: tuple[jax.Array, jax.Array]) -> _State:
        rows, key = inputs
        preference_key, noise_key = jax.random.split(key)
        preferences = networks.draw(preference_key)
        count = len(preferences)
        rows = rows.reshape(count, -1) if networks.shares else jnp.stack([rows] * count)
        thetas, pull_back = jax.vjp(lambda p: networks.networks(p, preferences), state.params)
        keys = jax.random.split(noise_key, count)
        examples = jax.tree.map(lambda a: a[rows], train)
        directions = jax.vmap(direction)(thetas, preferences, examples, keys)
        if networks.shares:
            directions = jax.tree.map(lambda g: g / count, directions)
        (gradient,) = pull_back(directions)
        tx = optimizer(state.learning_rate)
        updates, moments = tx.update(gradient, state.optimizer)
        moved: Any = optax.apply_updates(state.params, updates)
        return state._replace(params=moved, optimizer=moments)

    @jax.jit
    def epoch(state: _State, train: PyTree, number: jax.Array) -> _State:
        key = jax.random.fold_in(jax.random.key(state.seed), 1 + number)
        order_key, step_key = jax.random.split(key)
        order = jax.random.permutation(order_key, size)[: steps * batch_size]
        inputs = order.reshape(steps, batch_size), jax.random.split(step_key, steps)
        return lax.scan(lambda s, i: (step(s, train, i), None), state, inputs)[0]

    # One small program for every network and chunk: it compiles once.
    @jax.jit
    def tally(thetas: PyTree, k: np.ndarray, examples: PyTree, valid: jax.Array) -> PyTree:
        shared, own = jax.tree.map(lambda a: a[k], thetas)
        return problem.tally(shared, own, problem.prepare(examples, None), valid)

    written, metrics = jax.jit(networks.networks), jax.jit(problem.metrics)

    def measure(params: PyTree, part: PyTree, preferences: np.ndarray) -> dict[str, np.ndarray]:
        thetas = written(params, preferences)

        def of_one(k: int) -> dict[str, np.ndarray]:
            sums = jax.device_get([tally(thetas, np.int32(k), *chunk) for chunk in part])
            return jax.device_get(dict(metrics(jax.tree.map(lambda *a: np.sum(a, axis=0), *sums))))

        found = [of_one(k) for k in range(len(preferences))]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    return Programs(jax.jit(init), lambda state, number: epoch(state, train, number), measure)


def chunks(problem: Problem, part: str) -> list[tuple[PyTree, jax.Array]]:
    """A part in chunks of one length, the last one padded: examples, and which are valid."""
    data = problem.data[part]
    count = num_examples(data)
    size = min(problem.eval_batch, count)

    def cut(rows: np.ndarray, first: int) -> jax.Array:
        found = rows[first : first + size]
        return jnp.asarray(np.pad(found, [(0, size - len(found))] + [(0, 0)] * (rows.ndim - 1)))

    return [
        (jax.tree.map(lambda a, i=first: cut(a, i), data), cut(np.ones(count, bool), first))
        for first in range(0, count, size)
    ]


def volume(losses: np.ndarray) -> float:
    """Of a front's losses (K, T), up to `REFERENCE`; NaN where one is no number."""
    return pareto.wfg_hypervolume(losses, np.full(losses.shape[1], REFERENCE))


def fit(
    made: Programs,
    recipe: Recipe,
    validation: list[tuple[PyTree, jax.Array]],
    preferences: np.ndarray,
    steps: int,
    done: Callable[[int], None],
) -> Trained:
    """Train, and keep the parameters with the largest hypervolume on validation.

    Args:
      made: the set's programs.
      recipe: its numbers.
      validation: chunks of the validation part.
      preferences: (K, T) whose networks are the front.
      steps: an epoch's.
      done: called after each epoch with its number.

    Returns:
      Trained.
    """
    state = made.init(np.uint32(recipe.seed), np.float32(recipe.learning_rate))
    best = Trained(state.params, -np.inf, 0, None)
    for epoch in range(1, recipe.epochs + 1):
        state = made.epoch(state, np.uint32(epoch))
        if epoch * CHECKS // recipe.epochs > (epoch - 1) * CHECKS // recipe.epochs:
            found = volume(made.measure(state.params, validation, preferences)["loss"])
            if not np.isfinite(found):
                return best._replace(failed_step=epoch * steps)
            if found > best.hypervolume:
                best = Trained(state.params, found, epoch, None)
        jax.block_until_ready(state)
        done(epoch)
    return best
