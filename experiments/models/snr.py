"""Sub-network routing: which sub-network feeds which is learned, as gates that reach 0 and 1.

Two levels of sub-networks. Each of the second reads a gated mixture of the first, each task a
gated mixture of the second. A gate is a hard concrete variable: log α is learned, and
s = clip(σ(log α + noise) (ζ − γ) + γ, 0, 1) is exactly 0 or 1 with positive probability, so
that the expected number of open gates can be penalised.

Shared: both levels and the gates between them. Own: each task's gates to the second level,
and its tower. The representation is the second level's output, (N, sub-networks, features),
together with the penalty of the shared gates: as a part of z it has a gradient there, which
a term of the loss that reads shared parameters past z would not. Exact MGDA and MGDA-UB apply.

References:
  Ma, Zhao, Chen, Li, Hong and Chi, SNR: Sub-Network Routing for Flexible Parameter Sharing in
  Multi-Task Learning, AAAI 2019.
  Louizos, Welling and Kingma, Learning Sparse Neural Networks through L0 Regularization,
  ICLR 2018.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.dense import Dense, SharedModel
from experiments.models.lenet import split

PyTree = Any
_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1  # β, γ and ζ of Louizos et al.


class Inputs(NamedTuple):
    """What the model reads: x (N, inputs), and a key for the gates' noise, None for none."""

    x: jax.Array
    key: jax.Array | None


class Routed(NamedTuple):
    """The representation.

    Attributes:
      features: (N, sub-networks, features) of the second level.
      open_gates: () expected number of open gates between the levels.
    """

    features: jax.Array
    open_gates: jax.Array


def gates(log_alpha: jax.Array, key: jax.Array | None) -> jax.Array:
    """Gates in [0, 1] of the shape of log α; without a key those of zero noise."""
    logit = log_alpha
    if key is not None:
        u = jax.random.uniform(key, log_alpha.shape, minval=1e-6, maxval=1 - 1e-6)
        logit = (jnp.log(u) - jnp.log1p(-u) + log_alpha) / _TEMPERATURE
    return jnp.clip(jax.nn.sigmoid(logit) * (_HIGH - _LOW) + _LOW, 0, 1)


def expected_open(log_alpha: jax.Array) -> jax.Array:
    """() the expected number of gates that are not zero."""
    return jnp.sum(jax.nn.sigmoid(log_alpha - _TEMPERATURE * jnp.log(-_LOW / _HIGH)))


class Levels(nnx.Module):
    """Both levels of sub-networks and the gates between them."""

    def __init__(self, inputs: int, subnets: int, features: int, *, rngs: nnx.Rngs):
        make = [Dense((inputs, features), last_relu=True, rngs=rngs) for _ in range(subnets)]
        self.first = nnx.List(make)
        make = [Dense((features, features), last_relu=True, rngs=rngs) for _ in range(subnets)]
        self.second = nnx.List(make)
        self.log_alpha = nnx.Param(jnp.full((subnets, subnets), 1.0))

    def __call__(self, inputs: Inputs) -> Routed:
        """Inputs → the representation."""
        below = jnp.stack([net(inputs.x) for net in self.first])
        mixed = jnp.einsum("ts,snf->tnf", gates(self.log_alpha[...], inputs.key), below)
        above = jnp.stack([net(z) for net, z in zip(self.second, mixed, strict=True)], axis=1)
        return Routed(above, expected_open(self.log_alpha[...]))


class Tower(nnx.Module):
    """A task's gates to the second level, and its layers on the mixture."""

    def __init__(self, subnets: int, features: int, outputs: int, *, rngs: nnx.Rngs):
        self.log_alpha = nnx.Param(jnp.full(subnets, 1.0))
        self.layers = Dense((features, features, outputs), rngs=rngs)

    def __call__(self, z: Routed, inputs: Inputs) -> jax.Array:
        """Representation → (N, outputs). The gates' noise is the same for all tasks."""
        key = None if inputs.key is None else jax.random.fold_in(inputs.key, 1)
        return self.layers(jnp.einsum("s,nsf->nf", gates(self.log_alpha[...], key), z.features))


def snr(
    inputs: int, outputs: Mapping[str, int], *, subnets: int = 3, features: int = 32
) -> SharedModel:
    """The model as pure functions.

    Args:
      inputs: features of the inputs x.
      outputs: {task: size of its output}.
      subnets: sub-networks of each level.
      features: of each sub-network.

    Returns:
      SharedModel whose x are `Inputs` and whose z is `Routed`; a loss adds a small multiple
      of z.open_gates (and of `expected_open(own[task]["log_alpha"][...])`) to close gates.

    Examples:
      >>> model = snr(5, {"a": 1, "b": 3})
      >>> shared, own = model.init(jax.random.key(0))
      >>> inputs = Inputs(jnp.ones((2, 5)), None)
      >>> model.heads["b"](own["b"], model.encode(shared, inputs), inputs).shape
      (2, 3)
    """
    levels = split(lambda rngs: Levels(inputs, subnets, features, rngs=rngs))
    towers = {
        task: split(lambda rngs, size=size: Tower(subnets, features, size, rngs=rngs))
        for task, size in outputs.items()
    }

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        level_key, *keys = jax.random.split(key, 1 + len(towers))
        own = {t: tower.init(k) for (t, tower), k in zip(towers.items(), keys, strict=True)}
        return levels.init(level_key), own

    return SharedModel(init, levels.apply, {task: tower.apply for task, tower in towers.items()})
