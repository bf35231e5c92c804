"""Every argument of every rule is refused by name where it is concrete and means nothing."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import weighting
from mgda_jax.weighting.base import apply_row_rule
from tests.weighting.rules import RULES, public_rules

REQUIRED = {
    "cr_mogm": {"weighting": weighting.min_norm()},
    "dwa": {"steps_per_epoch": 2},
    "fixed": {"weights": (1.0, 2.0)},
    "pareto_mtl": {"ray": (1.0, 1.0), "others": np.eye(2)},
    "stch": {"steps_per_epoch": 2},
}
NO_NUMBER = ["x", [0.5, "x"], True, 0.5j, float("nan"), float("inf"), None]
NO_INT = [1.5, True, float("nan"), "3", None, (1,), -1]
NO_VECTOR = ["x", [1.0, float("nan")], [float("inf"), 1.0], [True, True], [1.0, 1j]]
# By argument, where the default does not tell.
BAD = {
    "every": [*NO_INT, 0, np.float32(2.0)],
    "ideal": NO_VECTOR,
    "leak": [*NO_VECTOR, 1.5, np.array([0.5, -1.0])],
    "max_norm": [*NO_NUMBER[:-1], 0.0, -1.0],
    "max_steps": [*NO_INT[:4], 0, -3],
    "min_losses": NO_VECTOR,
    "optimizer": ["adam", 0.1],
    "others": [*NO_VECTOR, None, [1.0, 2.0], [[-1.0, 1.0]], [[1.0, 0.0], [1.0]]],
    "preference": [*NO_VECTOR, [0.0, 0.0], [-1.0, 1.0]],
    "ray": [*NO_VECTOR, [0.0, 0.0], [-1.0, 1.0]],
    "rank_tolerance": [*NO_NUMBER[:-1], -1.0],
    "seed": [*NO_INT[:4], 2**70],
    "steps_per_epoch": [*NO_NUMBER, 0, 2.5],
    "tau": [*NO_VECTOR, 1.5, np.array([0.5, -1.0])],
    "warmup_epochs": [*NO_NUMBER, -1, 2.5],
    "weighting": [weighting.min_norm, "min_norm", None, weighting.graddrop()],
    "weights": [*NO_VECTOR, None],
}


def _bad_values(name, parameter):
    if parameter.name in BAD:
        return BAD[parameter.name]
    default = parameter.default
    if isinstance(default, bool):
        return ["yes", 1, None]
    if isinstance(default, int):
        return NO_INT
    if isinstance(default, float):
        return NO_NUMBER
    assert isinstance(default, str), f"{name}: no bad values for {parameter.name}"
    return ["nonsense", 3, None, ["sum"]]


CASES = [
    (name, parameter.name, value)
    for name, factory in sorted(public_rules().items())
    for parameter in inspect.signature(factory).parameters.values()
    for value in _bad_values(name, parameter)
]


@pytest.mark.parametrize(("name", "argument", "value"), CASES)
def test_a_meaningless_argument_is_named(name, argument, value):
    given = {**REQUIRED.get(name, {}), argument: value}
    with pytest.raises(ValueError, match=rf"^{name}: {argument}"):
        public_rules()[name](**given)


STATIC = ["max_steps", "num_byzantine", "num_groups", "num_selected", "num_steps", "num_trimmed",
          "primary", "warmup_steps"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, factory in sorted(public_rules().items())
        for argument in inspect.signature(factory).parameters
        if argument in STATIC
    ],
)
def test_numpy_ints_are_ints_and_arrays_are_not_static(name, argument):
    factory = public_rules()[name]
    factory(**{argument: np.int64(1)})
    with pytest.raises(ValueError, match=f"{name}: {argument}.* static int"):
        factory(**{argument: jnp.array(1)})


@pytest.mark.parametrize("name", [n for n in sorted(RULES) if RULES[n].preference])
def test_a_preference_of_another_length_is_refused(name):
    make = RULES[name].preference
    assert make is not None
    rule = make((1.0, 2.0, 3.0))
    given = {"gramian": jnp.eye(2), "cross_gramian": jnp.eye(2), "losses": jnp.ones(2)}
    with pytest.raises(ValueError, match=f"{name}: preference: expected 2"):
        rule.update(rule.init(2), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_byzantine": 12}, "num_byzantine=12 needs at least 15 tasks, got 2"),
        ({"num_byzantine": 1}, "num_byzantine=1 needs at least 4 tasks, got 2"),
        ({"num_byzantine": 0, "num_selected": 3}, "num_selected must be <= 2 tasks, got 3"),
    ],
)
def test_krum_is_refused_where_it_has_too_few_tasks(options, message):
    rule = weighting.krum(**options)
    with pytest.raises(ValueError, match=message):
        rule.init(2)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda m: rule.update((), gramian=m)[0], jnp.eye(2))


@pytest.mark.parametrize("tasks", [1, 2, 3, 4])
def test_the_trimmed_mean_of_few_rows_is_their_median(tasks):
    rows = jnp.arange(3.0 * tasks).reshape(tasks, 3) ** 2
    rule = weighting.trimmed_mean(num_trimmed=2)
    direction, _ = apply_row_rule(rule, rule.init(jnp.zeros(3), tasks), rows)
    np.testing.assert_allclose(direction, np.median(rows, axis=0), rtol=1e-6)


@pytest.mark.parametrize("name", ["graddrop", "gradvac", "pcgrad", "random", "rlw"])
def test_a_seed_may_be_an_array(name):
    """So that runs with many seeds are one program."""
    factory = public_rules()[name]

    def keys(seed):
        rule = factory(seed=seed)
        init = rule.init(jnp.zeros(2), 2) if name == "graddrop" else rule.init(2)
        return init.key

    swept = jax.vmap(keys)(jnp.arange(3))
    for same in (keys(2), keys(np.int64(2)), keys(jnp.array(2))):
        np.testing.assert_array_equal(same, swept[2])
