"""What the optax transformation refuses, by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mgda_jax
from mgda_jax import aggregate, mgda
from mgda_jax.weighting import (
    cr_mogm,
    famo,
    fixed,
    graddrop,
    min_norm,
    pcd,
    trimmed_mean,
    uniform,
    upgrad,
)
from tests.aggregate_problem import GRADS, ROWS, SHARED, close, step

LOSSES = {"depth": jnp.array(1.0), "segm": jnp.array(2.0)}


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        (min_norm(), {"losses": LOSSES, "active": {"A_segm": True, "depth": True}}),
        (fixed({"segmentation": 1.0, "depth": 2.0}), {"losses": LOSSES}),
        (fixed({"segmentation": 1.0, "depth": 2.0}), {"active": {"segm": True, "depth": True}}),
        (upgrad(preference={"segm": 1.0, "Depth": 2.0}), {"losses": LOSSES}),
        (cr_mogm(upgrad(preference={"segm": 1.0, "Depth": 2.0})), {"losses": LOSSES}),
        (pcd(tau={"a": 0.1, "b": 0.2}), {"losses": LOSSES}),
        (graddrop(leak={"a": 0.1, "b": 0.2}), {"losses": LOSSES}),
        (famo(), {"losses": LOSSES, "previous_losses": {"a": 1.0, "segm": 1.0}}),
    ],
)
def test_the_tasks_have_one_set_of_names(rule, given):
    params = {"w": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match=r"expected the tasks of .*\('.*'\), got \('.*'\)"):
        step(aggregate(rule, 2, scope=None), {"w": ROWS}, params, **given)


def test_the_oracle_compares_names_too():
    heads = {name: lambda own, z, batch: jnp.sum(z * own) for name in ("depth", "segm")}
    own = {name: jnp.ones(2) for name in heads}

    def run(rule, **given):
        decode = mgda_jax.per_task_decode(heads)
        oracle = mgda_jax.multitask_value_and_grad(lambda p, x: x * p, decode, rule, 2)
        return oracle(jnp.ones(2), own, jnp.ones(2), oracle.init(), **given)

    with pytest.raises(ValueError, match="active: expected the tasks of losses"):
        run(min_norm(), active={"A_segm": True, "depth": False})
    with pytest.raises(ValueError, match="fixed: weights: expected the tasks of losses"):
        run(fixed({"segmentation": 1.0, "depth": 2.0}))
    close(run(fixed({"segm": 2.0, "depth": 3.0}))[2].task_weights, [3.0, 2.0])


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"encoder": {"w": ROWS[0]}, "heads": GRADS["heads"]}, "'encoder/w'.*task axis of 2"),
        ({"encoder": {"w": ROWS.T}, "heads": GRADS["heads"]}, "'encoder/w'.*task axis of 2"),
        (
            {"encoder": {"w": ROWS[:, :2]}, "heads": GRADS["heads"]},
            r"'encoder/w': expected shape \(2, 3\) \(shared.*got \(2, 2\)",
        ),
        (
            {"encoder": {"w": ROWS}, "heads": np.ones((2, 2), np.float32)},
            r"'heads': expected shape \(2,\) \(own.*got \(2, 2\)",
        ),
    ],
)
def test_wrong_axes_raise_instead_of_broadcasting(grads, message):
    with pytest.raises(ValueError, match=message):
        step(mgda(2, shared=SHARED), grads)


def test_a_forgotten_task_axis_raises_without_params_too():
    tx = mgda(2)
    with pytest.raises(ValueError, match="task axis of 2"):
        tx.update({"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)}))


PLAIN = {"w": jnp.ones((2, 3))}  # as long as there are tasks


def test_a_gradient_as_long_as_there_are_tasks_raises_without_params():
    tx = mgda(2)
    state = tx.init(PLAIN)
    with pytest.raises(ValueError, match=r"'w': expected shape \(2, 2, 3\).*got \(2, 3\)"):
        tx.update(PLAIN, state)
    other = mgda(2)  # as after a restart from a file
    with pytest.raises(ValueError, match="expected update.updates, state, params., or init before"):
        other.update(PLAIN, state)
    rows = {"w": jnp.ones((2, 2, 3))}
    close(tx.update(rows, state)[0]["w"], np.ones((2, 3)))
    close(other.update(rows, state, PLAIN)[0]["w"], np.ones((2, 3)))


def test_one_transformation_serves_parameters_of_several_shapes():
    tx = mgda(2)
    for shape in ((2, 3), (3,), (5,)):
        tx.init({"w": jnp.ones(shape)})
    for shape in ((2, 3), (3,)):
        assert tx.update({"w": jnp.ones((2, *shape))}, tx.init(PLAIN))[0]["w"].shape == shape


def test_the_jacobian_of_a_dict_of_losses_raises():
    def losses(params):
        return {"a": jnp.sum(params["w"]), "b": jnp.sum(params["w"] ** 2)}

    tx, jacobian = mgda(2), jax.jacrev(losses)(PLAIN)
    for params in (None, PLAIN):
        with pytest.raises(ValueError, match="expected the structure of params"):
            tx.update(jacobian, tx.init(PLAIN), params)


def test_a_missing_gradient_raises():
    params = {"w": jnp.ones(3), "v": jnp.ones(3)}
    with pytest.raises(ValueError, match="structure of params, no gradient at 'v'"):
        step(mgda(2), {"w": ROWS}, params)


def test_a_row_rule_cannot_scale_own_gradients():
    with pytest.raises(ValueError, match="scope: a RowRule has no weights"):
        aggregate(trimmed_mean(), 2, scope="all")
    with pytest.raises(ValueError, match="scope: a RowRule has no weights"):
        mgda_jax.multitask_value_and_grad(
            lambda p, x: x, lambda o, z, x: z, trimmed_mean(), 2, mode="parameters", scope="all"
        )


def test_another_structure_raises():
    tx = mgda(2)
    with pytest.raises(ValueError, match="expected the structure of params"):
        tx.update({"w": jnp.asarray(ROWS)}, tx.init({"w": jnp.ones(3)}), {"v": jnp.ones(3)})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mgda(0), "num_tasks must be an int >= 1"),
        (lambda: mgda(2, normalization="L2"), "normalization must be one of"),
        (lambda: mgda(2, method="qp"), "method must be one of"),
        (lambda: min_norm(max_steps=0), "max_steps must be an int >= 1"),
        (lambda: aggregate(uniform(), 2, scope="heads"), "scope: expected"),
        (lambda: aggregate(uniform, 2), "weighting: expected a Weighting"),
        (lambda: uniform(reduction="max"), "reduction must be"),
        (lambda: fixed([1.0, float("nan")]), "weights must be finite"),
        (lambda: aggregate(fixed([1.0]), 2).init(jnp.ones(3)), "expected 2 entries"),
    ],
)
def test_construction_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_rule_for_another_number_of_tasks_is_named():
    rule = uniform()
    broken = rule._replace(update=lambda state, **_: (jnp.ones(5), state))
    with pytest.raises(ValueError, match=r"weights of shape \(2,\), got \(5,\)"):
        step(aggregate(broken, 2, scope="shared"), {"w": ROWS}, {"w": np.ones(3, np.float32)})
