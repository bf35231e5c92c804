"""What a rule is beside its formula: its state, its printed form, what it accepts and refuses."""

import copy
import functools
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax import RowRule, aggregate, weighting
from mgda_jax import Weighting as weighting_type
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import apply_row_rule, update_weights
from tests.quick import quick_jit
from tests.weighting.rules import RULES, public_rules
from tests.weighting.scenarios import ALL, BASE, EPS, NAMES


def test_every_public_rule_is_in_the_registry():
    assert set(public_rules()) == set(RULES)


@pytest.mark.parametrize("name", NAMES)
def test_wide_floats_trace_and_keep_the_gradients_dtypes(name):
    """x64 on: rows of both widths, strict promotion; the state is in the wide default."""
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            rule = RULES[name].make(ALL)
            tx = aggregate(rule, 4)
            rows = {"a": jax.ShapeDtypeStruct((4, 3), dtype)}

            def step(rows, losses, tx=tx, dtype=dtype):
                state = tx.init({"a": jnp.zeros(3, dtype)})
                cross = cross_gramian(rows, rows)
                updates, new = tx.update(
                    rows, state, losses=losses, previous_losses=losses, cross_gramian=cross
                )
                dtypes = [[x.dtype for x in jax.tree.leaves(s)] for s in (new, state)]
                assert dtypes[0] == dtypes[1]
                return updates

            updates = jax.eval_shape(step, rows, jax.ShapeDtypeStruct((4,), dtype))
            assert updates["a"].dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_a_fixed_point_of_shapes_and_shares_no_buffers(name):
    """So that the second update recompiles nothing and the state can be donated."""
    rule = RULES[name].make(ALL)
    tx = aggregate(rule, 4)
    state = tx.init({"a": jnp.zeros(3)})
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)

    def step(state, rows, losses):
        cross = cross_gramian(rows, rows)
        given = {"losses": losses, "previous_losses": losses, "cross_gramian": cross}
        return tx.update(rows, state, **given)[1]

    before = jax.eval_shape(lambda s: s, state)
    after = jax.eval_shape(step, before, {"a": jnp.zeros((4, 3))}, jnp.ones(4))
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)


@functools.cache
def states_of(name):
    """A fresh state in an optimiser's, and one like it that differs in every leaf."""
    tx = optax.chain(aggregate(RULES[name].make(ALL), 4), optax.identity())
    fresh = tx.init({"a": jnp.zeros((3, 2)), "b": jnp.zeros(3, jnp.bfloat16)})
    return fresh, jax.tree.map(_other, fresh)


def _other(x):
    x = np.asarray(x)
    return ~x if x.dtype == bool else x + np.ones((), x.dtype)


def _same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_flax_saves_and_restores_the_state(name):
    serialization = pytest.importorskip("flax.serialization")
    fresh, later = states_of(name)
    _same(serialization.from_bytes(fresh, serialization.to_bytes(later)), later)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_saves_and_restores_the_state(name, tmp_path):
    fresh, later = states_of(name)
    leaves, treedef = jax.tree.flatten(later)
    np.savez(tmp_path / "state.npz", *leaves)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        _same(jax.tree.unflatten(treedef, [file[key] for key in file.files]), later)


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_prints_as_the_call_that_made_it_and_pickles(name):
    rule = RULES[name].make(ALL)
    assert repr(rule).startswith(f"{name}(") and "function" not in repr(rule)
    for again in (pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)):
        assert type(again) is type(rule) and repr(again) == repr(rule)
        assert again[2:-1] == rule[2:-1]  # reads, scope
    assert hash(rule) == hash(rule)  # a static argument of jit


def test_a_pickled_rule_is_the_rule():
    rule = weighting.cr_mogm(weighting.upgrad(preference={"a": 1.0, "b": 3.0}), alpha=0.5)
    assert repr(rule) == "cr_mogm(upgrad(preference={'a': 1.0, 'b': 3.0}), alpha=0.5)"
    again = pickle.loads(pickle.dumps(rule))
    weights = quick_jit(
        lambda m: [r.update(r.init(2), gramian=m)[0] for r in (rule, again)],
    )(jnp.array([[2.0, -1.0], [-1.0, 1.0]]))
    np.testing.assert_array_equal(*weights)


def test_a_rule_that_was_changed_no_longer_prints_as_the_call():
    rule = weighting.uniform()
    changed = rule._replace(update=_ones)
    assert repr(changed) == f"Weighting(update={_ones!r}, reads=[])"
    by_hand = weighting_type(_init, _ones, frozenset())
    assert pickle.loads(pickle.dumps(by_hand)).update is _ones


def _init(num_tasks):
    return jnp.ones(num_tasks)


def _ones(state, **_):
    return state, state


def test_the_rules_are_listed():
    assert weighting.rules() == public_rules()


def _shapes(name, tasks, whole):
    rule, params = RULES[name].make(ALL[:tasks]), {"a": jnp.zeros(3)}
    if whole:
        return jax.tree.map(jnp.shape, aggregate(rule, tasks).init(params))
    rows = (params, tasks) if isinstance(rule, RowRule) else (tasks,)
    return jax.tree.map(jnp.shape, rule.init(*rows))


def _knowing_the_tasks(whole):
    """The rules whose state (or `AggregateState`, if whole) depends on how many tasks there are."""
    return [name for name in NAMES if _shapes(name, 3, whole) != _shapes(name, 4, whole)]


def test_only_row_rules_without_memory_take_a_state_of_any_number_of_tasks():
    rest = set(NAMES) - set(_knowing_the_tasks(whole=True))
    assert rest == {"coordinate_median", "graddrop", "sign_agreement", "trimmed_mean"}


