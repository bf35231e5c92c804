"""FAMO's extra argument, the previous batch's losses, through both ways into a training step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax import aggregate, multitask_value_and_grad
from mgda_jax.weighting import famo

EPS = float(jnp.finfo(jnp.float32).eps)
BATCHES = jax.random.normal(jax.random.key(0), (4, 8, 3))
TARGETS = jnp.stack([jnp.sin(BATCHES.sum(-1)), jnp.cos(2 * BATCHES.sum(-1))], axis=-1)
DATA = (BATCHES, TARGETS)


def losses_fn(kernel, batch):
    x, y = batch
    return jnp.mean((jnp.tanh(x @ kernel)[:, None] - y) ** 2, axis=0) + jnp.array([0.1, 1.0])


def reference(kernel, learning_rate):
    """The loop as the paper writes it: step on a batch, look at it again, move the logits."""
    rule, state = famo(), famo().init(2)
    trail = []
    previous = losses_fn(kernel, jax.tree.map(lambda x: x[0], DATA))
    for k in range(4):
        batch = jax.tree.map(lambda x, k=k: x[k], DATA)
        losses, jacobian = losses_fn(kernel, batch), jax.jacrev(losses_fn)(kernel, batch)
        weights, state = rule.update(state, losses=losses, previous_losses=previous)
        kernel = kernel - learning_rate * weights @ jacobian
        previous = losses_fn(kernel, batch)
        trail.append(weights)
    return kernel, jnp.stack(trail)


def batch_pairs():
    last = jax.tree.map(lambda x: jnp.concatenate([x[:1], x[:-1]]), DATA)
    return DATA, last


def test_through_the_transformation():
    tx = optax.chain(aggregate(famo(), 2), optax.sgd(0.5))
    kernel = jnp.ones(3)

    def step(carry, batches):
        kernel, state = carry
        batch, last = batches
        updates, state = tx.update(
            jax.jacrev(losses_fn)(kernel, batch),
            state,
            kernel,
            losses=losses_fn(kernel, batch),
            previous_losses=losses_fn(kernel, last),
        )
        weights = optax.tree.get(state, "task_weights")
        return (optax.apply_updates(kernel, updates), state), weights

    (got, _), trail = jax.lax.scan(step, (kernel, tx.init(kernel)), batch_pairs())
    expected, weights = reference(kernel, 0.5)
    chex.assert_trees_all_close((trail, got), (weights, expected), rtol=64 * EPS)
    assert not np.allclose(weights[1], weights[2], rtol=1e-4)


def test_through_the_oracle():
    def encode(kernel, batch):
        return jnp.tanh(batch[0] @ kernel)

    def decode(own, zs, batch):
        del own
        return jnp.mean((zs - batch[1].T) ** 2, axis=1) + jnp.array([0.1, 1.0])

    oracle = multitask_value_and_grad(encode, decode, famo(), 2)
    kernel = jnp.ones(3)

    def step(carry, batches):
        kernel, state = carry
        batch, last = batches
        _, (gradient, _), state = oracle(
            kernel, (), batch, state, previous_losses=losses_fn(kernel, last)
        )
        return (kernel - 0.5 * gradient, state), state.task_weights

    (got, _), trail = jax.lax.scan(step, (kernel, oracle.init()), batch_pairs())
    expected, weights = reference(kernel, 0.5)
    chex.assert_trees_all_close((trail, got), (weights, expected), rtol=64 * EPS)


def test_forgetting_the_previous_losses_says_so():
    tx = aggregate(famo(), 2)
    kernel = jnp.ones(3)
    with pytest.raises(ValueError, match="previous_losses"):
        tx.update(jnp.ones((2, 3)), tx.init(kernel), kernel, losses=jnp.ones(2))
