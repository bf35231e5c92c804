"""One order of tasks everywhere, and errors that say what was wrong with it."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mgda_jax import diagnostics, gramian, mgda, partition, task_gradients
from mgda_jax.tasks import (
    check_hyperparameter,
    check_int,
    check_names,
    check_num_tasks,
    cotangent,
    stack_losses,
    task_mask,
    task_names,
    task_vector,
    unstack_like,
)

LOSSES = [
    jnp.array([1.0, 2.0]),
    (jnp.array(1.0), jnp.array(2.0)),
    {"b": jnp.array(2.0), "a": jnp.array(1.0)},
]


@pytest.mark.parametrize("losses", LOSSES)
def test_stack_and_unstack_are_inverse(losses):
    stacked = stack_losses(losses, 2)
    np.testing.assert_array_equal(stacked, [1.0, 2.0])
    back = unstack_like(stacked, losses)
    assert jax.tree.structure(back) == jax.tree.structure(losses)
    np.testing.assert_array_equal(stack_losses(back), stacked)


def test_cotangent_takes_each_loss_dtype():
    losses = (jnp.zeros((), jnp.bfloat16), jnp.zeros((), jnp.float32))
    assert [c.dtype for c in cotangent(losses, jnp.ones(2))] == [jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_, jnp.complex64])
def test_losses_without_a_real_gradient_are_refused(dtype):
    for losses in (jnp.ones(2, dtype), {"a": jnp.ones(()), "b": jnp.ones((), dtype)}):
        where = r"losses\['b'\]" if isinstance(losses, dict) else "losses"
        with pytest.raises(ValueError, match=f"{where}: expected a real floating dtype, got "):
            stack_losses(losses)

    def of_params(x):
        return {"a": jnp.sum(x**2), "b": jnp.sum(x).astype(dtype)}

    with pytest.raises(ValueError, match=r"losses\['b'\]: expected a real floating dtype, got "):
        task_gradients(of_params)(jnp.ones(2))


def test_forgotten_aux_is_named():
    def of_params(x):
        return {"a": jnp.sum(x**2), "b": jnp.sum(x)}, 0.5

    with pytest.raises(ValueError, match="has_aux=True"):
        task_gradients(of_params)(jnp.ones(2))


def test_a_constant_loss_shows_in_the_stationarity():
    """Its zero row takes all the weight: nothing is wrong with it, but nothing moves either."""
    _, rows = task_gradients(lambda x: (jnp.sum(x**2), 1.0))(jnp.ones(2))
    _, state = mgda(2).update(rows, mgda(2).init(jnp.ones(2)), jnp.ones(2))
    shown = diagnostics(gramian(rows), state.task_weights)
    assert shown.stationarity == 0
    np.testing.assert_array_equal(shown.norms == 0, [False, True])
    np.testing.assert_array_equal(state.task_weights, [0, 1])


NAMED = {"seg": 1.0, "depth": 2.0}


@pytest.mark.parametrize(
    "other", [None, (1.0, 2.0), jnp.ones(2), {"depth": True, "seg": False}, {"all": jnp.ones(2)}]
)
def test_the_same_names_or_none_agree(other):
    check_names({"losses": NAMED, "between": None, "active": other})


@pytest.mark.parametrize(
    "other",
    [
        {"A_seg": True, "depth": True},
        {"seg": True},
        collections.OrderedDict(seg=True, depth=True),  # its order is its own
        collections.namedtuple("Active", "seg depth")(True, True),
    ],
)
def test_other_names_or_another_order_are_named(other):
    with pytest.raises(ValueError, match=r"active: .* of losses, \('depth', 'seg'\), got \('.*seg"):
        check_names({"losses": NAMED, "between": (1.0, 2.0), "active": other})


def test_task_gradients_compare_the_names_of_active_with_the_losses():
    def losses(x):
        return {"seg": jnp.sum(x**2), "depth": jnp.sum(x)}

    with pytest.raises(ValueError, match="active: .*'depth', 'seg'.*'A_seg', 'depth'"):
        task_gradients(losses)(jnp.ones(2), active={"A_seg": True, "depth": False})


def test_names_follow_the_leaves():
    assert task_names({"b": 0.0, "a": 0.0}) == ("a", "b")
    assert task_names((0.0, 0.0)) == ("0", "1")
    assert task_names(np.zeros(2)) == ("0", "1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stack_losses(jnp.zeros((2, 2))), "scalar loss per task"),
        (lambda: stack_losses({"a": jnp.zeros(3), "b": jnp.zeros(())}), r"losses\['a'\]"),
        (lambda: stack_losses(jnp.zeros(2), 3), "expected 3 tasks, got 2"),
        (lambda: stack_losses({}), "at least one task"),
        (lambda: stack_losses(jnp.zeros(0)), "at least one task"),
        (lambda: stack_losses({"a": 1.0, "b": None}), r"losses\['b'\].*got None"),
        (lambda: stack_losses(({"a": 1.0, "b": 2.0}, 0.5)), r"losses\[0\]\['a'\].*has_aux=True"),
        (lambda: stack_losses((jnp.ones(2), 0.5)), r"losses\[0\].*has_aux=True"),
        (lambda: task_vector([1.0], 2, "preference"), "preference: expected 2 entries"),
        (lambda: task_vector(jnp.zeros((2, 1)), 2, "w"), r"w: expected shape \(2,\)"),
        (lambda: task_vector({"a": jnp.zeros(2)}, 1, "w"), "w: expected one scalar per task"),
        (lambda: task_mask(jnp.ones(2), 2), "active: expected bools"),
        (lambda: task_mask(jnp.array([True]), 2), r"active: expected shape \(2,\)"),
        (lambda: check_num_tasks(0, "f"), "f: num_tasks must be an int >= 1, got 0"),
        (lambda: check_num_tasks(2.0, "f"), "got 2.0"),
        (lambda: check_num_tasks(True, "f"), "got True"),
        (lambda: jax.jit(lambda t: check_num_tasks(t, "f"))(2), "static_args"),
        (lambda: check_hyperparameter(-1, lambda c: c > 0, "c must be > 0"), "got -1"),
        (lambda: check_hyperparameter("x", lambda c: c > 0, "c must be > 0"), "got 'x'"),
        (lambda: check_hyperparameter([1.0], lambda c: True, "c must be a scalar"), "scalar"),
    ],
)
def test_clear_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_traced_hyperparameters_pass():
    def f(c):
        check_hyperparameter(c, lambda c: c > 0, "c must be > 0")
        return c

    assert jax.jit(f)(-1.0) == -1.0


def at_least_two(value, **options):
    return check_int(value, lambda n: n >= 2, "f: n must be an int >= 2", **options)


@pytest.mark.parametrize("value", [True, 2.0, 2.5, float("nan"), "2", None, [2], 1, np.bool_(1)])
def test_only_an_int_is_an_int(value):
    for traced in (False, True):
        with pytest.raises(ValueError, match="f: n must be an int >= 2, got"):
            at_least_two(value, traced=traced)


def test_a_static_int_is_a_python_int_and_no_array():
    assert type(at_least_two(np.int64(3))) is int
    with pytest.raises(ValueError, match="n must be an int >= 2: expected a static int.*static_ar"):
        at_least_two(jnp.array(3))


def test_a_traced_int_passes_where_it_may():
    assert at_least_two(jnp.array(3), traced=True) == 3
    assert jax.jit(lambda n: at_least_two(n, traced=True))(1) == 1
    with pytest.raises(ValueError, match="n must be an int >= 2, got"):
        jax.jit(lambda n: at_least_two(n, traced=True))(1.0)
    with pytest.raises(ValueError, match="n must be an int >= 2, got"):
        at_least_two(jnp.array(1), traced=True)


TREE = {"encoder": {"kernel": 1.0, "bias": 2.0}, "heads": {"a": 3.0, "b": 4.0}}


@pytest.mark.parametrize(
    "shared",
    [
        {"encoder": True, "heads": False},
        {"encoder": {"kernel": True, "bias": True}, "heads": {"a": False, "b": False}},
        lambda path: path.startswith("encoder/"),
    ],
)
def test_mask_split_and_merge(shared):
    mask = partition.shared_mask(shared, TREE)
    assert mask == [True, True, False, False]
    parts = partition.split(TREE, mask)
    assert parts == ([2.0, 1.0], [3.0, 4.0])
    assert partition.merge(jax.tree.structure(TREE), *parts, mask) == TREE


def test_none_means_everything_is_shared():
    assert partition.shared_mask(None, TREE) == [True] * 4


@pytest.mark.parametrize("owner", [{"encoder": 9, "heads": {"a": 0, "b": 1}}, None])
def test_owners(owner):
    mask = [True, True, False, False]
    expected = [None, None, 0, 1] if owner else [None] * 4
    assert partition.owners(owner, TREE, mask, 2) == expected


def test_owner_by_path_is_not_asked_about_shared_leaves():
    asked = []

    def owner(path):
        asked.append(path)
        return 0 if path.endswith("a") else 1

    assert partition.owners(owner, TREE, [True, True, False, False], 2) == [None, None, 0, 1]
    assert asked == ["heads/a", "heads/b"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: partition.shared_mask({"encoder": True}, TREE), "shared: expected a prefix"),
        (lambda: partition.shared_mask(lambda p: "yes", TREE), "shared at 'encoder/bias'"),
        (lambda: partition.shared_mask(lambda p: False, TREE), "selects no leaf.*'heads/b'"),
        (
            lambda: partition.owners(lambda p: 2, TREE, [True, True, False, False], 2),
            r"owner at 'heads/a': expected a task index in \[0, 2\), got 2",
        ),
    ],
)
def test_partition_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


BARE = {"encoder": {"kernel": 1.0, "bias": None}, "heads": {"a": None, "b": 4.0}, "rest": None}


@pytest.mark.parametrize(
    "shared",
    [
        {"encoder": True, "heads": False, "rest": True},
        {"encoder": True, "heads": False, "rest": None},
        {"encoder": {"kernel": True, "bias": True}, "heads": {"a": None, "b": False}, "rest": None},
        lambda path: path.startswith("encoder/"),
    ],
)
def test_a_none_among_the_parameters_has_no_entry(shared):
    mask = partition.shared_mask(shared, BARE)
    assert mask == [True, False]
    assert partition.merge(jax.tree.structure(BARE), *partition.split(BARE, mask), mask) == BARE
    owner = {"encoder": None, "heads": {"a": 0, "b": 1}, "rest": None}
    assert partition.owners(owner, BARE, mask, 2) == [None, 1]
    assert partition.owners({"encoder": 0, "heads": 1, "rest": 5}, BARE, mask, 2) == [None, 1]


def test_none_for_a_leaf_is_no_bool():
    with pytest.raises(ValueError, match="shared at 'encoder/bias': expected True or False, got"):
        partition.shared_mask({"encoder": {"kernel": True, "bias": None}, "heads": False}, TREE)


@jax.tree_util.register_pytree_node_class
class Layer:
    """A layer whose constructor wants arrays, and whose instances can be called."""

    def __init__(self, kernel, bias):
        if kernel is None or bias is None:
            raise TypeError("expected arrays")
        self.kernel, self.bias = kernel, bias

    def __call__(self, x):
        return x @ self.kernel + self.bias

    def tree_flatten(self):
        return (self.kernel, self.bias), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_a_node_that_refuses_none_and_is_callable_is_split_and_merged():
    layer = Layer(1.0, 2.0)
    mask = partition.shared_mask(Layer(True, False), layer)
    assert mask == [True, False]
    parts = partition.split(layer, mask)
    assert parts == ([1.0], [2.0])
    merged = partition.merge(jax.tree.structure(layer), *parts, mask)
    assert (merged.kernel, merged.bias) == (1.0, 2.0)
