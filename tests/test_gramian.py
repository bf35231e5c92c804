"""Gramian and weighted sum: against float64, over scales, dtypes and pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax._gramian import Gramian, as_gramian, gramian, norms, rescale, weighted_sum
from tests.half_precision import needs

EPS = float(np.finfo(np.float32).eps)
gramian_jit = jax.jit(gramian)
gramian_large = jax.jit(lambda rows, active: gramian(rows, active=active))


def dense(g: Gramian) -> np.ndarray:
    """The true Gramian in float64, exponent put back."""
    return np.asarray(g.matrix, np.float64) * 4.0 ** int(g.exponent)


def rows_of(rng, num_tasks, columns):
    return rng.standard_normal((num_tasks, columns)).astype(np.float32)


def relative_error(g: Gramian, rows: np.ndarray) -> float:
    """max |M − M*| / (‖g_s‖‖g_t‖), the only error a dot product can promise."""
    rows = rows.astype(np.float64)
    length = np.linalg.norm(rows, axis=1)
    return float(np.max(np.abs(dense(g) - rows @ rows.T) / np.outer(length, length)))


@pytest.mark.parametrize("exponent", [-100, -66, -20, 0, 20, 66, 100])
def test_every_scale_is_exact(exponent):
    rng = np.random.default_rng(0)
    rows = np.ldexp(rows_of(rng, 3, 12), exponent)
    tree = {"a": jnp.asarray(rows[:, :5]), "b": jnp.asarray(rows[:, 5:])}
    g = gramian_jit(tree)
    assert relative_error(g, rows) <= 4 * EPS
    assert 0.25 <= float(jnp.max(g.matrix)) < 1
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms(g), lengths, rtol=4 * EPS)


def test_scaling_changes_the_exponent_and_nothing_else():
    rows = jnp.asarray(rows_of(np.random.default_rng(1), 4, 9))
    near, far = gramian_jit(rows), gramian_jit(jnp.ldexp(rows, 50))
    np.testing.assert_array_equal(near.matrix, far.matrix)
    assert int(far.exponent) - int(near.exponent) == 50


def test_long_leaf_keeps_its_digits():
    # 300 000 columns: a plain float32 sum is several times worse than the chunked one.
    rows = rows_of(np.random.default_rng(2), 2, 300_001)
    assert relative_error(gramian_jit(jnp.asarray(rows)), rows) <= 2 * EPS


@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_leaves_of_every_shape_and_dtype_add_up(half):
    needs(half)
    rng = np.random.default_rng(3)
    tree = {
        "half": jnp.asarray(rows_of(rng, 3, 8).reshape(3, 2, 4), half),
        "brain": (jnp.asarray(rows_of(rng, 3, 6), jnp.bfloat16),),
        "scalar": jnp.asarray(rows_of(rng, 3, 1)[:, 0]),
        "empty": jnp.zeros((3, 0, 5)),
        "nothing": None,
        "integer": np.zeros((3, 4), jax.dtypes.float0),
        "complex": jnp.asarray(rows_of(rng, 3, 4) + 1j * rows_of(rng, 3, 4)),
    }
    parts = [
        np.asarray(tree["half"], np.float64).reshape(3, -1),
        np.asarray(tree["brain"][0], np.float64),
        np.asarray(tree["scalar"], np.float64)[:, None],
        np.asarray(tree["complex"].real, np.float64),
        np.asarray(tree["complex"].imag, np.float64),
    ]
    g = gramian(tree)
    assert g.matrix.dtype == jnp.float32
    assert relative_error(g, np.concatenate(parts, axis=1)) <= 4 * EPS
    total = weighted_sum(tree, jnp.array([0.5, 0.25, 0.25]))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), total)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), tree)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        rows = np.random.default_rng(4).standard_normal((3, 7))
        g = gramian({"a": jnp.asarray(rows), "b": jnp.zeros((3, 2), jnp.float32)})
        assert g.matrix.dtype == jnp.float64
        assert relative_error(g, rows) <= 4 * np.finfo(np.float64).eps


def test_low_precision_rows_keep_a_positive_semidefinite_gramian():
    rows = rows_of(np.random.default_rng(5), 1, 400)
    rows = np.repeat(rows, 6, axis=0) + 1e-2 * rows_of(np.random.default_rng(6), 6, 400)
    g = gramian(jnp.asarray(rows, jnp.bfloat16))
    assert np.linalg.eigvalsh(np.asarray(g.matrix, np.float64)).min() >= -4 * EPS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_is_seen_and_inactive_is_not(bad):
    rows = np.ones((3, 4), np.float32)
    rows[1, 2] = bad
    assert not np.isfinite(np.asarray(gramian(jnp.asarray(rows)).matrix)).all()
    active = jnp.array([True, False, True])
    g = gramian(jnp.asarray(rows), active=active)
    np.testing.assert_array_equal(dense(g), 4 * np.outer([1, 0, 1], [1, 0, 1]))
    total = weighted_sum(jnp.asarray(rows), jnp.array([0.5, 0.0, 0.5]), active=active)
    np.testing.assert_array_equal(total, np.ones(4))


def test_zero_rows_give_zero():
    g = gramian(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(g.matrix, np.zeros((2, 2)))
    assert int(g.exponent) == 0


@pytest.mark.parametrize("exponent", [-100, 0, 100])
def test_zero_and_tiny_leaves_do_not_spoil_the_others(exponent):
    rows = np.ldexp(rows_of(np.random.default_rng(8), 3, 6), exponent)
    g = gramian([jnp.zeros((3, 2)), jnp.asarray(rows), jnp.asarray(np.ldexp(rows, -20))])
    assert relative_error(g, np.concatenate([rows, np.ldexp(rows, -20)], axis=1)) <= 4 * EPS


@pytest.mark.parametrize(("common", "columns"), [(-30, 8), (0, 8), (60, 8), (0, 100_000)])
def test_every_row_has_all_its_digits_or_none(common, columns):
    """Norms 2^0 … 2^-70 of the longest: exact cosines, or a zero row throughout."""
    below = np.array([0, 20, 40, 50, 54, 70])
    rows = np.random.default_rng(9).standard_normal((6, columns))
    rows[:, :3] *= 1e-3
    rows = np.ldexp(rows / np.linalg.norm(rows, axis=1)[:, None], common - below[:, None])
    rows = rows.astype(np.float32)
    g = gramian_jit({"a": jnp.asarray(rows[:, :3]), "b": jnp.asarray(rows[:, 3:])})
    keep = below <= 50
    kept = Gramian(g.matrix[np.ix_(keep, keep)], g.exponent)
    assert relative_error(kept, rows[keep]) <= 4 * EPS
    np.testing.assert_array_equal(g.matrix[~keep], 0)
    np.testing.assert_array_equal(g.matrix[:, ~keep], 0)
    np.testing.assert_array_equal(norms(g)[~keep], 0)


@pytest.mark.parametrize(
    ("exponents", "active"),
    [
        ((-100, -100, -100), None),
        ((-45, -20, 0), None),  # the products of the first two rows underflow unscaled
        ((0, 0, 0), None),
        ((0, 0, -400), (True, True, False)),
        ((0, 0, -400), None),  # a zero row
        ((100, 100, 80), None),
    ],
)
def test_a_large_leaf_is_as_exact_at_every_scale(exponents, active):
    rows = rows_of(np.random.default_rng(12), 3, 100_000)
    rows = np.ldexp(rows, np.array(exponents)[:, None]).astype(np.float32)
    g = gramian_large(jnp.asarray(rows), None if active is None else jnp.array(active))
    keep = np.array(exponents) > -400
    kept = Gramian(g.matrix[np.ix_(keep, keep)], g.exponent)
    assert relative_error(kept, rows[keep]) <= 4 * EPS
    np.testing.assert_array_equal(g.matrix[~keep], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_large_leaf_keeps_what_is_not_finite(bad):
    rows = np.ones((3, 100_000), np.float32)
    rows[1, 70_000] = bad
    assert not np.isfinite(np.asarray(gramian_large(jnp.asarray(rows), None).matrix[1])).any()
    g = gramian_large(jnp.asarray(rows), jnp.array([True, False, True]))
    np.testing.assert_array_equal(dense(g), 1e5 * np.outer([1, 0, 1], [1, 0, 1]))
    none = gramian_large(jnp.asarray(rows), jnp.zeros(3, bool))
    np.testing.assert_array_equal(none.matrix, 0)
    assert int(none.exponent) == 0


def test_a_row_too_short_for_its_scale_keeps_a_nan():
    matrix = np.array([[1e-34, np.nan], [np.nan, 1.0]], np.float32)
    assert np.isnan(as_gramian(matrix).matrix[0, 1])


def test_denormal_rows_are_zero_rows():
    rows = np.full((2, 3), 1e-41, np.float32)
    np.testing.assert_array_equal(gramian_jit(jnp.asarray(rows)).matrix, 0)
    rows[1] = 1e-20
    g = gramian_jit(jnp.asarray(rows))
    np.testing.assert_array_equal(np.asarray(g.matrix) != 0, [[False, False], [False, True]])


def test_rescale_by_any_factor():
    rows = rows_of(np.random.default_rng(7), 3, 5)
    g = rescale(gramian(jnp.asarray(rows)), jnp.float32(3e-30))
    np.testing.assert_allclose(norms(g), 3e-30 * np.linalg.norm(rows, axis=1), rtol=8 * EPS)


def test_raw_array_is_rescaled_exactly():
    matrix = np.array([[4e-28, 1e-28], [1e-28, 9e-28]], np.float32)
    g = as_gramian(matrix)
    np.testing.assert_array_equal(np.asarray(dense(g), np.float32), matrix)
    assert as_gramian(g) is g


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "at least one leaf"),
        ({"w": jnp.zeros(())}, "'w': expected a leading task axis, got shape ()"),
        (
            {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros((3, 3))}},
            r"'b/c': expected a leading task axis of 2, got shape \(3, 3\)",
        ),
        ({"w": jnp.zeros((2, 3), jnp.int32)}, "'w': expected a floating dtype, got int32"),
        ({"w": "text"}, "'w': expected an array"),
    ],
)
def test_clear_errors(rows, message):
    with pytest.raises(ValueError, match=message.replace("()", r"\(\)")):
        gramian(rows)


@pytest.mark.parametrize("value", [jnp.zeros((2, 3)), jnp.zeros(4), jnp.zeros((2, 2), jnp.int32)])
def test_as_gramian_rejects(value):
    with pytest.raises(ValueError, match="gramian: expected"):
        as_gramian(value)
