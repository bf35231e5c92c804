"""What there is to log of a multi-task step, as a flat dict of named floats."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mgda_jax._aggregate import aggregate_states
from mgda_jax._diagnostics import Diagnostics
from mgda_jax._recorded import Recorded
from mgda_jax.tasks import stack_losses, task_names
from mgda_jax.weighting._min_norm import MinNormReport
from mgda_jax.weighting.state import AggregateState

PyTree = Any


def log_dict(
    state: PyTree, losses: PyTree = None, *, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """One step's numbers by name, for wandb, TensorBoard, MLflow or a line of JSON.

    Nothing is computed twice: what a step found is in its state, and the geometry of the
    gradients is there where the rule is `recorded`. In the formulas of `diagnostics`:

    - `loss/left` L_t, where losses are given;
    - `weight/left` w_t; `dominating_task` argmax |w_t|, counted from 0, and
      `dominating_share` max |w_t| / Σ |w_t|;
    - `min_norm` and `kkt`, of `min_norm`: the norm and the solver's certificate;
    - of a recorded rule `norm/left` ‖g_t‖, `direction_cosine/left` cos(g_t, d),
      `cosine/left/right` of each pair, `cosine_min` and `cosine_mean` over the pairs,
      `conflicts` (pairs with ⟨g_s, g_t⟩ < 0), `direction_norm` ‖d‖, `stationarity`
      ‖d‖ / max ‖g_t‖.

    A step whose gradients were not finite shows as NaN in all of them (of a `RowRule`, which
    reports no weights, the last step whose direction was finite shows).

    Args:
      state: an `AggregateState`: of the oracle, of a probe's cotangent (`branch_probe`), or
        the one inside any optimiser's state.
      losses: the losses pytree, or None; a dict also names the tasks.
      names: T names in task order, for losses without names ("0", "1", … by default).

    Returns:
      Dict of floats, in one transfer from the device; of scalars () where state is traced,
      to be returned from a jitted step.

    Raises:
      ValueError: no AggregateState in state or several, arrays with further axes (of `vmap`:
        log one run at a time), names that are not T different ones.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from mgda_jax import aggregate, recorded
      >>> from mgda_jax.weighting import min_norm
      >>> tx = optax.chain(aggregate(recorded(min_norm()), num_tasks=2), optax.adam(1e-3))
      >>> rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> _, state = tx.update(rows, tx.init(jnp.zeros(3)))
      >>> log = log_dict(state, names=["left", "right"])
      >>> {name: round(log[name], 3) for name in ("weight/left", "norm/left", "cosine_min")}
      {'weight/left': 0.6, 'norm/left': 4.243, 'cosine_min': -0.841}
    """
    found = _only_state(state)
    reports = _nodes(found, Recorded)
    minima = _nodes(found, MinNormReport)
    weights = found.task_weights
    num_tasks = _num_tasks(weights, reports, losses)
    values = None if losses is None else stack_losses(losses, num_tasks)
    labels = _labels(losses, names, num_tasks)
    report = (reports[0].diagnostics, reports[0].known) if reports else None
    minimum = (minima[0].min_norm, minima[0].kkt) if minima else None
    out = _entries(weights, report, minimum, values, labels)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(out)):
        return out
    return {name: float(value) for name, value in jax.device_get(out).items()}


@functools.partial(jax.jit, static_argnames="names")
def _entries(
    weights: jax.Array | None,
    report: tuple[Diagnostics, jax.Array] | None,
    minimum: tuple[jax.Array, jax.Array] | None,
    losses: jax.Array | None,
    names: tuple[str, ...],
) -> dict[str, jax.Array]:
    out: dict[str, jax.Array] = {}
    if losses is not None:
        out |= _by_task("loss", losses, names)
    sound = jnp.array(True)
    if weights is not None:
        sound = jnp.all(jnp.isfinite(weights))
        out |= _by_task("weight", weights, names)
        size = jnp.abs(weights)
        total = jnp.sum(size)
        out["dominating_task"] = jnp.argmax(size).astype(weights.dtype)
        out["dominating_share"] = jnp.max(size) / jnp.where(total > 0, total, jnp.ones_like(total))
    if minimum is not None:
        out["min_norm"], out["kkt"] = minimum
    if report is not None:
        found, known = report
        # The probe of `branch` carries a bool as a float.
        out |= _geometry(found, names, known.astype(bool))
    kept = [name for name in out if name.split("/")[0] in ("loss", "weight")]
    return {
        name: value if name in kept else jnp.where(sound, value, jnp.nan)
        for name, value in out.items()
    }


def _geometry(found: Diagnostics, names: tuple[str, ...], known: jax.Array) -> dict[str, jax.Array]:
    out = _by_task("norm", found.norms, names)
    out |= _by_task("direction_cosine", found.direction_cosines, names)
    pairs = [(s, t) for s in range(len(names)) for t in range(s + 1, len(names))]
    if pairs:
        first, second = map(jnp.array, zip(*pairs, strict=True))
        cosines = found.cosines[first, second]
        for k, (s, t) in enumerate(pairs):
            out[f"cosine/{names[s]}/{names[t]}"] = cosines[k]
        out["cosine_min"], out["cosine_mean"] = jnp.min(cosines), jnp.mean(cosines)
        out["conflicts"] = jnp.sum(cosines < 0).astype(cosines.dtype)
    out["direction_norm"] = found.direction_norm
    out["stationarity"] = found.stationarity
    return {name: jnp.where(known, value, jnp.nan) for name, value in out.items()}


def _by_task(what: str, vector: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    return {f"{what}/{name}": vector[t] for t, name in enumerate(names)}


def _only_state(state: PyTree) -> AggregateState:
    states = aggregate_states(state)
    if len(states) != 1:
        raise ValueError(
            f"state: expected one AggregateState, got {len(states)} in {type(state).__name__}; "
            "aggregate_states(state) gives all that there are"
        )
    return states[0]


def _nodes(tree: PyTree, kind: type) -> list[Any]:
    """The first node of a type on every branch, which is the outermost."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    if not any(isinstance(leaf, kind) for leaf in leaves):
        return []
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def _num_tasks(weights: jax.Array | None, reports: list[Recorded], losses: PyTree) -> int | None:
    """T; None for a `RowRule` that is not recorded, and without losses."""
    vector = weights
    if vector is None and reports:
        vector = reports[0].diagnostics.norms
    if vector is None:
        return None if losses is None else len(stack_losses(losses))
    if vector.ndim != 1:
        raise ValueError(
            f"state: expected task_weights of shape (T,), got {vector.shape}; of runs under vmap "
            "log one at a time: jax.tree.map(lambda leaf: leaf[0], state)"
        )
    return len(vector)


def _labels(losses: PyTree, names: Sequence[str] | None, num_tasks: int | None) -> tuple[str, ...]:
    given = () if names is None else tuple(names)
    own = None if losses is None else task_names(losses)
    count = num_tasks or 0
    plain = tuple(str(t) for t in range(count))
    if names is None:
        return plain if own is None else own
    if own not in (None, plain, given):
        raise ValueError(f"names: expected those of the losses, {own}, got {given}")
    strings = all(isinstance(name, str) for name in given)
    if not strings or len(given) != count or len(set(given)) != count:
        raise ValueError(f"names: expected {count} different names in task order, got {names!r}")
    return given
