"""`branched` against the oracle's exact mode; nothing that encode reads is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import (
    branch,
    branch_probe,
    branched,
    multitask_value_and_grad,
    per_task_decode,
)
from mgda_jax import weighting as rules
from mgda_jax.oracle import Exact
from tests.branched_model import (
    BATCH,
    EPS,
    GRAMIAN_RULES,
    HEADS,
    NAMES,
    OWN,
    SHARED,
    assert_close,
    encode,
    losses_of,
)

DECODE = per_task_decode(HEADS)


def total(shared, own, probe, rule, active=None, **options):
    layer = branched(encode, NAMES, rule, has_aux=True, **options)
    copies, statistics = layer(shared, BATCH, active=active, probe=probe)
    losses = losses_of(copies, own, BATCH)
    counted = losses.values() if active is None else [losses[n] for n in NAMES if active[n]]
    return sum(counted), (losses, statistics)


def oracle_of(rule, **options):
    def decode(own, zs, batch):
        return DECODE(own, zs, batch), None

    return multitask_value_and_grad(
        encode, decode, rule, 3, has_aux=True, scope="shared", **options
    )


@pytest.mark.parametrize("rule", GRAMIAN_RULES.values(), ids=GRAMIAN_RULES)
def test_every_gramian_rule_gives_what_the_exact_oracle_gives(rule):
    oracle = oracle_of(rule, mode="parameters")

    def both(shared, own):
        grad = jax.grad(total, argnums=(0, 1, 2), has_aux=True)
        grads, (losses, statistics) = grad(shared, own, branch_probe(NAMES, rule), rule)
        (values, aux), gradients, state = oracle(shared, own, BATCH, oracle.init())
        actual = (grads[:2], losses, statistics)
        return actual, (gradients, values, aux[0]), grads[2].task_weights, state.task_weights

    actual, expected, weights, oracle_weights = jax.jit(both)(SHARED, OWN)
    assert_close(actual, expected)
    np.testing.assert_allclose(weights, oracle_weights, atol=16 * EPS)


@pytest.mark.parametrize("options", [{"mode": "representation"}, {"mode": Exact("map")}], ids=str)
def test_options_are_those_of_the_oracle(options):
    rule = rules.min_norm()
    oracle = oracle_of(rule, **options)
    active = {"a": True, "b": False, "c": True}
    grads = jax.grad(total, argnums=(0, 1), has_aux=True)(
        SHARED, OWN, None, rule, active, **options
    )[0]
    assert_close(grads, oracle(SHARED, OWN, BATCH, oracle.init(), active=active)[1])


ROWS = jnp.array([[1.0, 0.0], [0.0, 6.0]])
WEIGHTS = jnp.array([36.0, 1.0]) / 37


def test_what_encode_closes_over_and_its_other_arguments_get_the_weighted_gradient():
    def loss(w, x, closed):
        layer = branched(lambda w, x: w * x + closed, 2)
        a, b = layer(w, x)
        return a[0] + 2 * b[1]

    x = jnp.array([1.0, 3.0])
    dw, dx, dclosed = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(jnp.ones(2), x, jnp.zeros(2))
    np.testing.assert_allclose(dw, WEIGHTS @ ROWS, rtol=4 * EPS)
    combined = WEIGHTS * jnp.array([1.0, 2.0])
    np.testing.assert_allclose(dx, combined, rtol=4 * EPS)
    np.testing.assert_allclose(dclosed, combined, rtol=4 * EPS)


def closing(w, ids, key, factor):
    def encode(w):
        return w[ids] * factor + jax.random.normal(key, (2,))

    a, b = branched(encode, 2)(w)
    return a[0] + 2 * b[1]


def test_what_encode_closes_over_may_be_of_any_dtype_under_every_transformation():
    ids, keys = jnp.array([[0, 1], [1, 0]]), jax.random.split(jax.random.key(0))
    given = (jnp.ones((2, 2)), ids, keys, jnp.array([1.0, 3.0]))
    grads = jax.vmap(jax.grad(closing, argnums=(0, 3)))(*given)
    np.testing.assert_allclose(grads[0], [[0.8, 0.4], [1.2, 2.4]], rtol=4 * EPS)
    np.testing.assert_allclose(grads[1], [1.2, 1.2], rtol=4 * EPS)

    def scanned(w, factor, function):
        given = (w, ids, keys, factor)
        return jax.lax.scan(lambda c, one: (c + function(*one), None), jnp.zeros(()), given)[0]

    for function in (closing, jax.checkpoint(closing)):
        again = jax.grad(scanned, argnums=(0, 1))(given[0], given[3], function)
        assert_close(again, grads)


def test_a_nan_of_an_inactive_task_reaches_no_gradient():
    def loss(w, x):
        a, b = branched(lambda w, x: w * x, 2)(w, x, active=jnp.array([True, False]))
        return a[0] + jnp.nan * b[1]

    for gradient in jax.grad(loss, argnums=(0, 1))(jnp.ones(2), jnp.ones(2)):
        np.testing.assert_array_equal(gradient, [1.0, 0.0])


def test_flags_integers_and_keys_are_arguments_like_any_other():
    def encode(model, x, ids, key, train):
        noise = jax.random.normal(key, (2,)) if train else jnp.zeros(2)
        return {"h": model["act"](model["w"] * x[ids] + noise), "ids": ids, "key": key}

    def loss(w, train):
        model = {"w": w, "act": jnp.sin, "table": jnp.arange(2), "bias": None}
        a, b = branched(encode, 2)(model, jnp.ones(2), jnp.array([1, 0]), jax.random.key(0), train)
        assert a["ids"].dtype == jnp.int32 and b["key"].dtype == jax.random.key(0).dtype
        return a["h"][0] + b["h"][1]

    gradient = jax.jit(jax.grad(loss), static_argnums=1)(jnp.zeros(2), False)
    np.testing.assert_allclose(gradient, [0.5, 0.5], rtol=4 * EPS)
    assert np.isfinite(jax.grad(loss)(jnp.zeros(2), True)).all()


def test_aux_carries_no_gradient_in_either_mode():
    for mode in ("parameters", "representation"):
        layer = branched(lambda w: (w, jnp.sum(w**2)), 2, has_aux=True, mode=mode)

        def loss(w, layer=layer):
            (a, b), aux = layer(w)
            return a[0] + b[0] + aux

        np.testing.assert_allclose(jax.grad(loss)(jnp.ones(2)), [1.0, 0.0], rtol=4 * EPS)


def test_encode_runs_once_a_step():
    calls = []
    layer = branched(lambda w: calls.append(1) or w, 3)
    jax.grad(lambda w: sum(jnp.sum(copy) for copy in layer(w)))(jnp.ones(2))
    assert len(calls) == 1


def test_parameters_and_representation_differ_where_the_encoder_bends():
    def loss(w, layer):
        a, b = layer(w)
        return a[0] + 2 * b[1]

    x = jnp.array([1.0, 3.0])
    exact = jax.grad(loss)(jnp.ones(2), branched(lambda w: w * x, 2))
    bound = jax.grad(loss)(jnp.ones(2), branched(lambda w: w * x, 2, mode="representation"))
    layer = jax.grad(loss)(jnp.ones(2), lambda w: branch(w * x, 2))
    np.testing.assert_array_equal(bound, layer)
    np.testing.assert_allclose(bound, jnp.array([0.8, 0.2]) @ ROWS, rtol=4 * EPS)
    np.testing.assert_allclose(exact, WEIGHTS @ ROWS, rtol=4 * EPS)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="mode: expected one of"):
        branched(encode, 2, mode="per")
    with pytest.raises(ValueError, match="mode='exact'"):
        branched(encode, 2, rules.trimmed_mean())
    with pytest.raises(ValueError, match="branched: shared: expected a floating leaf"):
        branched(lambda w: w, 2)(jnp.arange(2))
    with pytest.raises(ValueError, match="branched: z: expected a floating leaf"):
        branched(lambda w: jnp.argmax(w), 2)(jnp.ones(2))
    with pytest.raises(ValueError, match="mode: branched takes 'exact'"):
        branched(encode, 2, mode="per_task")
