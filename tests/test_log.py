"""What is logged by every entrance, against float64 formulas on the rows themselves."""

import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mgda_jax
from mgda_jax import aggregate, branch, branch_probe, branched, log_dict, recorded, weighting

EPS = float(np.finfo(np.float32).eps)
NAMES = ("left", "right")
ROWS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], np.float32)  # L_t = ⟨row t, z⟩ at z = 0
rule = recorded(weighting.min_norm())


def expected(direction=(0.0, 1.0, 1.0), weights: tuple[float, ...] | None = (0.6, 0.4)):
    rows, d = ROWS.astype(np.float64), np.array(direction)
    lengths, length = np.linalg.norm(rows, axis=1), np.linalg.norm(d)
    cosine = rows[0] @ rows[1] / lengths.prod()
    out = {f"norm/{name}": value for name, value in zip(NAMES, lengths, strict=True)}
    cosines = rows @ d / lengths / length
    out |= {f"direction_cosine/{name}": x for name, x in zip(NAMES, cosines, strict=True)}
    out |= dict.fromkeys(("cosine/left/right", "cosine_min", "cosine_mean"), cosine)
    out |= {"conflicts": 1, "direction_norm": length, "stationarity": length / lengths.max()}
    if weights is not None:
        out |= {f"weight/{name}": x for name, x in zip(NAMES, weights, strict=True)}
        out |= {"dominating_task": int(np.argmax(weights)), "dominating_share": max(weights)}
    return out


def check(log, want, more=()):
    assert set(log) == set(want) | set(more) and json.dumps(log)
    assert all(type(value) is float for value in log.values())
    for name, value in want.items():
        np.testing.assert_allclose(log[name], value, rtol=64 * EPS, atol=64 * EPS, err_msg=name)


def losses(z):
    return {name: jnp.sum(row * z) for name, row in zip(NAMES, ROWS, strict=True)}


def layer_loss(make, z, probe):
    copies = make(probe)(z)
    return sum(losses(copies[name])[name] for name in NAMES)


def by_branch():
    def make(probe):
        return lambda z: branch(z, NAMES, rule, probe=probe)

    grad = jax.jit(jax.grad(functools.partial(layer_loss, make), argnums=1))
    return grad(jnp.zeros(3), branch_probe(NAMES, rule))


def by_branched():
    def make(probe):
        return lambda z: branched(lambda w, _: 1.0 * w, NAMES, rule)(z, 0.0, probe=probe)

    grad = jax.jit(jax.grad(functools.partial(layer_loss, make), argnums=1))
    return grad(jnp.zeros(3), branch_probe(NAMES, rule))


def by_aggregate():
    tx = optax.chain(aggregate(rule, 2), optax.sgd(1e-3, momentum=0.9))
    return jax.jit(tx.update)(jnp.asarray(ROWS), tx.init(jnp.zeros(3)))[1]


def by_oracle(**options):
    heads = {name: lambda own, z, _, t=t: jnp.sum(ROWS[t] * z) for t, name in enumerate(NAMES)}
    oracle = mgda_jax.multitask_value_and_grad(
        lambda w, _: 1.0 * w, mgda_jax.per_task_decode(heads), rule, 2, **options
    )
    own = {name: {} for name in NAMES}
    return jax.jit(oracle)(jnp.zeros(3), own, jnp.zeros(()), oracle.init())[2]


ENTRANCES = {
    "branch": by_branch,
    "branched": by_branched,
    "aggregate": by_aggregate,
    "oracle": functools.partial(by_oracle, mode="representation", every=3),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_entrance_logs_the_same(entrance):
    log = log_dict(ENTRANCES[entrance](), names=NAMES)
    check(log, expected() | {"min_norm": np.sqrt(2)}, ["kkt"])
    assert 0 <= log["kkt"] <= 64 * EPS


def test_of_a_row_rule_the_cosines_and_norms_are_those_of_its_direction():
    tx = aggregate(recorded(weighting.coordinate_median()), 2)
    rows = {"a": jnp.asarray(ROWS[:, :1], jnp.bfloat16), "b": jnp.asarray(ROWS[:, 1:])}
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], leaf.dtype), rows)
    direction, state = jax.jit(tx.update)(rows, tx.init(params), params)
    assert float(direction["a"][0]) in (-4, 1, 6)
    flat = np.concatenate([np.asarray(leaf, np.float64) for leaf in direction.values()])
    check(log_dict(state, names=NAMES), expected(flat, None))


