"""A problem whose forward passes leave statistics: they are kept, once a step, by every method."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.trainer.methods import parse_methods
from experiments.trainer.problem import Problem
from experiments.trainer.training import Recipe, Run, Trainer
from tests.experiments.tiny_problem import tiny_problem

BATCH = 16


def counting_problem() -> Problem:
    """The tiny problem, counting its steps and adding up its batches in a leaf of shared."""
    plain = tiny_problem()

    def init(key):
        shared, own = plain.init(key)
        return {"model": shared, "seen": jnp.zeros(()), "steps": jnp.zeros(())}, own

    def absorb(params, aux):
        shared, own = params
        (total, heads) = aux
        assert heads is None
        return {
            **shared,
            "seen": shared["seen"] + total,
            "steps": shared["steps"] + 1,
        }, own

    return dataclasses.replace(
        plain,
        init=init,
        prepare=lambda examples, key: examples,
        encode=lambda shared, batch: (
            plain.encode(shared["model"], batch),
            jnp.sum(batch["x"]),
        ),
        decode=lambda own, zs, batch: (plain.decode(own, zs, batch), None),
        absorb=absorb,
    )


@pytest.mark.parametrize("method", ["uniform", "mgda", "mgda_ub", "famo", "sdmgrad", "graddrop"])
def test_statistics_move_once_a_step_and_parameters_as_without_them(method: str):
    def train(problem: Problem):
        spec = parse_methods(method, problem.tasks, 3, 3)[0]
        recipe = Recipe(BATCH, lambda rate: optax.sgd(rate, momentum=0.9), lambda epoch: 1.0)
        trainer = Trainer(problem, spec, recipe)
        run = Run(jnp.uint32(3), jnp.float32(0.1), jnp.ones(2), jnp.ones(2, bool))
        state = jax.jit(trainer.init)(run)
        data = problem.data["train"]
        return jax.jit(trainer.train_epoch)(state, run, data, jnp.int32(0))[0].params

    problem = counting_problem()
    shared, own = train(problem)
    assert shared["steps"] == 3
    total = problem.data["train"]["x"].sum()  # an epoch sees every example once
    np.testing.assert_allclose(shared["seen"], total, rtol=1e-4, atol=1e-4)
    plain = dataclasses.replace(tiny_problem(), prepare=problem.prepare)
    for got, want in zip(
        jax.tree.leaves((shared["model"], own)), jax.tree.leaves(train(plain)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
