"""All rules × invariants × modes. What a rule is and promises is in tests/weighting/rules.py."""

import copy
import functools
import inspect
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mgda_jax import RowRule, aggregate, multitask_value_and_grad, per_task_decode, weighting
from mgda_jax import Weighting as weighting_type
from mgda_jax._gramian import gramian, weighted_sum
from mgda_jax.weighting import cross_gramian
from mgda_jax.weighting.base import apply_row_rule, update_weights
from tests.weighting.rules import RULES, blank, claiming, public_rules

EPS = float(np.finfo(np.float32).eps)
HALF = float(jnp.finfo(jnp.bfloat16).eps)
ALL, STEPS = (0, 1, 2, 3), 2
NAMES = sorted(RULES)
HUGE = 2.0**100  # exact, and about 1e30


def test_every_public_rule_is_in_the_registry():
    assert set(public_rules()) == set(RULES)


class Problem(NamedTuple):
    """Two steps: rows of float32 and bfloat16 leaves, losses, active tasks."""

    rows: dict[str, np.ndarray]
    losses: np.ndarray
    active: np.ndarray

    def take(self, tasks):
        tasks = list(tasks)
        return Problem(
            {name: leaf[:, tasks] for name, leaf in self.rows.items()},
            self.losses[:, tasks],
            self.active[tasks],
        )

    def times(self, factors):
        column = np.broadcast_to(np.float32(factors), (4,))
        scaled = {
            name: leaf * column.reshape(1, 4, *(1,) * (leaf.ndim - 2)).astype(leaf.dtype)
            for name, leaf in self.rows.items()
        }
        return self._replace(rows=scaled)

    def with_row(self, task, values, steps=slice(None)):
        rows = {name: leaf.copy() for name, leaf in self.rows.items()}
        for name, leaf in rows.items():
            leaf[steps, task] = values[name] if isinstance(values, dict) else values
        return self._replace(rows=rows)

    def row(self, task, factor=1):
        return {n: leaf[:, task] * leaf.dtype.type(factor) for n, leaf in self.rows.items()}


def base_problem():
    rng = np.random.default_rng(0)
    norms = np.array([1.0, 3.0, 0.3, 1.5])
    rows = {}
    for name, shape, dtype in (("a", (2, 4), np.float32), ("b", (5,), jnp.bfloat16)):
        # A common part, so that the tasks have a common descent direction in both steps.
        leaf = rng.standard_normal((STEPS, 4, *shape)) + 0.7 * rng.standard_normal(
            (STEPS, 1, *shape)
        )
        rows[name] = (leaf * norms.reshape(4, *(1,) * len(shape))).astype(dtype)
    losses = np.exp(rng.standard_normal((STEPS, 4))).astype(np.float32)
    return Problem(rows, losses, np.ones(4, bool))


ORDER = np.array([2, 0, 3, 1])
BASE = base_problem()
MASKED = {  # inactive rows and losses are NaN
    kept: BASE._replace(
        active=np.isin(ALL, kept), losses=np.where(np.isin(ALL, kept), BASE.losses, np.nan)
    )
    for kept in {entry.smaller for entry in RULES.values()}
}
for _kept in list(MASKED):
    for _task in set(ALL) - set(_kept):
        MASKED[_kept] = MASKED[_kept].with_row(_task, np.nan)


def _poisoned(value):
    bad = BASE.with_row(1, value, 0)
    losses = BASE.losses.copy()
    losses[0, 1] = value
    first = {
        name: np.concatenate([leaf[:1], BASE.rows[name][:1]]) for name, leaf in bad.rows.items()
    }
    return Problem(first, np.stack([losses[0], BASE.losses[0]]), BASE.active)


