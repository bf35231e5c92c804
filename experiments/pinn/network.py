"""A network of coordinates, and its derivatives along each of them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.pinn.equations import Equation, Jet


@dataclasses.dataclass(frozen=True)
class Network:
    """Dense layers with tanh between them, from the coordinates of an equation to its fields.

    Its parameters are one vector: a program of some leaves takes several times as long to compile.

    Attributes:
      equation: its box is scaled to [−1, 1]ᵈ.
      width: units of a hidden layer.
      layers: hidden layers.
    """

    equation: Equation
    width: int
    layers: int

    def _shapes(self) -> list[tuple[int, ...]]:
        """Of kernel and bias, layer after layer."""
        sizes = [self.width] * self.layers
        sizes = [len(self.equation.axes), *sizes, len(self.equation.fields)]
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        return [shape for before, after in pairs for shape in ((before, after), (after,))]

    def init(self, key: jax.Array) -> jax.Array:
        """Parameters (P,): Glorot's normal kernels, biases zero."""
        shapes = self._shapes()
        deviation = [math.sqrt(2 / sum(s)) if len(s) == 2 else 0.0 for s in shapes]
        sizes = [math.prod(shape) for shape in shapes]
        scale = np.repeat(np.array(deviation, np.float32), sizes)
        return jnp.asarray(scale) * jax.random.normal(key, (sum(sizes),))

    def _unpacked(self, params: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        shapes = self._shapes()
        parts = lax.split(params, [math.prod(shape) for shape in shapes])
        shaped = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return list(zip(shaped[::2], shaped[1::2], strict=True))

    def fields(self, params: jax.Array, points: jax.Array) -> jax.Array:
        """The network at points (N, d), (N, fields)."""
        *hidden, (kernel, bias) = self._unpacked(params)
        a = self._unit(points)
        for before, shift in hidden:
            a = jnp.tanh(a @ before + shift)
        return a @ kernel + bias

    def jet(self, params: jax.Array, points: jax.Array) -> Jet:
        """The network and its first and second derivatives along each axis.

        Values and derivatives go through the layers side by side, as one batch:
        with t = tanh a and s = 1 − t², ∂t = s ∂a and ∂²t = s ∂²a − 2ts (∂a)².

        Args:
          params: (P,).
          points: (N, d).

        Returns:
          Jet.
        """
        *hidden, (kernel, bias) = self._unpacked(params)
        d = points.shape[1]
        scale = 2 / (jnp.array(self.equation.high) - jnp.array(self.equation.low))
        first = jnp.broadcast_to(jnp.diag(scale)[:, None], (d, *points.shape))
        a = jnp.concatenate([self._unit(points)[None], first, jnp.zeros_like(first)])
        for before, shift in hidden:
            a = a @ before
            t = jnp.tanh(a[0] + shift)
            s = 1 - t**2
            first, second = a[1 : d + 1], a[d + 1 :]
            a = jnp.concatenate([t[None], s * first, s * (second - 2 * t * first**2)])
        a = a @ kernel
        return Jet(a[0] + bias, a[1 : d + 1], a[d + 1 :])

    def _unit(self, points: jax.Array) -> jax.Array:
        low, high = jnp.array(self.equation.low), jnp.array(self.equation.high)
        return (2 * points - low - high) / (high - low)