def test_losses_give_names_and_values_and_a_traced_state_scalars():
    values = {"right": 2.0, "left": 1.0}

    @jax.jit
    def step(values):
        tx = aggregate(recorded(weighting.uniform(reduction="mean"), always=True), 2)
        return log_dict(tx.update(jnp.asarray(ROWS), tx.init(jnp.zeros(3)))[1], values)

    log = {name: float(value) for name, value in step(values).items()}
    check(log, expected((1.0, 1.0, 1.0), (0.5, 0.5)) | {"loss/left": 1, "loss/right": 2})


def test_a_rule_that_reads_no_gramian_asks_for_none_unless_told():
    plain = recorded(weighting.uniform())
    assert plain.reads == frozenset() and "gramian" in recorded(plain, always=True).reads
    tx = aggregate(plain, 2)
    log = log_dict(tx.update(jnp.asarray(ROWS), tx.init(jnp.zeros(3)))[1])
    assert set(log) == {"weight/0", "weight/1", "dominating_task", "dominating_share"}


def inverse_norm():
    def update(state, *, gramian, active=None, **_):
        size = weighting.norms(weighting.active_gramian(gramian, active))
        return jnp.where(size == 0, jnp.zeros_like(size), 1 / size), state

    return mgda_jax.Weighting(lambda num_tasks: (), update)


@pytest.mark.parametrize("kind", [inverse_norm, weighting.coordinate_median])
def test_an_inactive_nan_stays_out_and_a_bad_step_shows(kind):
    tx = aggregate(recorded(kind()), 3)
    update = jax.jit(tx.update)
    rows = jnp.asarray(np.vstack([ROWS, np.full((1, 3), np.nan, np.float32)]))
    start = tx.init(jnp.zeros(3))
    active = jnp.array([True, True, False])
    state = update(rows, start, active=active)[1]
    log = log_dict(state)
    assert np.isfinite(list(log.values())).all() and log["norm/2"] == 0 and log["conflicts"] == 1
    bad = log_dict(update(rows, state, active=jnp.ones(3, bool))[1])
    if kind is inverse_norm:
        assert np.isnan(bad.pop("weight/2"))
        assert {name for name in bad if not np.isnan(bad[name])} <= {"weight/0", "weight/1"}
    else:
        assert bad == log  # it reports no weights that could say so


def test_gradients_that_are_not_finite_do_not_keep_the_rules_own_state_back():
    dwa = weighting.dwa(steps_per_epoch=1)
    plain, kept = (aggregate(rule, 2) for rule in (dwa, recorded(dwa, always=True)))
    rows, values = jnp.full((2, 3), jnp.nan), jnp.array([1.0, 2.0])
    after = [
        tx.update(rows, tx.init(jnp.zeros(3)), losses=values)[1].weighting for tx in (plain, kept)
    ]
    assert jax.tree.all(jax.tree.map(np.array_equal, after[0], after[1].rule))
    assert not after[1].known


def test_a_recorded_rule_prints_pickles_and_wraps_like_any_other():
    assert repr(recorded(weighting.min_norm())) == "recorded(min_norm())"
    smooth = recorded(weighting.cr_mogm(weighting.min_norm()))
    assert repr(pickle.loads(pickle.dumps(smooth))) == repr(smooth)
    log = log_dict(mgda_jax.AggregateState(jnp.ones(2), smooth.init(2)))
    assert "min_norm" in log and "cosine/0/1" in log


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: log_dict({}), "state: expected one AggregateState, got 0 in dict"),
        (lambda s: log_dict((s, s)), "state: expected one AggregateState, got 2 in tuple"),
        (lambda s: log_dict(s, names=["a"]), "names: expected 2 different names in task order"),
        (lambda s: log_dict(s, names=["a", "a"]), "names: expected 2 different names"),
        (lambda s: log_dict(s, jnp.ones(3)), "losses: expected 2 tasks, got 3"),
        (lambda s: log_dict(s, {"a": 1.0, "b": 1.0}, names=NAMES), "names: expected those of the"),
        (lambda s: log_dict(jax.tree.map(lambda x: x[None], s)), r"task_weights of shape \(T,\)"),
        (lambda s: recorded(weighting.uniform), "recorded: weighting: expected a Weighting"),
        (lambda s: recorded(rule, always=1), "recorded: always must be True or False"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(by_state())


@functools.cache
def by_state():
    (state,) = mgda_jax.aggregate_states(by_aggregate())
    return state