SCENARIOS = {
    "base": BASE,
    "permuted": BASE.take(ORDER),
    "scaled": BASE.times(8.0),
    "huge": BASE.times(HUGE),
    "tiny": BASE.times(1 / HUGE),
    "spread": BASE.times([1, 2.0**60, 2.0**-60, 1]),
    "duplicates": BASE.with_row(1, BASE.row(0)),
    "zero row": BASE.with_row(2, 0.0),
    "zeros": BASE.times(0.0),
    "opposed": BASE.with_row(1, BASE.row(0, -1)),
    "collinear": BASE.with_row(3, BASE.row(2, -4)),
    "unanimous": functools.reduce(lambda p, t: p.with_row(t, BASE.row(0)), (1, 2, 3), BASE),
    "none active": BASE._replace(active=np.zeros(4, bool)),
    "nan": _poisoned(np.nan),
    "inf": _poisoned(np.inf),
    **{f"masked {kept}": problem for kept, problem in MASKED.items()},
}


class Result(NamedTuple):
    """Of every step: direction (S, P), its leaf "b" being bfloat16; weights (S, T); state."""

    exact: np.ndarray
    half: np.ndarray
    weights: np.ndarray
    finite: np.ndarray


def steps_of(name: str, tasks, with_active: bool):
    """rows, losses, active → directions, weights, "is the state finite" of consecutive updates."""
    rule = RULES[name].make(tasks)
    tx = aggregate(rule, len(tasks))
    params = {"a": jnp.zeros((2, 4)), "b": jnp.zeros(5, jnp.bfloat16)}

    def run(rows, losses, active):
        given = {"active": active} if with_active else {}

        def step(state, inputs):
            rows, losses = inputs
            second = jax.tree.map(lambda x: x + jnp.flip(x, -1) / 2, rows)
            updates, state = tx.update(
                rows,
                state,
                params,
                losses=losses,
                previous_losses=losses * 0.75,
                cross_gramian=cross_gramian(rows, second, **given),
                **given,
            )
            numbers = [x for x in jax.tree.leaves(state.weighting) if _is_float(x)]
            finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in numbers] or [True]))
            assert updates["b"].dtype == jnp.bfloat16 and updates["a"].dtype == jnp.float32
            weights = state.task_weights
            weights = jnp.zeros(len(tasks)) if weights is None else weights
            return state, (updates, weights, finite)

        return jax.lax.scan(step, tx.init(params), (rows, losses))[1]

    return run


def _is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _result(out):
    updates, weights, finite = out
    exact, half = (np.asarray(updates[n], np.float64) for n in ("a", "b"))
    lead = exact.shape[:-2]
    return Result(exact.reshape(*lead, -1), half, np.asarray(weights, np.float64), finite)


