"""The Gramian formed layer by layer against that of stacked rows, for encoders of every make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax._gramian import norms
from mgda_jax.oracle import Exact, Lean

EPS = float(np.finfo(np.float32).eps)
TASKS = 3
RNG = np.random.default_rng(4)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


X = normal(5, 6)
W, V, B = normal(6, 4), normal(4, 4), normal(4)


def matmul(x, w):
    return jnp.matmul(x, w, precision="highest")


@jax.custom_vjp
def clipped(z):
    return jnp.clip(z, -1, 1)


clipped.defvjp(lambda z: (clipped(z), z), lambda z, dz: (jnp.where(jnp.abs(z) < 2, dz, 0.5 * dz),))


def convolved(p, x):
    image = x.reshape(5, 2, 3, 1)
    out = jax.lax.conv_general_dilated(
        image, p, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return jnp.sum(jnp.tanh(out), axis=(1, 2))


def scanned(p, x):
    def layer(z, w):
        return jnp.tanh(matmul(z, w)), None

    return jax.lax.scan(layer, x[:, :4], p)[0]


def one_unread(p, x):
    """A parameter that nothing reads, one whose reader nothing reads, and a count beside z."""
    del x
    unread = jnp.sin(p["unread"])
    del unread
    return {"z": jnp.tanh(matmul(X, p["w"])), "count": jnp.int32(3)}


EMPTY = {"w": W, "none": W[:0]}
ENCODERS = {
    "dense": (lambda p, x: matmul(jax.nn.relu(matmul(x, p[0]) + p[2][None]), p[1]), (W, V, B)),
    "matrix on the left": (lambda p, x: matmul(p.T, x.T).T, W),
    "used twice": (lambda p, x: matmul(jnp.tanh(matmul(x[:, :4], p)), p), V),
    "read as it is": (lambda p, x: x[:, :4] * p["b"][None] + p["b"][None] ** 2, {"b": B}),
    "empty": (lambda p, x: jnp.tanh(matmul(x, p["w"])) + matmul(x[:, :0], p["none"]), EMPTY),
    "convolution": (convolved, normal(2, 2, 1, 4)),
    "scan": (scanned, jnp.stack([V, V.T])),
    "checkpoint": (jax.checkpoint(lambda p, x: jnp.tanh(matmul(x, p))), W),
    "custom derivative": (lambda p, x: clipped(matmul(x, p)), W),
    "not read": (one_unread, {"w": W, "unread": B, "absent": B}),
    "a constant": (lambda p, x: {"z": x, "p": p}, B),
    "complex": (lambda p, x: jnp.real(matmul(x.astype(p.dtype), p)), W + 1j * W[::-1]),
    "bfloat16": (lambda p, x: jnp.tanh(x.astype(p.dtype) @ p), W.astype(jnp.bfloat16)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_gramian_and_the_combination_are_those_of_stacked_rows(name, monkeypatch):
    encode, params = ENCODERS[name]
    # Numbers a block: the matrices above take several, and a rest.
    monkeypatch.setattr("mgda_jax._layerwise._BLOCK", 40)
    active = jnp.array([True, False, True])  # the other task's cotangent is NaN

    @jax.jit
    def both(params, key):
        found = []
        for mode in (Exact("unroll"), Lean()):
            encoder = mode.at(encode, params, X, num_tasks=TASKS, has_aux=False, axis_name=None)
            dzs = jax.tree.map(functools.partial(_cotangent, key), encoder.zs)
            gram = encoder.gramian(encoder.rows(jax.tree.map(_spoilt, dzs)), active)
            combined = encoder.combine(dzs, None, jnp.array([0.5, 0.2, 0.3]), None)
            found.append((encoder.zs, gram, combined))
        return found

    (zs, gram, combined), (lean_zs, lean, lean_combined) = both(params, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, lean_zs, zs)
    eps = float(jnp.finfo(jax.tree.leaves(params)[0].dtype).eps)
    scale = 4.0 ** float(lean.exponent - gram.exponent)
    np.testing.assert_allclose(lean.matrix * scale, gram.matrix, atol=64 * eps)
    assert norms(gram)[0] > 0 and norms(gram)[1] == 0 and norms(gram)[2] > 0
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.complex64),
            np.asarray(b, np.complex64),
            atol=64
            * eps
            * max(1e-9, float(np.max(np.abs(np.asarray(b, np.complex64)), initial=0))),
        ),
        lean_combined,
        combined,
    )


def _cotangent(key, zs):
    if not jnp.issubdtype(zs.dtype, jnp.inexact):
        return np.zeros(zs.shape, jax.dtypes.float0)
    return jax.random.normal(key, zs.shape, zs.dtype)


def _spoilt(dz):
    return dz if dz.dtype == jax.dtypes.float0 else dz.at[1].set(jnp.nan)


WIDE, FEW = normal(64, 32), normal(2, 64)
LEFT = (((0,), (1,)), ((), ()))
FEW_EXAMPLES = {
    "matrix on the right": (lambda p: matmul(FEW, p), WIDE),
    "matrix on the left": (lambda p: jax.lax.dot_general(p, FEW, LEFT, precision="highest"), WIDE),
    "two dimensions of examples": (lambda p: matmul(FEW.reshape(1, 2, 64), p), WIDE),
    "of equal examples": (lambda p: matmul(jnp.stack([FEW[0], FEW[0]]), p), WIDE),
}


@pytest.mark.parametrize("name", FEW_EXAMPLES)
def test_few_examples_form_rows_as_short_as_they_are_many(name, monkeypatch):
    encode, params = FEW_EXAMPLES[name]
    monkeypatch.setattr("mgda_jax._layerwise._BLOCK", 150)
    dzs = normal(TASKS, *jax.eval_shape(encode, params).shape)

    def gram(mode, dzs):
        encoder = mode.at(
            lambda p, _: encode(p), params, X, num_tasks=TASKS, has_aux=False, axis_name=None
        )
        return encoder.gramian(encoder.rows(dzs), None)

    short, long = jax.jit(functools.partial(gram, Lean())), functools.partial(gram, Exact("unroll"))
    assert " qr" in str(jax.make_jaxpr(short)(dzs))
    found, expected = short(dzs), jax.jit(long)(dzs)
    scale = 4.0 ** float(found.exponent - expected.exponent)
    np.testing.assert_allclose(found.matrix * scale, expected.matrix, atol=64 * EPS)
    # An example's NaN is in every task's sum.
    assert not np.any(np.isfinite(short(dzs.at[:, 0].set(jnp.nan)).matrix))


@pytest.mark.parametrize("exponent", [-110, 110])
def test_few_examples_of_any_scale_have_the_same_digits(exponent):
    @jax.jit
    def gram(factor, dzs):
        encoder = Lean().at(
            lambda p, _: matmul(factor, p), WIDE, X, num_tasks=TASKS, has_aux=False, axis_name=None
        )
        return encoder.gramian(encoder.rows(dzs), None)

    dzs = normal(TASKS, 2, 32)
    one = gram(FEW, dzs)
    other = gram(jnp.ldexp(FEW, exponent), jnp.ldexp(dzs, -exponent // 4))
    np.testing.assert_array_equal(other.matrix, one.matrix)
    assert other.exponent - one.exponent == exponent + -exponent // 4


@pytest.mark.parametrize("cancelled", [1.0, 1e-2, 1e-4])
def test_what_cancels_over_the_examples_keeps_the_digits_that_a_product_has(cancelled):
    # Two examples that differ by a little, cotangents that differ in sign: the sum is small.
    near = FEW.at[1].set(FEW[0] + cancelled * FEW[1])
    dzs = normal(TASKS, 2, 32)
    dzs = dzs.at[:, 1].set(-dzs[:, 0])

    @jax.jit
    def gram(dzs):
        encoder = Lean().at(
            lambda p, _: matmul(near, p), WIDE, X, num_tasks=TASKS, has_aux=False, axis_name=None
        )
        return encoder.gramian(encoder.rows(dzs), None)

    found = gram(dzs)
    rows = np.einsum("bi,tbo->tio", np.float64(near), np.float64(dzs)).reshape(TASKS, -1)
    exact = rows @ rows.T
    matrix = np.float64(found.matrix) * 4.0 ** float(found.exponent)
    # A row is right to eps ‖F‖ ‖D_t‖, with or without a factorisation of F.
    lengths = np.sqrt(np.diagonal(exact))
    bound = np.linalg.norm(near) * np.linalg.norm(dzs.reshape(TASKS, -1), axis=1)
    atol = 8 * EPS * (np.outer(lengths, bound) + np.outer(bound, lengths))
    assert np.all(np.abs(matrix - exact) <= atol)
