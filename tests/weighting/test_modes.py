"""Every rule in every mode of the oracle is the rule on the dense gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import RowRule, multitask_value_and_grad, per_task_decode
from mgda_jax._gramian import gramian, weighted_sum
from mgda_jax.oracle import Lean
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import apply_row_rule
from tests.quick import quick_jit
from tests.weighting.rules import RULES, blank, claiming
from tests.weighting.scenarios import ALL, EPS, NAMES, weigh


def encode(shared, batch):
    return jnp.tanh(batch["x"] @ shared["w"] + shared["b"][None])


def _head(t):
    return lambda own, z, batch: jnp.mean((z @ own - batch["y"][t]) ** 2)


HEADS = {name: _head(t) for t, name in enumerate("abcd")}
MODES = {
    "exact": {"mode": "exact"},
    "representation": {"mode": "representation"},
    "lean": {"mode": Lean()},
}


@functools.cache
def model():
    rng = np.random.default_rng(1)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    shared = {"w": normal(4, 3), "b": normal(3)}
    own = {name: normal(3) for name in HEADS}
    batch = {"x": normal(6, 4), "y": normal(4, 6)}

    @quick_jit
    def differentiate(shared, own, batch):
        def losses(z):
            return jnp.stack([HEADS[name](own[name], z, batch) for name in HEADS])

        z = encode(shared, batch)
        rows = jax.jacobian(lambda s: losses(encode(s, batch)))(shared)
        own_rows = {n: jax.grad(HEADS[n])(own[n], z, batch) for n in HEADS}
        return losses(z), rows, jax.jacobian(losses)(z), own_rows

    return shared, own, batch, *differentiate(shared, own, batch)


@functools.cache
def in_modes(name: str):
    """Gradients and weights of one step in every mode that the rule has, from one program."""
    shared, own, batch, values, rows, _, _ = model()
    rule = RULES[name].make(ALL)
    extra = {"previous_losses": values, "cross_gramian": cross_gramian(rows, rows)}
    extra = {k: v for k, v in extra.items() if k in rule.reads}
    modes = {m: options for m, options in MODES.items() if blank(name, m) is None}

    @quick_jit
    def run(shared, own, batch, extra):
        out = {}
        for mode, options in modes.items():
            oracle = multitask_value_and_grad(encode, per_task_decode(HEADS), rule, 4, **options)
            (losses, _), grads, state = oracle(shared, own, batch, oracle.init(shared), **extra)
            out[mode] = losses, grads, state.task_weights
        return out

    return run(shared, own, batch, extra)


@functools.cache
def on_dense_rows(name: str):
    """What the rule says of the dense gradients: direction and weights, by mode."""
    _, _, _, values, rows, z_rows, _ = model()
    rule = RULES[name].make(ALL)
    if isinstance(rule, RowRule):
        state = rule.init(jax.tree.map(lambda x: x[0], rows), 4)
        direction, _ = quick_jit(lambda r: apply_row_rule(rule, state, r, losses=values))(rows)
        return {"exact": (direction, None)}
    cross = cross_gramian(rows, rows)
    exact, upper = (weigh(name)(gramian(of), cross, values) for of in (rows, z_rows))
    return {
        "exact": (weighted_sum(rows, exact), exact),
        "lean": (weighted_sum(rows, exact), exact),
        "representation": (weighted_sum(rows, upper), upper),
    }


@pytest.mark.parametrize(
    ("name", "mode"), [(name, mode) for mode in MODES for name in claiming(mode)]
)
def test_the_oracle_gives_the_rule_on_the_dense_gradients(name, mode):
    _, _, _, values, rows, _, own_rows = model()
    losses, (shared, own), weights = in_modes(name)[mode]
    direction, expected = on_dense_rows(name)[mode]
    np.testing.assert_allclose(np.stack(list(losses.values())), values, rtol=16 * EPS)
    factors = np.ones(4)
    largest = 1.0
    if expected is not None:
        scale = np.abs(expected).max()
        largest = max(1.0, float(scale))
        np.testing.assert_allclose(weights, expected, atol=1024 * EPS * scale)
        if RULES[name].make(ALL).scope == "all":
            factors = np.asarray(expected)
    top = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(rows))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1024 * EPS * top * largest),
        shared,
        direction,
    )
    for factor, task in zip(factors, own, strict=True):
        np.testing.assert_allclose(
            own[task], factor * own_rows[task], rtol=1024 * EPS, atol=64 * EPS * largest
        )


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for mode in ("representation", "lean") for name in NAMES if blank(name, mode)],
)
def test_a_mode_that_cannot_apply_is_refused(name, mode):
    rule = RULES[name].make(ALL)
    with pytest.raises(ValueError, match="RowRule"):
        multitask_value_and_grad(encode, per_task_decode(HEADS), rule, 4, **MODES[mode])