@functools.cache
def batched(name: str) -> dict[str, Result]:
    """Every scenario, in one compiled program."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *SCENARIOS.values())
    out = jax.jit(jax.vmap(steps_of(name, ALL, True)))(*stacked)
    result = _result(out)
    return {s: Result(*(x[k] for x in result)) for k, s in enumerate(SCENARIOS)}


@functools.cache
def alone(name: str, tasks: tuple[int, ...]) -> Result:
    """The base problem of some of the tasks, without batch and without `active`."""
    return _result(jax.jit(steps_of(name, tasks, False))(*BASE.take(tasks)))


def size_of(scenario: str, weights: np.ndarray) -> float:
    """Σ |w_t| ‖g_t‖, or the sum of the norms where a rule reports no weights."""
    rows = SCENARIOS[scenario].rows
    flat = np.concatenate(
        [np.asarray(leaf, np.float64).reshape(STEPS, 4, -1) for leaf in rows.values()], axis=2
    )
    norms = np.nan_to_num(np.linalg.norm(flat, axis=2))
    weights = weights if weights.any() else np.ones_like(weights)
    return float((np.abs(weights) * norms).max())


def close(found: Result, expected: Result, size: float, tol: float = 1024 * EPS):
    """Directions within tol of the size of what they sum, bfloat16 ones within its own digits."""
    np.testing.assert_allclose(found.exact, expected.exact, rtol=0, atol=tol * size)
    np.testing.assert_allclose(found.half, expected.half, rtol=HALF, atol=(tol + HALF / 8) * size)


@pytest.mark.parametrize("name", [n for n in NAMES if RULES[n].permutes and not RULES[n].draws])
def test_permuting_the_tasks_permutes_the_weights(name):
    found, base = batched(name)["permuted"], batched(name)["base"]
    close(found, base, size_of("base", base.weights))
    np.testing.assert_allclose(
        found.weights, base.weights[:, ORDER], atol=1024 * EPS * np.abs(base.weights).max()
    )


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        (name, scenario)
        for name in NAMES
        for scenario in ("scaled", "huge", "tiny")
        if RULES[name].degree is not None and (RULES[name].extreme or scenario == "scaled")
    ],
)
def test_a_common_factor_of_the_gradients(name, scenario):
    degree = RULES[name].degree
    assert degree is not None
    factor = {"scaled": 8.0, "huge": HUGE, "tiny": 1 / HUGE}[scenario] ** degree
    found, base = batched(name)[scenario], batched(name)["base"]
    expected = Result(base.exact * factor, base.half * factor, base.weights, base.finite)
    close(found, expected, size_of("base", base.weights) * factor)


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        (name, scenario)
        for name in NAMES
        for scenario in ("base", "duplicates", "huge", "tiny")
        if RULES[name].descends and (RULES[name].extreme or scenario in ("base", "duplicates"))
    ],
)
def test_the_direction_conflicts_with_no_task(name, scenario):
    found, problem = batched(name)[scenario], SCENARIOS[scenario]
    for k in range(STEPS):
        d = np.concatenate([found.exact[k], found.half[k]])
        rows = np.concatenate(
            [np.asarray(leaf[k], np.float64).reshape(4, -1) for leaf in problem.rows.values()],
            axis=1,
        )
        norms = np.linalg.norm(rows, axis=1)
        # The direction's bfloat16 half is rounded after the rule.
        rounding = (64 * EPS + HALF) * (np.abs(found.weights[k]) @ norms)
        assert (rows @ d >= -rounding * norms).all()
        assert np.linalg.norm(d) > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "scenario",
    ["spread", "duplicates", "zero row", "zeros", "opposed", "collinear", "huge", "tiny"],
)
def test_degenerate_gradients_give_finite_directions_and_states(name, scenario):
    found = batched(name)[scenario]
    assert np.isfinite(found.exact).all() and np.isfinite(found.half).all()
    assert np.isfinite(found.weights).all()
    assert np.all(found.finite)
    if scenario == "zeros":
        assert not found.exact.any() and not found.half.any()


@pytest.mark.parametrize("name", NAMES)
def test_where_all_gradients_are_equal_it_follows_them(name):
    found = batched(name)["unanimous"]
    for k in range(1 if RULES[name].tracks else STEPS):
        gradient = SCENARIOS["unanimous"].rows["a"][k, 0].ravel().astype(np.float64)
        factor = found.exact[k] @ gradient / (gradient @ gradient)
        assert factor > 0
        np.testing.assert_allclose(
            found.exact[k], factor * gradient, atol=64 * EPS * factor * np.abs(gradient).max()
        )


@pytest.mark.parametrize("name", NAMES)
def test_one_task_is_followed(name):
    found = alone(name, (1,))
    for k in range(1 if RULES[name].tracks else STEPS):
        gradient = BASE.rows["a"][k, 1].ravel().astype(np.float64)
        factor = found.exact[k] @ gradient / (gradient @ gradient)
        assert factor > 0
        np.testing.assert_allclose(found.exact[k], factor * gradient, rtol=64 * EPS)
        if RULES[name].single:
            np.testing.assert_allclose(found.exact[k], gradient, rtol=16 * EPS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scenario", ["nan", "inf"])
def test_a_bad_step_shows_and_leaves_no_trace(name, scenario):
    """The second step repeats the first one without the bad row: as if there had been no other."""
    found, base = batched(name)[scenario], batched(name)["base"]
    assert not np.isfinite(found.exact[0]).any()
    assert np.all(found.finite)
    rule = RULES[name].make(ALL)
    if "gramian" in rule.reads or "cross_gramian" in rule.reads:
        assert np.isnan(found.weights[0]).all()
    assert np.isfinite(found.exact[1]).all()
    if RULES[name].draws == "weights":
        return  # what it draws does not depend on the gradients, bad or not
    again = Result(found.exact[1], found.half[1], found.weights[1], found.finite[1])
    fresh = Result(base.exact[0], base.half[0], base.weights[0], base.finite[0])
    close(again, fresh, size_of("base", base.weights), 16 * EPS)


@pytest.mark.parametrize("name", claiming("active"))
def test_active_tasks_are_the_smaller_problem(name):
    kept = RULES[name].smaller
    found = batched(name)[f"masked {kept}"]
    left = [t for t in ALL if t not in kept]
    assert (found.weights[:, left] == 0).all()
    assert np.all(found.finite)
    if RULES[name].draws == "weights":
        full = batched(name)["base"].weights[:, kept]
        np.testing.assert_allclose(
            found.weights[:, kept], full / full.sum(axis=1, keepdims=True), rtol=32 * EPS
        )
        return
    expected = alone(name, kept)
    weights = np.zeros_like(found.weights)
    weights[:, list(kept)] = expected.weights
    np.testing.assert_allclose(
        found.weights, weights, atol=1024 * EPS * np.abs(weights).max(initial=0)
    )
    close(found, expected, size_of("base", weights))


@pytest.mark.parametrize("name", NAMES)
def test_no_active_task_gives_zero(name):
    found = batched(name)["none active"]
    assert not found.exact.any() and not found.half.any() and not found.weights.any()
    assert np.all(found.finite)


@pytest.mark.parametrize("name", claiming("vmap"))
def test_a_batch_of_problems_is_each_of_them(name):
    base = batched(name)["base"]
    close(base, alone(name, ALL), size_of("base", base.weights), 256 * EPS)


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
    return fresh, jax.tree.map(lambda x: ~x if x.dtype == bool else x + 1, fresh)


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
    matrix = jnp.array([[2.0, -1.0], [-1.0, 1.0]])
    weigh = [
        r.update(r.init(2), gramian=matrix)[0] for r in (rule, pickle.loads(pickle.dumps(rule)))
    ]
    np.testing.assert_array_equal(*weigh)


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
    given = {n: jnp.ones(4) for n in rule.reads} | {"gramian": gramian(rows)}
    given["cross_gramian"] = cross_gramian(rows, rows)
    with pytest.raises(ValueError, match=r"state at '.*': expected shape .* for 4 tasks, got"):
        if isinstance(rule, RowRule):
            apply_row_rule(rule, fewer.init(params, 3), rows, **given)
        else:
            update_weights(rule, fewer.init(3), num_tasks=4, **given)


@pytest.mark.parametrize("make", [weighting.min_norm, weighting.trimmed_mean])
def test_steps_outside_of_jit_trace_the_rule_once(make):
    rule, traced = make(), []

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
    step = jax.jit(lambda key: tx.update(rows, state, key=key))
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


# The modes of the oracle


def encode(shared, batch):
    return jnp.tanh(batch["x"] @ shared["w"] + shared["b"][None])


def _head(t):
    return lambda own, z, batch: jnp.mean((z @ own - batch["y"][t]) ** 2)


HEADS = {name: _head(t) for t, name in enumerate("abcd")}
MODES = {
    "exact": {"mode": "parameters"},
    "representation": {"mode": "representation"},
    "lean": {"mode": "parameters", "lean": True},
}


@functools.cache
def model():
    rng = np.random.default_rng(1)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    shared = {"w": normal(4, 3), "b": normal(3)}
    own = {name: normal(3) for name in HEADS}
    batch = {"x": normal(6, 4), "y": normal(4, 6)}

    def losses(z):
        return jnp.stack([HEADS[name](own[name], z, batch) for name in HEADS])

    rows = jax.jacobian(lambda s: losses(encode(s, batch)))(shared)
    z_rows = jax.jacobian(losses)(encode(shared, batch))
    values = losses(encode(shared, batch))
    own_rows = {n: jax.grad(HEADS[n])(own[n], encode(shared, batch), batch) for n in HEADS}
    return shared, own, batch, values, rows, z_rows, own_rows


@functools.cache
def in_modes(name: str):
    """Gradients and weights of one step in every mode that the rule has, from one program."""
    shared, own, batch, values, rows, _, _ = model()
    rule = RULES[name].make(ALL)
    extra = {"previous_losses": values, "cross_gramian": cross_gramian(rows, rows)}
    extra = {k: v for k, v in extra.items() if k in rule.reads}
    modes = {m: options for m, options in MODES.items() if blank(name, m) is None}

    @jax.jit
    def run(shared, own, batch, extra):
        out = {}
        for mode, options in modes.items():
            oracle = multitask_value_and_grad(encode, per_task_decode(HEADS), rule, 4, **options)
            (losses, _), grads, state = oracle(shared, own, batch, oracle.init(shared), **extra)
            out[mode] = losses, grads, state.task_weights
        return out

    return run(shared, own, batch, extra), extra


@functools.cache
def on_dense_rows(name: str):
    """What the rule says of the dense gradients: direction and weights, by mode."""
    _, _, _, values, rows, z_rows, _ = model()
    rule = RULES[name].make(ALL)
    _, extra = in_modes(name)
    if isinstance(rule, RowRule):
        state = rule.init(jax.tree.map(lambda x: x[0], rows), 4)
        direction, _ = jax.jit(lambda r: apply_row_rule(rule, state, r, losses=values))(rows)
        return {"exact": (direction, None)}

    @jax.jit
    def weigh(matrix):
        given = {"gramian": matrix, "losses": values, **extra}
        return update_weights(rule, rule.init(4), num_tasks=4, **given)[0]

    exact, upper = weigh(gramian(rows)), weigh(gramian(z_rows))
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
    losses, (shared, own), weights = in_modes(name)[0][mode]
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
    with pytest.raises(ValueError, match="RowRule|lean"):
        multitask_value_and_grad(encode, per_task_decode(HEADS), rule, 4, **MODES[mode])


# Preferences


@pytest.mark.parametrize("name", claiming("preference"))
def test_a_preference_goes_with_its_task(name):
    """Permuting it with the tasks permutes the weights; equal ones are the default; it matters."""
    make = RULES[name].preference
    assert make is not None
    rows = np.concatenate([BASE.rows["a"][0].reshape(4, -1)], axis=1)
    preference = np.array([1.0, 0.25, 3.0, 0.5], np.float32)

    @jax.jit
    @jax.vmap
    def weigh(preference, rows):
        rule = make(preference)
        given = {"gramian": gramian(rows), "cross_gramian": cross_gramian(rows, rows)}
        return update_weights(rule, rule.init(4), num_tasks=4, **given)[0]

    preferences = jnp.stack([preference, preference[ORDER], np.ones(4, np.float32)])
    chosen, permuted, equal = np.asarray(weigh(preferences, np.stack([rows, rows[ORDER], rows])))
    tol = 1024 * EPS * np.abs(chosen).max()
    np.testing.assert_allclose(permuted, chosen[ORDER], atol=tol)
    given = {"gramian": gramian(rows), "cross_gramian": cross_gramian(rows, rows)}
    default = RULES[name].make(ALL)
    usual = jax.jit(lambda: update_weights(default, default.init(4), num_tasks=4, **given)[0])()
    np.testing.assert_allclose(equal, usual, atol=1024 * EPS * np.abs(usual).max())
    assert np.abs(chosen - equal).max() > 0.01 * np.abs(equal).max()
    assert np.isfinite(chosen).all()
    by_name = make({"d": 0.5, "b": 0.25, "a": 1.0, "c": 3.0})
    named, _ = update_weights(by_name, by_name.init(4), num_tasks=4, **given)
    np.testing.assert_allclose(named, chosen, atol=tol)


@pytest.mark.parametrize("name", [n for n in NAMES if blank(n, "preference")])
def test_a_rule_without_preference_takes_none(name):
    with pytest.raises(TypeError, match="preference"):
        public_rules()[name](preference=(1.0, 2.0))
