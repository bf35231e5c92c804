"""IMTL-G, IMTL, ConFIG and Aligned-MTL against numpy on the rows: lstsq, pinv, svd."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax._gramian import gramian
from mgda_jax.weighting import aligned_mtl, config, imtl, imtl_g
from tests.problems import FAMILIES, disturb, make

EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}
TASKS = 6
# Gramians whose smallest eigenvalue on unit rows is far above rounding in float32.
FULL_RANK = ("gaussian", "realistic", "realistic_2^-66", "realistic_2^40", "orthogonal",
             "spread_1e4", "spread_1e8", "cosine_0.99")  # fmt: skip


@functools.cache
def problems():
    """Every family, two seeds, (N, T, P) padded to one width."""
    names = [name for name in FAMILIES for _ in range(2)]
    rows = [make(name, TASKS, k % 2) for k, name in enumerate(names)]
    return names, np.stack([np.pad(r, ((0, 0), (0, 16 - r.shape[1]))) for r in rows])


@functools.cache
def solve(factory, dtype="float32", **options):
    """Weights (N, T) in float64 on every problem, from one program."""
    _, rows = problems()
    with jax.enable_x64(dtype == "float64"):
        rule = factory(**options)

        def run(rows):
            return rule.update(rule.init(TASKS), gramian=gramian(rows))[0]

        weights = jax.jit(jax.vmap(run))(jnp.asarray(rows, dtype))
        assert weights.dtype == dtype
        return np.asarray(weights, np.float64)


def each(factory, dtype, families, **options):
    names, rows = problems()
    for name, g, w in zip(names, rows, solve(factory, dtype, **options), strict=True):
        if name in families:
            # Powers of two, so that nothing below squares to zero.
            scale = 2.0 ** np.round(np.log2(np.linalg.norm(g, axis=1).max()))
            yield name, g / scale, w


def unit_rows(rows):
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / norms, norms[:, 0]


def papers_imtl_g(rows):
    """α_{2:} = g_1 Uᵀ (D Uᵀ)⁻¹, α_1 = 1 − Σ α_{2:}."""
    u, _ = unit_rows(rows)
    d, u = rows[0] - rows[1:], u[0] - u[1:]
    rest = np.linalg.lstsq((d @ u.T).T, u @ rows[0], rcond=None)[0]
    return np.concatenate([[1 - rest.sum()], rest])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_imtl_g_is_the_papers_closed_form(dtype):
    # The closed form itself loses the digits of a spread of 1e8.
    families = ("gaussian", "realistic", "orthogonal")
    families += ("spread_1e4", "cosine_0.99") if dtype == "float64" else ()
    for name, rows, weights in each(imtl_g, dtype, families):
        expected = papers_imtl_g(rows)
        np.testing.assert_allclose(
            weights, expected, rtol=0, atol=1e4 * EPS[dtype] * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_imtl_g_projects_equally_wherever_that_is_possible(dtype):
    """Also on duplicates, dependent rows and opposed pairs, where the projections are zero."""
    excluded = {"zero_row"} | ({"vandermonde"} if dtype == "float32" else set())
    for name, rows, weights in each(imtl_g, dtype, set(FAMILIES) - excluded):
        u, norms = unit_rows(rows)
        projections = u @ (weights @ rows)
        size = np.abs(weights) @ norms
        assert np.ptp(projections) < 64 * TASKS * EPS[dtype] * size, name
        if weights.any():
            assert abs(weights.sum() - 1) < 16 * EPS[dtype] * np.abs(weights).sum()


def test_imtl_g_stops_at_an_opposed_pair():
    rows = np.array([[1.0, 0.0], [-2.0, 0.0], [0.3, 0.7]], np.float32)
    rule = imtl_g()
    weights, state = rule.update(rule.init(3), gramian=gramian(jnp.asarray(rows)))
    np.testing.assert_allclose(weights, [2 / 3, 1 / 3, 0], atol=8 * EPS["float32"])
    assert state.residual == 0


def test_imtl_g_leaves_zero_gradients_out():
    rows = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    held = np.insert(rows, 2, 0, axis=0)
    rule = imtl_g()
    alone, _ = rule.update(rule.init(4), gramian=gramian(jnp.asarray(rows)))
    weights, _ = rule.update(rule.init(5), gramian=gramian(jnp.asarray(held)))
    assert weights[2] == 0
    np.testing.assert_allclose(np.delete(weights, 2), alone, rtol=256 * EPS["float32"])


def test_imtl_combines_the_gradients_of_the_scaled_losses():
    rng = np.random.default_rng(1)
    rule = imtl(optimizer=optax.sgd(0.3))
    state, scales = rule.init(3), np.zeros(3)
    step = jax.jit(lambda state, m, losses: rule.update(state, gramian=m, losses=losses))
    for _ in range(4):
        rows = rng.standard_normal((3, 8)).astype(np.float32)
        losses = np.exp(rng.standard_normal(3)).astype(np.float32)
        weights, state = step(state, gramian(jnp.asarray(rows)), jnp.asarray(losses))
        scaled = np.exp(scales)[:, None] * rows.astype(np.float64)
        expected = papers_imtl_g(scaled) * np.exp(scales)
        np.testing.assert_allclose(
            weights, expected, atol=512 * EPS["float32"] * np.abs(expected).max()
        )
        scales = scales - 0.3 * (np.exp(scales) * losses - 1)
        np.testing.assert_allclose(state.parameters, scales, rtol=32 * EPS["float32"], atol=1e-6)


@pytest.mark.parametrize("preference", [None, (1.0, 3.0, 0.5, 2.0, 1.0, 0.25)])
def test_config_is_the_pseudo_inverse_of_the_unit_rows(preference):
    families = set(FAMILIES) - {"zero_row", "cosine_0.9999999", "near_duplicates"}
    cosines = np.ones(TASKS) if preference is None else np.array(preference)
    for name, rows, weights in each(config, "float64", families, preference=preference):
        u, _ = unit_rows(rows)
        inverse = np.linalg.pinv(u, rcond=np.sqrt(TASKS * EPS["float64"]))
        v = inverse @ cosines
        seen = np.linalg.norm(u @ v) > 1e-6
        v = v / np.linalg.norm(v)
        expected = (rows @ v).sum() * v if seen else 0 * v
        size = np.abs(weights) @ np.linalg.norm(rows, axis=1) + np.linalg.norm(rows)
        assert np.linalg.norm(weights @ rows - expected) < 1e-9 * size, name


@pytest.mark.parametrize("preference", [None, (1.0, 3.0, 0.5, 2.0, 1.0, 0.25)])
def test_config_has_the_cosines_asked_for_in_float32(preference):
    """For rows in any order and last bit, to what rounding the weights does to the cosines.

    That is eps · Σ |w_t| ‖g_t‖ / ‖d‖ of the largest: weights of nearly parallel rows cancel.
    """
    cosines = np.ones(TASKS) if preference is None else np.array(preference)
    cosines = cosines / cosines.max()
    rule, rng = config(preference=preference), np.random.default_rng(0)
    run = jax.jit(jax.vmap(lambda rows: rule.update(rule.init(TASKS), gramian=gramian(rows))[0]))
    for name in FULL_RANK:
        draws = np.stack([disturb(make(name, TASKS, k % 2), rng) for k in range(20)])
        found = np.asarray(run(jnp.asarray(draws, jnp.float32)), np.float64)
        for rows, weights in zip(draws, found, strict=True):
            rows = rows / 2.0 ** np.round(np.log2(np.linalg.norm(rows, axis=1).max()))
            u, norms = unit_rows(rows)
            d = weights @ rows
            length = np.linalg.norm(d)
            seen = u @ d / length
            noise = EPS["float32"] * (1 + np.abs(weights) @ norms / length / seen.max())
            assert np.abs(seen / seen.max() - cosines).max() <= 16 * noise, name
            assert seen.min() > 0, name
            assert abs((rows @ d).sum() / length**2 - 1) <= 16 * noise, name


def test_config_of_an_opposed_pair_is_zero():
    rows = np.array([[1.0, 2.0], [-2.0, -4.0]], np.float32)
    rule = config()
    weights, _ = rule.update(rule.init(2), gramian=gramian(jnp.asarray(rows)))
    np.testing.assert_array_equal(weights, 0)


def svd_direction(rows, scale_mode, share, cut):
    left, sigma, right = np.linalg.svd(rows, full_matrices=False)
    kept = sigma**2 > cut * sigma[0] ** 2
    left, sigma, right = left[:, kept], sigma[kept], right[kept]
    square = {
        "min": sigma[-1] ** 2,
        "median": np.sort(sigma**2)[(len(sigma) - 1) // 2],
        "rmse": np.mean(sigma**2),
    }[scale_mode]
    return np.sqrt(square) * share @ left @ right


@pytest.mark.parametrize("scale_mode", ["min", "median", "rmse"])
@pytest.mark.parametrize("preference", [None, (1.0, 3.0, 0.0, 2.0, 1.0, 0.25)])
def test_aligned_mtl_is_the_procrustes_solution(scale_mode, preference):
    share = np.ones(TASKS) if preference is None else np.array(preference)
    share = share / share.sum()
    options = {"scale_mode": scale_mode, "preference": preference}
    # The others have eigenvalues next to the cut, where one rounding decides.
    families = set(FAMILIES) - {"vandermonde", "near_duplicates", "spread_1e8"}
    families -= {"spread_tied_opposed", "cosine_0.9999999"}
    for name, rows, weights in each(aligned_mtl, "float64", families, **options):
        expected = svd_direction(rows, scale_mode, share, TASKS * EPS["float64"])
        error = np.linalg.norm(weights @ rows - expected) / np.linalg.norm(rows)
        assert error < 1e-8, (name, error)


def test_aligned_gradients_are_orthogonal_and_equally_long():
    """One unit preference at a time gives the aligned gradients themselves."""
    rows = np.random.default_rng(3).standard_normal((4, 9)).astype(np.float32)
    matrix = gramian(jnp.asarray(rows))

    def weigh(preference):
        rule = aligned_mtl(preference=preference)
        return rule.update(rule.init(4), gramian=matrix)[0]

    aligned = np.asarray(jax.vmap(weigh)(jnp.eye(4)), np.float64) @ rows
    smallest = np.linalg.svd(rows.astype(np.float64), compute_uv=False)[-1] ** 2
    np.testing.assert_allclose(
        aligned @ aligned.T, smallest * np.eye(4), atol=256 * EPS["float32"] * smallest
    )


def test_aligned_mtl_jumps_at_the_documented_cut():
    """Duplicates, apart by a relative size on either side of √(T·eps)."""

    def length(size, **options):
        rows = jnp.array([[1.0, 0.0, 0.0], [1.0, size, 0.0], [0.0, 0.0, 2.0]])
        rule = aligned_mtl(**options)
        weights, state = rule.update(rule.init(3), gramian=gramian(rows))
        return float(jnp.linalg.norm(weights @ rows)), int(state.rank)

    apart, equal = length(1e-2), length(1e-5)
    assert apart[1] == 3 and equal[1] == 2
    # σ = 1e-2/√2 of three directions, then √2 of two.
    np.testing.assert_allclose(apart[0], 1e-2 / np.sqrt(6), rtol=1e-3)
    np.testing.assert_allclose(equal[0], np.sqrt(2 / 3), rtol=1e-3)
    assert length(1e-2, rank_tolerance=1e-3)[1] == 2


def test_aligned_mtl_of_zeros_is_the_preference():
    rule = aligned_mtl(preference=(1.0, 3.0), reduction="sum")
    weights, state = rule.update(rule.init(2), gramian=jnp.zeros((2, 2)))
    np.testing.assert_array_equal(weights, [1, 3])
    assert state.rank == 0


def test_aligned_mtl_cuts_by_the_number_of_active_tasks():
    rows = jnp.concatenate([jnp.eye(2) * jnp.array([[1.0], [6e-4]]), jnp.full((60, 2), jnp.nan)])
    active = jnp.arange(62) < 2
    rule = aligned_mtl()
    weights, state = rule.update(rule.init(62), gramian=gramian(rows, active=active), active=active)
    alone, _ = rule.update(rule.init(2), gramian=gramian(rows[:2]))
    assert state.rank == 2
    np.testing.assert_allclose(weights[:2], alone, rtol=64 * EPS["float32"])


@pytest.mark.parametrize(
    ("make_rule", "message"),
    [
        (lambda: aligned_mtl(scale_mode="max"), "aligned_mtl: scale_mode must be one of"),
        (lambda: aligned_mtl(reduction="max"), "aligned_mtl: reduction"),
        (lambda: aligned_mtl(rank_tolerance=-1.0), "rank_tolerance must be >= 0 or None, got -1"),
        (lambda: aligned_mtl(preference=(-1.0, 1.0)), "aligned_mtl: preference must be finite"),
        (lambda: config(preference=(0.0, 0.0)), "config: preference must be finite"),
    ],
)
def test_bad_arguments_are_named(make_rule, message):
    with pytest.raises(ValueError, match=message):
        make_rule()


def test_a_preference_of_another_length_is_named():
    rule = config(preference=(1.0, 2.0))
    with pytest.raises(ValueError, match="config: preference"):
        rule.update(rule.init(3), gramian=jnp.eye(3))
