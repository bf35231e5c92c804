"""Both oracle modes on real modules with BatchNorm and dropout: NNX and Linen.

The statistics and the masks must be drawn once a step and shared by all tasks,
and the gradients must equal those of separate per-task passes with the same draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from mgda_jax import multitask_value_and_grad, per_task_decode
from mgda_jax.weighting import min_norm
from tests.problems import reference
from tests.pytrees import flat_rows

EPS = float(np.finfo(np.float32).eps)
TOL = 512 * EPS
NAMES = ("left", "right")
rng = np.random.default_rng(0)
BATCH = {
    "x": jnp.asarray(rng.standard_normal((8, 5)), jnp.float32),
    "left": jnp.asarray(rng.standard_normal(8), jnp.float32),
    "right": jnp.asarray(rng.standard_normal(8), jnp.float32),
}


@pytest.fixture(autouse=True)
def flax_promotes():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class NnxEncoder(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(5, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.dense(x))))


class LinenEncoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Dense(6)(x))
        return nn.Dropout(0.5, deterministic=False)(nn.relu(x))


class LinenHead(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(1)(z)[:, 0]


def nnx_model():
    """(encode, heads, shared parameters, own parameters); aux is the new mutable state."""
    graph, params, rest = nnx.split(NnxEncoder(nnx.Rngs(0)), nnx.Param, ...)

    def encode(params, batch):
        module = nnx.merge(graph, params, rest, copy=True)
        z = module(batch["x"])
        return z, nnx.state(module, nnx.BatchStat)

    heads, own = {}, {}
    for seed, name in enumerate(NAMES):
        head_graph, own[name] = nnx.split(nnx.Linear(6, 1, rngs=nnx.Rngs(seed + 1)))

        def head(own, z, batch, name=name, head_graph=head_graph):
            out = nnx.merge(head_graph, own, copy=True)(z)[:, 0]
            return jnp.mean((out - batch[name]) ** 2), jnp.mean(out)

        heads[name] = head
    return encode, heads, params, own


def linen_model():
    module, head_module = LinenEncoder(), LinenHead()
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, BATCH["x"])
    shared = variables["params"]

    def encode(shared, batch):
        z, updated = module.apply(
            {"params": shared, "batch_stats": variables["batch_stats"]},
            batch["x"],
            rngs={"dropout": keys["dropout"]},
            mutable=["batch_stats"],
        )
        return z, updated["batch_stats"]

    heads, own = {}, {}
    for seed, name in enumerate(NAMES):
        own[name] = head_module.init(jax.random.key(seed + 2), jnp.ones((1, 6)))["params"]

        def head(own, z, batch, name=name):
            out = head_module.apply({"params": own}, z)
            return jnp.mean((out - batch[name]) ** 2), jnp.mean(out)

        heads[name] = head
    return encode, heads, shared, own


@pytest.mark.parametrize("model", [nnx_model, linen_model])
def test_modes_against_separate_passes(model):
    encode, heads, shared, own = model()

    def loss(shared, own, name):
        z, _ = encode(shared, BATCH)
        return heads[name](own[name], z, BATCH)[0]

    def loss_of_z(z, name):
        return heads[name](own[name], z, BATCH)[0]

    z, statistics = encode(shared, BATCH)
    grads = {name: jax.grad(loss, argnums=(0, 1))(shared, own, name) for name in NAMES}
    rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(grads[n][0] for n in NAMES))
    z_rows = jnp.stack([jax.grad(loss_of_z)(z, name) for name in NAMES])

    for mode, read in (("parameters", rows), ("representation", z_rows)):
        oracle = multitask_value_and_grad(
            encode, per_task_decode(heads, has_aux=True), min_norm(), 2, mode=mode, has_aux=True
        )
        (losses, aux), (shared_grads, own_grads), state = jax.jit(oracle)(
            shared, own, BATCH, oracle.init()
        )
        weights = reference(flat_rows(read))
        np.testing.assert_allclose(state.task_weights, weights, atol=TOL)
        expected = weights @ flat_rows(rows)
        actual = flat_rows(jax.tree.map(lambda leaf: leaf[None], shared_grads))[0]
        np.testing.assert_allclose(actual, expected, atol=TOL * np.abs(expected).max())
        for name in NAMES:
            np.testing.assert_allclose(losses[name], loss(shared, own, name), rtol=TOL)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=TOL),
                own_grads[name],
                grads[name][1][name],
            )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=TOL), aux[0], statistics)
        assert set(aux[1]) == set(NAMES)
