"""Diagnostics against float64 formulas on the rows themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import diagnostics, gramian

EPS = float(np.finfo(np.float32).eps)
run = jax.jit(lambda rows, weights: diagnostics(gramian(rows), weights))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("weight_scale", [1e-6, 1.0, 1e6])
def test_against_the_rows(scale, weight_scale):
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((4, 9)) * scale).astype(np.float32)
    weights = np.array([0.1, -0.4, 0.3, 0.2], np.float32) * np.float32(weight_scale)
    out = run(jnp.asarray(rows), jnp.asarray(weights))
    rows, weights = rows.astype(np.float64), weights.astype(np.float64)
    length = np.linalg.norm(rows, axis=1)
    cosines = rows @ rows.T / np.outer(length, length)
    direction = weights @ rows
    np.testing.assert_allclose(out.cosines, cosines, atol=8 * EPS)
    assert out.conflicts == np.sum(np.triu(cosines, 1) < 0)
    np.testing.assert_allclose(out.norms, length, rtol=8 * EPS)
    similarity = 2 * np.outer(length, length) / np.add.outer(length**2, length**2)
    np.testing.assert_allclose(out.magnitude_similarity, similarity, rtol=8 * EPS)
    norm = np.linalg.norm(direction)
    np.testing.assert_allclose(
        out.direction_cosines, rows @ direction / length / norm, atol=32 * EPS
    )
    np.testing.assert_allclose(out.direction_norm, norm, rtol=32 * EPS)
    np.testing.assert_allclose(out.stationarity, norm / length.max(), rtol=32 * EPS)


def test_zero_gradients_are_defined():
    out = run(jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(out.cosines, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(out.magnitude_similarity, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(out.direction_cosines, [0, 0])
    assert out.stationarity == 0 and out.direction_norm == 0 and out.conflicts == 0
    nothing = run(jnp.zeros((2, 2)), jnp.zeros(2))
    assert all(np.isfinite(leaf).all() for leaf in nothing)


def test_nan_is_not_hidden():
    out = run(jnp.array([[np.nan, 0.0], [3.0, 4.0]]), jnp.array([0.5, 0.5]))
    assert np.isnan(out.stationarity) and np.isnan(out.norms[0])


def test_wrong_weights():
    with pytest.raises(ValueError, match=r"weights: expected shape \(2,\), got \(3,\)"):
        diagnostics(jnp.eye(2), jnp.ones(3))
