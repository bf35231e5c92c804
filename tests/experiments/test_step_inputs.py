"""What a step sees: batches without repetition, and the extra inputs of some rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.trainer.step_inputs import extra_inputs, plan_epoch
from mgda_jax import Gramian
from tests.experiments.test_training import make_run, make_trainer, train
from tests.experiments.tiny_problem import TASKS, tiny_problem


def test_an_epoch_shows_every_example_once_in_a_new_order():
    key = jax.random.key(0)
    plans = [plan_epoch(key, jnp.int32(epoch), 50, 8) for epoch in (0, 1)]
    for epoch, plan in enumerate(plans):
        assert plan.rows.shape == (6, 8) and len(np.unique(plan.rows)) == 48
        np.testing.assert_array_equal(plan.number, 6 * epoch + np.arange(6))
        np.testing.assert_array_equal(plan.previous[1:], plan.rows[:-1])
    assert not np.array_equal(plans[0].rows, plans[1].rows)
    np.testing.assert_array_equal(plans[1].previous[0], plans[0].rows[-1])
    again = plan_epoch(key, jnp.int32(1), 50, 8)
    jax.tree.map(np.testing.assert_array_equal, again, plans[1])


def test_extra_inputs_against_jacobians():
    problem = tiny_problem()
    params = problem.init(jax.random.key(1))
    data = jax.tree.map(jnp.asarray, problem.data["train"])
    plan = jax.tree.map(lambda a: a[2], plan_epoch(jax.random.key(2), jnp.int32(0), 48, 8))

    def batch_of(rows, number, stream):
        return problem.prepare(jax.tree.map(lambda a: a[rows], data), None)

    def losses(shared, rows):
        inputs = batch_of(rows, 0, 0)
        z = problem.encode(shared, inputs)
        found = problem.decode(params[1], jnp.stack([z, z]), inputs)
        return jnp.stack([found[task] for task in TASKS])

    reads = frozenset({"previous_losses", "cross_gramian"})
    extra = extra_inputs(reads, problem, params, plan, batch_of)
    got = jnp.stack([extra["previous_losses"][task] for task in TASKS])
    np.testing.assert_allclose(got, losses(params[0], plan.previous), rtol=1e-6)
    jacobians = [
        jax.jacrev(losses)(params[0], plan.independent[i])["kernel"].reshape(2, -1) for i in (0, 1)
    ]
    cross = extra["cross_gramian"]
    assert isinstance(cross, Gramian)
    got = cross.matrix * 4.0**cross.exponent
    want = np.asarray(jacobians[0], np.float64) @ np.asarray(jacobians[1], np.float64).T
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert extra_inputs(frozenset({"gramian"}), problem, params, plan, batch_of) == {}


@pytest.mark.parametrize("method", ["famo", "modo"])
def test_rules_with_extra_inputs_train(method: str):
    trainer = make_trainer(method)
    state, log = train(trainer, make_run())
    assert state.failed_step == -1 and np.isfinite(log["weight"]).all()
    assert np.ptp(log["weight"], axis=0).max() > 0
