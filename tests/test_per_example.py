"""Every example a task: Gramian, weights and direction of per-example gradients, never held."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import Weighting, multitask_value_and_grad
from mgda_jax.oracle import PerExample
from mgda_jax.weighting import min_norm, trimmed_mean
from tests.problems import errors
from tests.quick import quick_jit

EPS = float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(7)
matmul = functools.partial(jnp.matmul, precision="highest")


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def dense(params, example):
    """One bias, a matrix that is read twice, and one on the left."""
    z = jnp.tanh(matmul(example["x"], params["first"]) + params["bias"])
    z = jnp.tanh(matmul(matmul(z, params["square"]), params["square"]))
    return matmul(params["last"], z)


def convolution(params, example):
    """Rows of the kernel, and of a matrix that several positions read."""
    image = example["x"].reshape(1, 4, 4, 1)
    out = jax.lax.conv_general_dilated(
        image,
        params["kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    positions = jnp.tanh(out).reshape(9, 4)
    mixed = jnp.tanh(matmul(positions, params["mix"]))
    return matmul(mixed.reshape(-1), params["last"])


def scaled(fan_in, *shape):
    return normal(*shape) / fan_in**0.5


NETWORKS = {
    "dense": (
        dense,
        {
            "first": scaled(16, 16, 8),
            "bias": normal(8),
            "square": scaled(8, 8, 8),
            "last": scaled(8, 3, 8),
        },
    ),
    "convolution": (
        convolution,
        {"kernel": scaled(4, 2, 2, 1, 4), "mix": scaled(4, 4, 5), "last": scaled(45, 45, 3)},
    ),
}


def decode(own, zs, batch):
    del own
    return jnp.mean((zs - batch["y"]) ** 2, axis=1)


def batch_of(num_tasks):
    return {"x": normal(num_tasks, 16), "y": normal(num_tasks, 3)}


def keeping(rule):
    """The rule, with the Gramian that it has read in its state."""

    def init(num_tasks):
        return rule.init(num_tasks), jnp.zeros((num_tasks, num_tasks))

    def update(state, *, gramian, **given):
        scale = jnp.ldexp(jnp.ones(()), 2 * gramian.exponent)
        weights, own = rule.update(state[0], gramian=gramian, **given)
        return weights, (own, gramian.matrix * scale)

    return Weighting(init, update, rule.reads, rule.scope)


def inverse_norms():
    def update(state, *, gramian, active=None, **_):
        norms = jnp.sqrt(jnp.diagonal(gramian.matrix))
        inverse = jnp.where(norms > 0, 1 / norms, jnp.zeros_like(norms))
        return inverse / jnp.sum(inverse), state

    return Weighting(lambda num_tasks: (), update, frozenset({"gramian"}), "shared")


def oracle_of(encode, rule, num_tasks, **options):
    return multitask_value_and_grad(encode, decode, rule, num_tasks, mode=PerExample(), **options)


def per_example_gradients(encode, params, batch):
    """(T, P), in float64."""

    def loss(params, example):
        one = jax.tree.map(lambda leaf: leaf[None], example)
        return decode((), encode(params, example)[None], one)[0]

    rows = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, batch)
    flat = [np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(rows)]
    return np.concatenate(flat, axis=1)


def flat(gradient):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])


def close_to(gram, direction, weights, rows):
    """In eps, of the norms' product and of Σ w_t ‖g_t‖."""
    norms = np.linalg.norm(rows, axis=1)
    assert np.max(np.abs(gram - rows @ rows.T) / np.outer(norms, norms)) <= 16 * EPS
    assert np.linalg.norm(direction - weights @ rows) <= 16 * EPS * (weights @ norms)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_tasks, solves", [(8, True), (32, False)])
def test_it_is_the_rule_on_per_example_gradients(name, num_tasks, solves):
    encode, params = NETWORKS[name]
    batch = batch_of(num_tasks)
    rule = min_norm() if solves else inverse_norms()
    oracle = oracle_of(encode, keeping(rule), num_tasks)
    (losses, _), (gradient, _), state = quick_jit(oracle)(params, (), batch, oracle.init())
    rows = per_example_gradients(encode, params, batch)
    assert losses.shape == (num_tasks,)
    weights = np.asarray(state.task_weights, np.float64)
    close_to(state.weighting[1], flat(gradient), weights, rows)
    if solves:
        assert errors(rows, weights).kkt <= 32 * EPS
    else:
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(weights, 1 / norms / np.sum(1 / norms), rtol=32 * EPS)


def test_an_inactive_example_stays_out_with_its_nan():
    encode, params = NETWORKS["convolution"]
    oracle = oracle_of(encode, keeping(inverse_norms()), 8)
    batch = batch_of(8)
    spoilt = {"x": batch["x"].at[0].set(jnp.nan), "y": batch["y"].at[5].set(jnp.nan)}
    active = jnp.ones(8, bool).at[jnp.array([0, 5])].set(False)
    step = quick_jit(lambda active: oracle(params, (), spoilt, oracle.init(), active=active))
    _, (gradient, _), state = step(active)
    gram, weights = state.weighting[1], np.asarray(state.task_weights, np.float64)
    left = np.array([1, 2, 3, 4, 6, 7])
    rows = per_example_gradients(encode, params, batch)[left]
    close_to(np.asarray(gram)[np.ix_(left, left)], flat(gradient), weights[left], rows)
    assert not np.any(gram[0]) and not np.any(gram[:, 5]) and weights[0] == weights[5] == 0
    _, (gradient, _), state = step(jnp.zeros(8, bool))
    assert not np.any(flat(gradient)) and not np.any(state.weighting[1])


def test_neither_factor_of_a_dense_layer_leaves_the_range():
    """Inputs and output gradients between 1e-25 and 1e+25, of gradients of order one."""
    sizes = jnp.array([1e-25, 1.0, 1e25])
    given = {"x": normal(3, 4), "y": normal(3, 2)}

    def total(own, zs, batch):
        return jnp.sum(zs * batch["y"], axis=1) / sizes

    def encode(params, example):
        return matmul(example["x"], params)

    oracle = multitask_value_and_grad(encode, total, keeping(inverse_norms()), 3, mode=PerExample())
    batch = given | {"x": given["x"] * sizes[:, None]}
    _, (gradient, _), state = quick_jit(oracle)(normal(4, 2), (), batch, oracle.init())
    x, y = (np.asarray(given[name], np.float64) for name in "xy")
    rows = np.einsum("tk,tn->tkn", x, y).reshape(3, -1)
    close_to(state.weighting[1], flat(gradient), np.asarray(state.task_weights, np.float64), rows)


def test_what_does_not_fit_is_refused():
    encode, params = NETWORKS["dense"]
    with pytest.raises(ValueError, match="mode: a RowRule needs the rows"):
        oracle_of(encode, trimmed_mean(), 8)
    oracle = oracle_of(encode, min_norm(), 8)
    with pytest.raises(ValueError, match=r"batch at 'y': .* expected shape \(8, ...\), .* \(3,\)"):
        oracle(params, (), {"x": normal(8, 16), "y": normal(3)}, oracle.init())
    oracle = oracle_of(encode, min_norm(), 8, axis_name="data")
    with pytest.raises(ValueError, match="axis_name: with mode PerExample"):
        oracle(params, (), batch_of(8), oracle.init())
