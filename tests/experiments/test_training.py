"""The trainer against plain SGD written out, and what it does when numbers fail."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.trainer.methods import parse_methods
from experiments.trainer.training import Recipe, Run, Trainer
from tests.experiments.tiny_problem import TASKS, tiny_problem

EPS = float(jnp.finfo(jnp.float32).eps)


def make_trainer(method: str, problem=None, **changes) -> Trainer:
    problem = problem or tiny_problem()
    (parsed,) = parse_methods(method, TASKS, 3, 3)
    recipe = Recipe(
        batch_size=16,
        optimizer=lambda rate: optax.sgd(rate, momentum=0.9),
        decay=lambda epoch: 0.5**epoch,
    )
    return Trainer(problem, parsed, dataclasses.replace(recipe, **changes))


def make_run(seed: int = 0, rate: float = 0.1, weights=(1.0, 1.0), scored=(True, True)) -> Run:
    return Run(jnp.array(seed, jnp.uint32), jnp.array(rate), jnp.array(weights), jnp.array(scored))


def train(trainer: Trainer, run: Run, epochs: int = 2):
    state = jax.jit(trainer.init)(run)
    data = jax.device_put(trainer.problem.data["train"])
    step = jax.jit(trainer.train_epoch)
    logs = []
    for epoch in range(epochs):
        state, log = step(state, run, data, jnp.int32(epoch))
        logs.append(log)
    return state, jax.tree.map(lambda *a: np.concatenate(a), *logs)


def plain_sgd(trainer: Trainer, run: Run, weights, epochs: int):
    """The same training written out: full gradient of the weighted sum, momentum by hand."""
    problem, batch = trainer.problem, trainer.recipe.batch_size
    init_key, order_key, step_key, _ = jax.random.split(jax.random.key(run.seed), 4)
    params = problem.init(init_key)
    velocity = jax.tree.map(jnp.zeros_like, params)
    data = jax.tree.map(jnp.asarray, problem.data["train"])

    @jax.jit
    def gradient(params, rows, key):
        def loss(params):
            examples = jax.tree.map(lambda a: a[rows], data)
            inputs = problem.prepare(examples, jax.random.fold_in(key, 0))
            z = problem.encode(params[0], inputs)
            losses = problem.decode(params[1], jnp.stack([z, z]), inputs)
            return sum(w * losses[task] for w, task in zip(weights, TASKS, strict=True))

        return jax.grad(loss)(params)

    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(order_key, epoch), 48)
        for step in range(3):
            key = jax.random.fold_in(step_key, epoch * 3 + step)
            grads = gradient(params, order[step * batch : (step + 1) * batch], key)
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
            rate = run.learning_rate * 0.5**epoch
            params = jax.tree.map(lambda p, v, r=rate: p - r * v, params, velocity)
    return params


@pytest.mark.parametrize(("method", "weights"), [("uniform", (1, 1)), ("grid", (0.25, 0.75))])
def test_loss_weightings_are_sgd_on_the_weighted_sum(method, weights):
    trainer, run = make_trainer(method), make_run(seed=3, weights=weights)
    state, log = train(trainer, run)
    want = plain_sgd(trainer, run, weights, epochs=2)
    chex.assert_trees_all_close(state.params, want, rtol=0, atol=200 * EPS)
    assert log["loss"].shape == (6, 2)
    np.testing.assert_array_equal(log["weight"], np.tile(weights, (6, 1)))


def test_single_trains_one_task_and_leaves_the_other_head():
    trainer, run = make_trainer("single"), make_run(weights=(1.0, 0.0))
    state, _ = train(trainer, run)
    before = trainer.init(run)
    np.testing.assert_array_equal(state.params[1]["right"], before.params[1]["right"])
    want = plain_sgd(trainer, run, (1, 0), epochs=2)
    chex.assert_trees_all_close(state.params[0], want[0], rtol=0, atol=200 * EPS)


@pytest.mark.parametrize("method", ["mgda", "mgda_ub"])
def test_gradient_rules_log_weights_on_the_simplex(method):
    state, log = train(make_trainer(method), make_run())
    np.testing.assert_allclose(log["weight"].sum(axis=1), 1, rtol=0, atol=4 * EPS)
    assert (log["weight"] >= 0).all() and np.ptp(log["weight"][:, 0]) > 0
    assert (np.abs(log["cosine"]) <= 1).all() and log["cosine"].shape == (6, 2, 2)
    assert (log["direction_norm"] > 0).all() and (log["min_norm"] > 0).all()
    assert state.failed_step == -1


def test_scope_scales_the_heads_only_when_told():
    run = make_run()
    moved = {}
    for scope in ("shared", "all"):
        trainer = make_trainer("mgda_ub", scope=scope)
        state, log = train(trainer, run, epochs=1)
        before = trainer.init(run).params[1]
        moved[scope] = jax.tree.map(lambda a, b: a - b, state.params[1], before)
    ratio = jnp.linalg.norm(moved["all"]["left"]) / jnp.linalg.norm(moved["shared"]["left"])
    assert 0.05 < ratio < 0.95  # weights in (0, 1) shorten the head's steps


def test_vmapped_runs_are_the_runs_alone():
    trainer = make_trainer("mgda")
    runs = [make_run(seed=s, rate=r) for s, r in ((0, 0.1), (1, 0.03))]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *runs)
    data = jax.device_put(trainer.problem.data["train"])
    states = jax.jit(jax.vmap(trainer.init))(stacked)
    step = jax.jit(jax.vmap(trainer.train_epoch, in_axes=(0, 0, None, None)))
    states, _ = step(states, stacked, data, jnp.int32(0))
    for i, run in enumerate(runs):
        alone, _ = train(trainer, run, epochs=1)
        mine = jax.tree.map(lambda a, i=i: a[i], states.params)
        chex.assert_trees_all_close(mine, alone.params, rtol=0, atol=500 * EPS)


def test_only_the_run_with_a_nan_freezes():
    problem = tiny_problem()

    def poisoned(own, zs, batch):
        losses = problem.decode(own, zs, batch)
        # A run whose right head has grown past a bound gets a NaN: the large learning rate.
        bad = jnp.linalg.norm(own["right"]) > 8
        return {**losses, "right": jnp.where(bad, jnp.nan, losses["right"])}

    trainer = make_trainer("mgda_ub", dataclasses.replace(problem, decode=poisoned))
    runs = jax.tree.map(lambda *a: jnp.stack(a), make_run(rate=0.01), make_run(rate=300.0))
    data = jax.device_put(problem.data["train"])
    state = jax.jit(jax.vmap(trainer.init))(runs)
    step = jax.jit(jax.vmap(trainer.train_epoch, in_axes=(0, 0, None, None)))
    first, log = step(state, runs, data, jnp.int32(0))
    assert first.failed_step[0] == -1 and first.failed_step[1] >= 1
    assert first.failed_task[1] == TASKS.index("right")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((first.params, first.oracle)))
    assert np.isnan(log["loss"][1, first.failed_step[1], 1])
    second, _ = step(first, runs, data, jnp.int32(1))
    frozen = jax.tree.map(lambda a: a[1], (first, second))
    chex.assert_trees_all_equal(*frozen)
    assert not np.array_equal(first.params[0]["kernel"][0], second.params[0]["kernel"][0])


def test_gradients_that_overflow_are_named_as_such():
    problem = tiny_problem()

    def steep(own, zs, batch):
        losses = problem.decode(own, zs, batch)
        tiny = jnp.sqrt(jnp.sum(0 * own["left"]))  # its derivative at zero is not finite
        return {**losses, "left": losses["left"] + tiny}

    state, _ = train(
        make_trainer("uniform", dataclasses.replace(problem, decode=steep)), make_run()
    )
    assert state.failed_step == 0 and state.failed_task == len(TASKS)


def test_selection_keeps_the_best_epoch_of_the_scored_tasks():
    trainer = make_trainer("single")
    run = make_run(scored=(True, False))
    state = trainer.init(run)
    history = [(50.0, 90.0), (70.0, 10.0), (60.0, 95.0)]
    for epoch, scores in enumerate(history, start=1):
        moved = jax.tree.map(lambda p, e=epoch: jnp.full_like(p, e), state.params)
        state = trainer.select(
            state._replace(params=moved), run, jnp.array(scores), jnp.int32(epoch)
        )
    assert (state.best_epoch, state.best_score) == (2, 70.0)
    assert all((leaf == 2).all() for leaf in jax.tree.leaves(state.best_params))
