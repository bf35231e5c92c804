"""The gradient oracle for encoder–decoder models: MGDA-UB and exact MGDA in one pass."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mgda_jax._gramian import Gramian, rescale
from mgda_jax._oracle_arguments import (
    check_floating,
    check_keywords,
    check_loss_scale,
    check_options,
)
from mgda_jax.encoder import Constructor, check_batch_names, exact, per_task, representation
from mgda_jax.encoder import lean as lean_pullback
from mgda_jax.gradients import check_pullbacks, vjp
from mgda_jax.heads import find_layout, scale_own
from mgda_jax.mapped_axis import mean_over_axis, vary_like, varying_axes
from mgda_jax.products import accumulation_dtype
from mgda_jax.renewal import init_renewal, renew
from mgda_jax.tasks import (
    check_int,
    check_names,
    check_num_tasks,
    cotangent,
    stack_losses,
    task_mask,
)
from mgda_jax.weighting.base import RowRule, Weighting, apply_row_rule, update_weights
from mgda_jax.weighting.origin import named_arguments
from mgda_jax.weighting.state import AggregateState, check_rule, check_state, init_state

PyTree = Any


def multitask_value_and_grad(
    encode: Callable[..., Any],
    decode: Callable[..., Any],
    weighting: Weighting | RowRule,
    num_tasks: int,
    *,
    mode: str = "representation",
    has_aux: bool = False,
    scope: str | None = None,
    own_layout: str | None = None,
    inputs: str = "shared",
    lean: bool = False,
    every: int = 1,
    pullbacks: str | None = None,
    axis_name: Any = None,
) -> "MultitaskValueAndGrad":
    """Losses and gradients of an encoder with T heads, combined by a weighting rule.

    With z = encode(θ_sh) and L_t = decode_t(θ_t, z), one pullback of the heads
    gives every head's own gradient and every ∂L_t/∂z. Then

    - mode "representation" (MGDA-UB): the rule sees the Gramian of the ∂L_t/∂z and
      the encoder is pulled back once, with Σ_t w_t ∂L_t/∂z: about a plain step.
      ‖Σ w_t g_t‖ ≤ ‖∂z/∂θ_sh‖ ‖Σ w_t ∂L_t/∂z‖, so this minimises an upper bound; it
      is the exact rule where J Jᵀ (J = ∂z/∂θ_sh) acts as a multiple of the identity on
      the span of the ∂L_t/∂z, and otherwise no common descent is promised.
    - mode "parameters" (exact): the rule sees the Gramian of the per-task encoder
      gradients g_t = Jᵀ ∂L_t/∂z: T pullbacks of the encoder.

    A rule that reads no Gramian costs a plain step in either mode. A loss that reads
    θ_sh directly (a regulariser as an objective) belongs to `task_gradients`.

    Args:
      encode: `encode(shared, batch) -> z`, z any pytree of arrays.
      decode: `decode(own, zs, batch) -> losses` (array (T,), tuple or dict of
        scalars). zs holds one copy of z per task, leaves (T, *shape); loss t may
        read zs[t] and the own parameters of task t only (`check_decode` verifies;
        `per_task_decode` builds such a decode from separate heads).
      weighting: a `Weighting`, or a `RowRule` (mode "parameters" only).
      num_tasks: T, a static int.
      mode: "representation" or "parameters".
      has_aux: whether encode returns (z, aux) and decode (losses, aux).
      scope: "shared" leaves the heads' own gradients unscaled, as Algorithm 2 of
        the paper; "all" scales head t by w_t. By default the rule's own.
      own_layout: how own separates by task: "stacked" (leaves (T, ...)), "per_task"
        (a dict, tuple or list with one subtree a task, under the losses' names), or None
        (unknown; scaling heads by a Gramian's weights then takes a second pullback of the
        heads, and active is refused). Found out by itself where own and the losses are
        dicts of the same keys or sequences of T.
      inputs: "shared", or "per_task": batch is then a dict, tuple or list of T batches
        under the names of the losses (positions, where they have none), and encode runs
        once on each (aux, BatchNorm statistics included, comes once per task, as a
        tuple). Where their representations differ in shape zs is a `Ragged`, its parts
        in task order. Mode "parameters" only.
      lean: mode "parameters" without keeping all T gradients at once: the
        Gramian first, then one more pullback with the weighted cotangent.
      every: new weights every so many steps, and whenever a task is active that had no
        part in the last solve; in between the last ones are used again and the step costs
        a plain one. (Under vmap both branches run: there it saves nothing.)
      pullbacks: how the T encoder pullbacks of mode "parameters" run, see `task_gradients`;
        with lean None means "vmap".
      axis_name: the mapped axis (or axes) over which the examples are spread, in `shard_map`,
        `pmap` or `vmap`. Losses are then the means over it, and so are the gradients:
        reduced before the Gramian, so that every device has the weights of the whole batch.

    Returns:
      oracle, with `oracle.init(shared=None) -> state` (shared is needed for a
      `RowRule`) and `oracle(shared, own, batch, state, *, key=None, active=None,
      loss_scale=None, **extra) -> (losses, aux), (shared_grads, own_grads), state`.
      aux is (encode's, decode's) with has_aux, else None. active is (T,) bool: inactive
      tasks get zero weight and zero head gradients. loss_scale, a positive scalar,
      multiplies the losses before and divides the gradients after the backward
      pass. Gradients have the parameters' shapes and dtypes; state is an `AggregateState`.

    Raises:
      ValueError: an unknown option, options that exclude each other, losses that are
        not T floating scalars, parameters that are not floating, names that differ, a
        state of another oracle, something the rule reads that is missing.
      TypeError: a keyword argument that nothing reads.

    Examples:
      >>> import jax.numpy as jnp
      >>> from mgda_jax import per_task_decode
      >>> from mgda_jax.weighting import min_norm
      >>> encode = lambda shared, x: x @ shared
      >>> heads = {"a": lambda own, z, x: jnp.sum((z - own) ** 2),
      ...          "b": lambda own, z, x: jnp.sum((z + own) ** 2)}
      >>> oracle = multitask_value_and_grad(encode, per_task_decode(heads), min_norm(), 2)
      >>> own = {"a": jnp.ones(2), "b": jnp.ones(2)}
      >>> (losses, _), (shared_grads, own_grads), state = oracle(
      ...     jnp.zeros((3, 2)), own, jnp.ones((4, 3)), oracle.init())
      >>> state.task_weights, shared_grads.shape
      (Array([0.5, 0.5], dtype=float32), (3, 2))

    References:
      Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
      NeurIPS 2018, Algorithm 2 and section 3.3 (MGDA-UB).
    """
    num_tasks = check_num_tasks(num_tasks, "multitask_value_and_grad")
    scope = check_rule(weighting, scope)
    check_options(weighting, mode, inputs, own_layout, has_aux, lean)
    check_pullbacks(pullbacks)
    every = check_int(every, lambda k: k >= 1, "every: expected an int >= 1")
    if every > 1 and "gramian" not in getattr(weighting, "reads", ()):
        raise ValueError("every: applies to a Weighting that reads the Gramian")
    encoder: Constructor
    if inputs == "per_task":
        encoder = per_task(num_tasks, axis_name)
    elif mode == "representation":
        encoder = representation(num_tasks, axis_name)
    else:
        encoder = (lean_pullback if lean else exact)(num_tasks, pullbacks, axis_name)
    return MultitaskValueAndGrad(
        encode,
        decode,
        weighting,
        num_tasks,
        encoder,
        has_aux,
        scope,
        own_layout,
        inputs,
        every,
        axis_name,
    )


@dataclasses.dataclass(frozen=True)
class MultitaskValueAndGrad:
    """What `multitask_value_and_grad` returns; see there."""

    encode: Callable[..., Any]
    decode: Callable[..., Any]
    weighting: Weighting | RowRule
    num_tasks: int
    encoder: Constructor
    has_aux: bool
    scope: str
    own_layout: str | None
    inputs: str
    every: int
    axis_name: Any

    def init(self, shared: PyTree = None) -> AggregateState:
        """The state before the first step; a `RowRule` needs the shared parameters."""
        return init_renewal(self.every, init_state(self.weighting, self.num_tasks, shared))

    def __call__(
        self,
        shared: PyTree,
        own: PyTree,
        batch: PyTree,
        state: AggregateState,
        *,
        key: jax.Array | None = None,
        active: PyTree = None,
        loss_scale: Any = None,
        **extra: Any,
    ) -> tuple[tuple[PyTree, PyTree], tuple[PyTree, PyTree], AggregateState]:
        """See `multitask_value_and_grad`."""
        num_tasks, has_aux = self.num_tasks, self.has_aux
        check_keywords(extra, self.weighting.reads)
        check_floating("shared", shared)
        check_floating("own", own)
        check_state(self.weighting, state, num_tasks)
        scale = check_loss_scale(loss_scale)
        names = {"active": active, "previous_losses": extra.get("previous_losses")}
        active = task_mask(active, num_tasks)
        encoder = self.encoder(self.encode, shared, batch, has_aux)
        local, pull_heads, decode_aux = vjp(
            lambda own, zs: self.decode(own, zs, batch), own, encoder.zs, has_aux=has_aux
        )
        stack_losses(local, num_tasks)
        losses = local if self.axis_name is None else jax.lax.pmean(local, self.axis_name)
        stacked = stack_losses(losses)
        check_names({"losses": losses, **names, **named_arguments(self.weighting)})
        if self.inputs == "per_task":
            check_batch_names(batch, losses)
        layout = find_layout(self.own_layout, own, losses, needed=active is not None)
        ones = jnp.ones(num_tasks) if active is None else active.astype(jnp.zeros(()).dtype)
        given = {"losses": stacked, "active": active, "key": key, **extra}

        def pull(cotangents):
            scaled = cotangents if scale is None else cotangents * scale.astype(cotangents.dtype)
            seeds = jax.tree.map(vary_like, cotangent(local, scaled), local)
            own_grads, dzs = pull_heads(seeds)
            return mean_over_axis(own_grads, self.axis_name), dzs

        def unscale(grads):
            if scale is None:
                return grads
            return jax.tree.map(functools.partial(_divide, scale=scale), grads)

        rule: Any = self.weighting
        if isinstance(rule, RowRule):
            own_grads, dzs = pull(ones)
            rows, weights = unscale(encoder.rows(dzs)), None
            shared_grads, rule_state = apply_row_rule(rule, state.weighting, rows, **given)
        elif "gramian" in rule.reads:
            own_grads, dzs = pull(ones)

            def weigh_and_combine(rule_state):
                rows = encoder.rows(dzs)
                gram = encoder.gramian(rows, active)
                gram = gram if scale is None else rescale(gram, 1 / scale)
                _check_common(gram, rule_state)
                weights, rule_state = update_weights(
                    rule, rule_state, num_tasks=num_tasks, gramian=gram, **given
                )
                return weights, rule_state, encoder.combine(dzs, rows, weights, active)

            def combine_again(weights):
                return encoder.combine(dzs, None, weights, active)

            weights, rule_state, shared_grads = renew(
                self.every, weigh_and_combine, combine_again, state, active
            )
            shared_grads = unscale(shared_grads)
            if self.scope == "all":
                own_grads = scale_own(own_grads, layout, weights, None)
                own_grads = pull(weights)[0] if layout is None else own_grads
        else:
            # Nobody reads the gradients, so the weights ride on the cotangent of a plain step.
            weights, rule_state = update_weights(
                rule, state.weighting, num_tasks=num_tasks, **given
            )
            head_weights, z_weights = (weights, ones) if self.scope == "all" else (ones, weights)
            own_grads, dzs = pull(head_weights)
            shared_grads = unscale(encoder.combine(dzs, None, z_weights, active))
        own_grads = unscale(own_grads)
        if active is not None:
            own_grads = scale_own(own_grads, layout, None, active)
        if weights is not None and state.task_weights is not None:
            weights = weights.astype(state.task_weights.dtype)
        aux = (encoder.aux, decode_aux) if has_aux else None
        new_state = AggregateState(weights, rule_state)
        return (losses, aux), (shared_grads, own_grads), new_state


def _check_common(gram: Gramian, rule_state: PyTree) -> None:
    """ValueError where devices of a mapped axis would each find weights of their own."""
    missing = varying_axes(gram.matrix)
    for leaf in jax.tree.leaves(rule_state)[:1]:
        missing -= varying_axes(leaf)
    if missing:
        raise ValueError(
            f"axis_name: the Gramian varies over the mapped axes {sorted(missing, key=str)}, "
            "so each device would find weights of its own; expected their names"
        )


def _divide(leaf: jax.Array, scale: jax.Array) -> jax.Array:
    dtype = accumulation_dtype(leaf.dtype)
    return (leaf.astype(dtype) / scale.astype(dtype)).astype(leaf.dtype)
