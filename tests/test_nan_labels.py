"""A NaN label of one task stays in that task, in every entrance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import (
    aggregate,
    masked_mean,
    multitask_value_and_grad,
    per_task_decode,
    task_gradients,
)
from mgda_jax.oracle import Lean
from mgda_jax.weighting import min_norm

EPS = float(np.finfo(np.float32).eps)
Q = jnp.array([0.3, -0.2, 0.5])
NAN = jnp.full(3, jnp.nan)


def losses(params, labels):
    """The label enters before the mask, so task b's own gradient is 0 · NaN."""
    z = jnp.tanh(params["q"])
    return {
        "a": jnp.sum((params["a"] * z - 1) ** 2),
        "b": masked_mean((params["b"] * z - labels) ** 2, ~jnp.isnan(labels)),
        "c": jnp.sum((params["c"] * z + 1) ** 2),
    }


PARAMS = {"q": Q, "a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(3)}
SHARED = {"q": True, "a": False, "b": False, "c": False}
FORMS = {
    "dict": losses,
    "tuple": lambda p, y: tuple(losses(p, y).values()),
    "stack": lambda p, y: jnp.stack(list(losses(p, y).values())),
    "array": lambda p, y: jnp.array(list(losses(p, y).values())),
    "jit": jax.jit(losses),
}


@pytest.mark.parametrize(
    ("form", "pullbacks"),
    [("dict", "vmap"), ("dict", "map"), ("dict", "unroll")] + [(form, None) for form in FORMS],
)
def test_a_nan_label_stays_in_its_task(form, pullbacks):
    fn = task_gradients(FORMS[form], SHARED, pullbacks=pullbacks)
    _, clean = fn(PARAMS, jnp.zeros(3))
    active = jnp.array([True, False, True])
    for given in ({}, {"active": active}):
        _, grads = jax.jit(fn)(PARAMS, NAN, **given)
        for row in (0, 2):
            np.testing.assert_allclose(grads["q"][row], clean["q"][row], rtol=16 * EPS)
        assert np.all(np.isnan(grads["q"][1]))
        for name in "ac":
            np.testing.assert_allclose(grads[name], clean[name], rtol=16 * EPS)
        assert np.all(grads["b"] == 0) if given else np.all(np.isnan(grads["b"]))
    tx = aggregate(min_norm(), 3, SHARED, owner=lambda path: "abc".index(path))
    updates, state = tx.update(grads, tx.init(PARAMS), PARAMS, active=active)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((updates, state)))


def test_a_part_shared_by_some_tasks_only():
    """Two tasks share a tower of own parameters; the NaN arises in one of them."""

    def of_params(p, labels):
        tower = jnp.sin(p["t"] * p["q"])
        return jnp.sum(tower**2), jnp.sum(tower * labels), jnp.sum(p["q"] ** 2)

    params = {"q": Q, "t": jnp.ones(3)}
    fn = task_gradients(of_params, shared={"q": True, "t": False})
    _, clean = fn(params, jnp.zeros(3))
    _, grads = fn(params, NAN, active=jnp.array([True, False, True]))
    np.testing.assert_allclose(grads["q"][jnp.array([0, 2])], clean["q"][jnp.array([0, 2])])
    np.testing.assert_allclose(grads["t"], clean["t"], rtol=16 * EPS)


def test_custom_derivatives_and_loops_are_pulled_back_alike():
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))

    def of_params(p):
        z = sine(p["q"])
        z = jax.lax.scan(lambda c, _: (jnp.tanh(c) * p["a"], None), z, None, length=3)[0]
        z = jax.checkpoint(jnp.cos)(z)
        return {"a": jnp.sum(sine(z) ** 2), "b": jnp.sum(z * p["b"]), "c": 1.0 + jnp.zeros(())}

    params = {name: PARAMS[name] for name in "qab"}
    expected = jax.jacrev(of_params)(params)
    fn = task_gradients(of_params, shared={"q": True, "a": False, "b": False})
    _, grads = jax.jit(fn)(params)
    np.testing.assert_allclose(grads["q"], [expected[t]["q"] for t in "abc"], rtol=64 * EPS)
    for name in "ab":
        total = sum(expected[t][name] for t in "abc")
        np.testing.assert_allclose(grads[name], total, rtol=64 * EPS)


HEADS = {
    "a": lambda own, z, labels: jnp.sum((own * z - 1) ** 2),
    "b": lambda own, z, labels: masked_mean((own * z - labels) ** 2, ~jnp.isnan(labels)),
    "c": lambda own, z, labels: jnp.sum((own * z + 1) ** 2),
}


@pytest.mark.parametrize(
    "options",
    [dict(), dict(mode="exact"), dict(mode=Lean()), dict(every=2)],
)
def test_a_nan_label_stays_in_its_task_in_the_oracle(options):
    oracle = multitask_value_and_grad(
        lambda q, labels: jnp.tanh(q), per_task_decode(HEADS), min_norm(), 3, **options
    )
    own = {name: PARAMS[name] for name in "abc"}
    active = jnp.array([True, False, True])
    _, grads, state = oracle(Q, own, NAN, oracle.init(), active=active)
    _, expected, _ = oracle(Q, own, jnp.zeros(3), oracle.init(), active=active)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=16 * EPS), grads, expected)
    assert np.all(np.isfinite(state.task_weights)) and not np.any(grads[1]["b"])


def test_inactive_heads_of_an_unknown_layout_are_asked_for():
    def decode(own, zs, labels):
        return per_task_decode(HEADS)(own["heads"], zs, labels)

    oracle = multitask_value_and_grad(lambda q, _: jnp.tanh(q), decode, min_norm(), 3)
    own = {"heads": {name: PARAMS[name] for name in "abc"}}
    with pytest.raises(ValueError, match="own: with active expected .*own_layout"):
        oracle(Q, own, NAN, oracle.init(), active=jnp.array([True, False, True]))
    (_, _), (shared, _), _ = oracle(Q, own, jnp.zeros(3), oracle.init())
    assert np.all(np.isfinite(shared))
