"""Methods by name."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.trainer.methods import MethodError, method_names, parse_methods, rule_names
from mgda_jax import RowRule, Weighting

TASKS = ("left", "right")


def parse(text: str, grid: int = 9):
    return parse_methods(text, TASKS, grid, steps_per_epoch=7)


def test_every_rule_of_the_package_makes_a_method():
    names = rule_names()
    assert {"uniform", "min_norm"} <= set(names)
    assert not {"fixed", "cr_mogm"} & set(names)  # these cannot do without an argument
    for name in names:  # krum needs four tasks
        (method,) = parse_methods(name, list("abcd"), 9, 7)
        assert isinstance(method.rule(jnp.ones(2)), (Weighting, RowRule)), name
        assert len(method.variants) == 1 and method.variants[0].scored.all()


def test_single_is_one_model_a_task():
    (single,) = parse("single")
    assert [v.name for v in single.variants] == list(TASKS)
    for t, variant in enumerate(single.variants):
        np.testing.assert_array_equal(variant.coefficients, np.eye(2)[t])
        np.testing.assert_array_equal(variant.scored, np.eye(2)[t].astype(bool))


def test_grid_is_inside_the_simplex():
    (grid,) = parse("grid", grid=9)
    weights = np.stack([v.coefficients for v in grid.variants])
    np.testing.assert_allclose(weights[:, 0], np.arange(1, 10) / 10, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    assert len({v.name for v in grid.variants}) == 9


def test_names_suffixes_and_options():
    plain, ub, options = parse("min_norm, mgda_ub ,mgda(normalization=l2, max_steps=3)")
    assert (plain.mode, ub.mode, options.mode) == ("parameters", "representation", "parameters")
    assert options.spec == "mgda(normalization=l2, max_steps=3)"
    mean = parse("uniform(reduction=mean)")[0].rule(jnp.ones(2))
    assert isinstance(mean, Weighting)
    np.testing.assert_allclose(mean.update(mean.init(2))[0], [0.5, 0.5])


def test_nested_values_and_rules():
    fixed, wrapped = parse("fixed(weights=(0.25, 0.75)),cr_mogm(weighting=cagrad(c=0.2),alpha=0.5)")
    rule = fixed.rule(jnp.ones(2))
    assert isinstance(rule, Weighting)
    np.testing.assert_allclose(rule.update(rule.init(2))[0], [0.25, 0.75])
    assert "gramian" in wrapped.rule(jnp.ones(2)).reads


def test_rules_of_the_epoch_learn_its_length():
    rule = parse("dwa")[0].rule(jnp.ones(2))
    assert isinstance(rule, Weighting) and "losses" in rule.reads


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no method 'nothing'; expected one of single, grid, mgda, mgda_ub"),
        ("mgad", r"no method 'mgad' \(did you mean mgda\?\)"),
        ("nash_mlt_ub", r"no method 'nash_mlt' \(did you mean nash_mtl\?\)"),
        ("mgda(normalisation=l2)", r"got normalisation \(did you mean normalization\?\)"),
        ("mgda,mgda", "named twice"),
        ("mgda(", "cannot read"),
        ("mgda(l2)", "expected option=value"),
        ("mgda(norm=l2)", "takes the options normalization"),
        ("mgda(normalization=max)", "normalization must be one of"),
        ("single(a=1)", "takes no options"),
        ("fixed", r"fixed needs weights, as in fixed\(weights=...\)"),
        ("cr_mogm(weighting=nothing)", "no method 'nothing'"),
        ("uniform_ub", "uniform reads no Gramian, so there is no uniform_ub"),
        ("", "no method|cannot read"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(text: str, message: str):
    with pytest.raises(MethodError, match=message) as info:
        parse(text)
    assert "\n" not in str(info.value) and str(info.value).startswith("--methods: ")


@pytest.mark.parametrize("num_tasks", [3, 40])
def test_grid_of_more_tasks_is_drawn_from_the_simplex(num_tasks: int):
    names = tuple(f"task{i:02}" for i in range(num_tasks))
    (grid,), (again,) = (parse_methods("grid", names, 200, 7) for _ in range(2))
    weights = np.stack([v.coefficients for v in grid.variants])
    np.testing.assert_array_equal(weights, np.stack([v.coefficients for v in again.variants]))
    assert (weights >= 0).all() and len({v.name for v in grid.variants}) == 200
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    # Each weight of a uniform draw has mean 1/T and variance (T − 1) / (T²(T + 1)).
    spread = np.sqrt((num_tasks - 1) / (num_tasks**2 * (num_tasks + 1)) / 200)
    assert np.abs(weights.mean(axis=0) - 1 / num_tasks).max() < 4.5 * spread


def test_names_for_help_are_unique():
    assert len(method_names()) == len(set(method_names()))


def test_all_is_single_every_rule_and_the_upper_bound():
    methods = parse_methods("all", ["left", "right"], 9, 50)
    specs = [method.spec for method in methods]
    named = {"mgda" if name == "min_norm" else name for name in rule_names()}
    few = {"krum"}  # needs more tasks
    assert set(specs) == (named - few) | {"single", "mgda_ub", "cr_mogm(weighting=min_norm)"}
    assert len(specs) == len(set(specs))
    more = parse_methods("all", ["a", "b", "c", "d"], 9, 50)
    assert {method.spec for method in more} == set(specs) | few
