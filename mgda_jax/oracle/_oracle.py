"""The gradient oracle for encoder–decoder models: MGDA-UB and exact MGDA in one pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mgda_jax._combine import combine, common, divide
from mgda_jax.gradients import vjp
from mgda_jax.mapped_axis import mean_over_axis, vary_like
from mgda_jax.oracle._arguments import (
    ModeName,
    OwnLayout,
    as_mode,
    check_floating,
    check_keywords,
    check_loss_scale,
    check_options,
)
from mgda_jax.oracle._heads import find_layout, scale_heads
from mgda_jax.oracle._modes import Mode
from mgda_jax.oracle._renewal import init_renewal, renew
from mgda_jax.tasks import (
    check_int,
    check_names,
    check_num_tasks,
    cotangent,
    stack_losses,
    task_mask,
)
from mgda_jax.weighting.base import RowRule, Scope, Weighting
from mgda_jax.weighting.origin import named_arguments
from mgda_jax.weighting.state import AggregateState, check_rule, check_state, init_state

PyTree = Any


def multitask_value_and_grad(
    encode: Callable[..., Any],
    decode: Callable[..., Any],
    weighting: Weighting | RowRule,
    num_tasks: int,
    *,
    mode: ModeName | Mode = "representation",
    has_aux: bool = False,
    scope: Scope | None = None,
    own_layout: OwnLayout | None = None,
    every: int = 1,
    axis_name: Any = None,
) -> "MultitaskValueAndGrad":
    """Losses and gradients of an encoder with T heads, combined by a weighting rule.

    With z = encode(θ_sh) and L_t = decode_t(θ_t, z), one pullback of the heads
    gives every head's own gradient and every ∂L_t/∂z. The mode says of what the rule sees
    the Gramian, and how the encoder is pulled back:

    - "representation", `Representation()`: MGDA-UB. The rows are the ∂L_t/∂z and the
      encoder is pulled back once, with Σ_t w_t ∂L_t/∂z: about a plain step.
    - "exact", `Exact(pullbacks=…)`: the rows are the per-task encoder gradients
      g_t = Jᵀ ∂L_t/∂z, J = ∂z/∂θ_sh: T pullbacks of the encoder. ("parameters" says the same.)
    - "per_task", `PerTask()`: exact, where every task has a batch of its own.

    A rule that reads no Gramian costs a plain step in the first two. A loss that reads
    θ_sh directly (a regulariser as an objective) belongs to `task_gradients`.

    Args:
      encode: `encode(shared, batch) -> z`, z any pytree of arrays.
      decode: `decode(own, zs, batch) -> losses` (array (T,), tuple or dict of
        scalars). zs holds one copy of z per task, leaves (T, *shape); loss t may
        read zs[t] and the own parameters of task t only (`check_decode` verifies;
        `per_task_decode` builds such a decode from separate heads).
      weighting: a `Weighting`, or a `RowRule` (not with "representation").
      num_tasks: T, a static int.
      mode: one of the above, by name or as an object of `mgda_jax.oracle`.
      has_aux: whether encode returns (z, aux) and decode (losses, aux).
      scope: "shared" leaves the heads' own gradients unscaled, as Algorithm 2 of
        the paper; "all" scales head t by w_t. By default the rule's own.
      own_layout: how own separates by task: "stacked" (leaves (T, ...)), "per_task"
        (a dict, tuple or list with one subtree a task, under the losses' names), or None
        (unknown; scaling heads by a Gramian's weights then takes a second pullback of the
        heads, and active is refused). Found out by itself where own and the losses are
        dicts of the same keys or sequences of T.
      every: new weights every so many steps, and whenever a task is active that had no
        part in the last solve; in between the last ones are used again and the step costs
        a plain one. (Under vmap both branches run: there it saves nothing.)
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
      ValueError: an unknown option, a rule that the mode cannot serve, losses that are
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
    check_options(own_layout, has_aux)
    mode = as_mode(mode)
    mode.check_rule(weighting)
    every = check_int(every, lambda k: k >= 1, "every: expected an int >= 1")
    if every > 1 and "gramian" not in getattr(weighting, "reads", ()):
        raise ValueError("every: applies to a Weighting that reads the Gramian")
    return MultitaskValueAndGrad(
        encode, decode, weighting, num_tasks, mode, has_aux, scope, own_layout, every, axis_name
    )


@dataclasses.dataclass(frozen=True)
class MultitaskValueAndGrad:
    """What `multitask_value_and_grad` returns; see there."""

    encode: Callable[..., Any]
    decode: Callable[..., Any]
    weighting: Weighting | RowRule
    num_tasks: int
    mode: Mode
    has_aux: bool
    scope: Scope
    own_layout: OwnLayout | None
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
        num_tasks, has_aux, axis_name = self.num_tasks, self.has_aux, self.axis_name
        rule: Any = self.weighting
        check_keywords(extra, rule.reads)
        check_floating("shared", shared)
        check_floating("own", own)
        check_state(rule, state, num_tasks)
        scale = check_loss_scale(loss_scale)
        names = {"active": active, "previous_losses": extra.get("previous_losses")}
        active = task_mask(active, num_tasks)

        encoder = self.mode.at(
            self.encode, shared, batch, num_tasks=num_tasks, has_aux=has_aux, axis_name=axis_name
        )
        local, pull_heads, decode_aux = vjp(
            lambda own, zs: self.decode(own, zs, batch), own, encoder.zs, has_aux=has_aux
        )
        stack_losses(local, num_tasks)
        losses = local if axis_name is None else jax.lax.pmean(local, axis_name)
        check_names({"losses": losses, **names, **named_arguments(rule)})
        self.mode.check_batch(batch, losses)
        layout = find_layout(self.own_layout, own, losses, needed=active is not None)

        def pull(head_weights):
            """Every head's own gradient, and what it sends back to its copy of z."""
            if scale is not None:
                head_weights = head_weights * scale.astype(head_weights.dtype)
            seeds = jax.tree.map(vary_like, cotangent(local, head_weights), local)
            own_grads, dzs = pull_heads(seeds)
            return mean_over_axis(own_grads, axis_name), dzs

        def step(state, rows, total, form=None):
            given = {"losses": stack_losses(losses), "active": active, "key": key, **extra}
            return combine(
                rule, state, rows, num_tasks=num_tasks, form=form, total=total, scale=scale, **given
            )

        ones = jnp.ones(num_tasks) if active is None else active.astype(jnp.zeros(()).dtype)
        if isinstance(rule, RowRule) or "gramian" in rule.reads:
            own_grads, dzs = pull(ones)

            def fresh(state):
                return step(
                    state,
                    encoder.rows(dzs),
                    lambda rows, weights: encoder.combine(dzs, rows, weights, active),
                    lambda rows: common(encoder.gramian(rows, active), state),
                )

            def again(weights):
                return divide(encoder.combine(dzs, None, weights, active), scale)

            shared_grads, state = renew(self.every, fresh, again, state, active)
            weights = state.task_weights if self.scope == "all" else None
            if weights is not None and layout is None:
                own_grads, weights = pull(weights)[0], None
            own_grads = divide(own_grads, scale)
        else:
            # Nobody reads the gradients, so the weights ride on the cotangent of a plain step.
            def plain(_, weights):
                of_heads, of_z = (weights, ones) if self.scope == "all" else (ones, weights)
                own_grads, dzs = pull(of_heads)
                return encoder.combine(dzs, None, of_z, active), own_grads

            (shared_grads, own_grads), state = step(state, None, plain)
            weights = None
        own_grads = scale_heads(own_grads, layout, weights, active)
        aux = (encoder.aux, decode_aux) if has_aux else None
        return (losses, aux), (shared_grads, own_grads), state
