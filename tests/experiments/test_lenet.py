"""The paper's LeNet: parameter counts, the two forms of its convolution, dropout."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from experiments.models.convolution import conv_pool_lax, conv_pool_matmul
from experiments.models.lenet import SMALL, LeNetSize, lenet


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_parameter_counts_are_the_papers():
    encoder, head = lenet(LeNetSize())
    assert count(jax.eval_shape(encoder.init, jax.random.key(0))) == 21_330
    assert count(jax.eval_shape(head.init, jax.random.key(0))) == 3_060


@pytest.mark.parametrize("form", [conv_pool_lax, conv_pool_matmul])
@pytest.mark.parametrize("shape", [(10, 12, 3, 5, 3), (6, 8, 2, 3, 5)])
def test_conv_pool_is_the_correlation_and_its_maximum(form, shape):
    height, width, channels, rows, columns = shape
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, height, width, channels))
    kernel = rng.normal(size=(rows, columns, channels, 4))
    bias = rng.normal(size=4)
    got = jax.jit(form)(*(jnp.asarray(a, jnp.float32) for a in (images, kernel, bias)))
    for n in range(2):
        for f in range(4):
            out = correlate(images[n], kernel[..., f], "valid")[..., 0] + bias[f]
            pooled = out.reshape(out.shape[0] // 2, 2, out.shape[1] // 2, 2).max((1, 3))
            scale = np.abs(images).max() * np.abs(kernel).sum((0, 1, 2)).max()
            tolerance = 4 * np.finfo(np.float32).eps * scale
            np.testing.assert_allclose(got[n, ..., f], pooled, rtol=0, atol=tolerance)


def test_both_forms_have_the_same_gradient():
    keys = jax.random.split(jax.random.key(1), 4)
    images = jax.random.normal(keys[0], (3, 8, 8, 2))
    kernel = jax.random.normal(keys[1], (3, 3, 2, 4))
    cotangent = jax.random.normal(keys[2], (3, 3, 3, 4))

    @jax.jit
    def gradients():
        bias = jax.random.normal(keys[3], (4,))
        return [
            jax.vjp(form, images, kernel, bias)[1](cotangent)
            for form in (conv_pool_lax, conv_pool_matmul)
        ]

    one, other = gradients()
    # Sums of up to 27 products of numbers up to about 4.
    tolerance = 27 * 16 * float(jnp.finfo(jnp.float32).eps)
    chex.assert_trees_all_close(one, other, rtol=0, atol=tolerance)


def test_conv_pool_matmul_refuses_sides_it_cannot_block():
    with pytest.raises(ValueError, match="even image sides and odd kernel sides"):
        conv_pool_matmul(jnp.zeros((1, 7, 8, 1)), jnp.zeros((3, 3, 1, 1)), jnp.zeros(1))


def test_dropout_is_standard():
    """Rescaled by 1/(1 − p), drawn per example and channel, absent without a key."""
    encoder, head = lenet(LeNetSize(dropout=0.5))
    images = jnp.tile(jax.random.normal(jax.random.key(0), (1, 28, 28, 1)), (512, 1, 1, 1))
    params, head_params = (jax.jit(m.init)(jax.random.key(1)) for m in (encoder, head))
    apply, apply_head = jax.jit(encoder.apply), jax.jit(head.apply)
    plain = apply(params, images, None)
    assert jnp.ptp(plain, axis=0).max() == 0
    dropped = apply(params, images, jax.random.key(2))
    assert len(np.unique(np.asarray(dropped), axis=0)) > 500  # not one mask for the batch
    np.testing.assert_array_equal(dropped, apply(params, images, jax.random.key(2)))
    # The output layer is linear in the hidden units, so dropout leaves its mean in place.
    keys = jax.random.split(jax.random.key(4), 4)
    logits = jnp.concatenate([apply_head(head_params, plain, key) for key in keys])
    error = logits.mean(0) - apply_head(head_params, plain, None)[0]
    assert jnp.all(jnp.abs(error) < 5 * logits.std(0) / np.sqrt(len(logits)))


def test_small_size_fits_the_digits():
    encoder, _ = lenet(SMALL)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    z = jax.eval_shape(encoder.apply, params, jnp.zeros((2, 16, 16, 1)), None)
    assert z.shape == (2, SMALL.features)