@pytest.mark.parametrize("name", _knowing_the_tasks(whole=True))
def test_a_state_of_another_number_of_tasks_is_refused(name):
    rows, params = {"a": jnp.zeros((4, 3))}, {"a": jnp.zeros(3)}
    state = aggregate(RULES[name].make(ALL[:3]), 3).init(params)
    given = {"losses": jnp.ones(4), "previous_losses": jnp.ones(4)}
    given["cross_gramian"] = cross_gramian(rows, rows)
    with pytest.raises(ValueError, match="state.*another number of tasks"):
        aggregate(RULES[name].make(ALL), 4).update(rows, state, params, **given)


@pytest.mark.parametrize("name", _knowing_the_tasks(whole=False))
def test_a_rules_own_state_of_another_number_of_tasks_is_refused(name):
    rows, params = {"a": jnp.zeros((4, 3))}, {"a": jnp.zeros(3)}
    fewer, rule = RULES[name].make(ALL[:3]), RULES[name].make(ALL)
    given = {n: jnp.ones(4) for n in rule.reads} | {"gramian": np.eye(4)}
    given["cross_gramian"] = cross_gramian(rows, rows)
    with pytest.raises(ValueError, match=r"state at '.*': expected shape .* for 4 tasks, got"):
        if isinstance(rule, RowRule):
            apply_row_rule(rule, fewer.init(params, 3), rows, **given)
        else:
            update_weights(rule, fewer.init(3), num_tasks=4, **given)


@pytest.mark.parametrize("rule", [weighting.uniform(reduction="mean"), weighting.trimmed_mean()])
def test_steps_outside_of_jit_trace_the_rule_once(rule):
    traced = []

    def update(*args, **kwargs):
        traced.append(1)
        return rule.update(*args, **kwargs)

    tx, params = aggregate(rule._replace(update=update), 4), {"a": jnp.zeros(3)}
    state = tx.init(params)
    for k in range(3):
        updates, state = tx.update({"a": jnp.full((4, 3), 1.0 + k)}, state, params)
        np.testing.assert_allclose(updates["a"], jnp.full(3, 1.0 + k), rtol=16 * EPS)
    assert len(traced) == 1


def test_a_rule_may_read_what_is_no_array():
    rule = weighting.uniform()

    def update(state, *, epoch, **_):
        return jnp.ones(2) if epoch > 1 else jnp.zeros(2), state

    tx = aggregate(rule._replace(update=update, reads=frozenset({"epoch"})), 2)
    step = [tx.update(jnp.ones((2, 3)), tx.init(jnp.zeros(3)), epoch=k)[0] for k in (1, 2)]
    np.testing.assert_array_equal(step, [[0, 0, 0], [2, 2, 2]])


def test_a_state_of_another_rule_is_refused():
    params = {"a": jnp.zeros(3)}
    other = aggregate(weighting.uniform(), 4).init(params)
    for rule in (weighting.min_norm(), weighting.moco()):
        with pytest.raises(ValueError, match="state"):
            aggregate(rule, 4).update({"a": jnp.zeros((4, 3))}, other, params)


@pytest.mark.parametrize("name", [n for n in NAMES if RULES[n].draws])
def test_a_key_may_be_typed_or_raw(name):
    rule, rows = RULES[name].make(ALL), {"a": jnp.asarray(BASE.rows["a"][0])}
    tx = aggregate(rule, 4)
    state = tx.init({"a": jnp.zeros(rows["a"].shape[1:])})
    step = quick_jit(lambda key: tx.update(rows, state, key=key))
    typed, raw = step(jax.random.key(3)), step(jax.random.PRNGKey(3))
    jax.tree.map(np.testing.assert_array_equal, typed, raw)
    _, kept = typed
    np.testing.assert_array_equal(kept.weighting.key, state.weighting.key)


@pytest.mark.parametrize("name", [n for n in NAMES if RULES[n].draws])
@pytest.mark.parametrize("seed", [True, 1.5, float("nan"), "x", None])
def test_a_seed_that_is_no_int_is_refused(name, seed):
    with pytest.raises(ValueError, match=f"{name}: seed must be an int, got "):
        public_rules()[name](seed=seed)


def _numbers(name):
    """The hyperparameters of a rule that are plain floats by default."""
    parameters = inspect.signature(public_rules()[name]).parameters.values()
    return {p.name: p.default for p in parameters if isinstance(p.default, float)}


@pytest.mark.parametrize("name", [n for n in NAMES if _numbers(n)])
@pytest.mark.parametrize("wide", [False, True], ids=["float32", "float64"])
def test_hyperparameters_may_be_injected(name, wide):
    """float32 numbers from `optax.inject_hyperparams` go with gradients of either width."""
    factory = public_rules()[name]
    required = {"cr_mogm": (weighting.min_norm(),)}.get(name, ())
    options = {"steps_per_epoch": 2} if name in ("dwa", "stch") else {}

    def make(**numbers):
        return aggregate(factory(*required, **options, **numbers), 4)

    # optax looks at the names that the factory takes.
    kind = inspect.Parameter.KEYWORD_ONLY
    numbers = [inspect.Parameter(n, kind, default=x) for n, x in _numbers(name).items()]
    make.__signature__ = inspect.Signature(numbers)

    with jax.enable_x64(wide):
        rows = {"a": jnp.ones((4, 3))}
        params = {"a": jnp.zeros(3)}

        def step(rows, losses):
            # optax's own code relies on the standard promotion rules.
            with jax.numpy_dtype_promotion("standard"):
                tx = optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(**_numbers(name))
                state = tx.init(params)
            cross = cross_gramian(rows, rows)
            given = {"losses": losses, "previous_losses": losses, "cross_gramian": cross}
            return tx.update(rows, state, params, **given)[0]

        updates = jax.eval_shape(step, rows, jnp.ones(4))
    assert updates["a"].shape == (3,)
