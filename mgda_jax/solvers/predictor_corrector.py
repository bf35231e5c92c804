"""Mehrotra's predictor–corrector step for quadratic programs over the non-negative orthant.

min over x ≥ 0 of ½ xᵀAx + hᵀx has its minimiser where z = Ax + h ≥ 0 and x∘z = 0. From
x, z > 0, with N = A + diag(z/x) factored once, a step is

    dx = −N⁻¹(Ax + h),   c = correction(x, z, dx),   dx = N⁻¹(c − Ax − h),   advance(x, z, dx, c).

What it starts from, when it stops and what follows it are the solvers' own: docs/cost.md has
the measurements that keep two loops. Mehrotra, "On the implementation of a primal-dual interior
point method", SIAM J. Optimization 2(4), 1992.
"""

import jax
import jax.numpy as jnp

# Fraction of the way to the boundary that a step may take.
_STEP_FRACTION = 0.995


def correction(x: jax.Array, z: jax.Array, dx: jax.Array) -> jax.Array:
    """Centring and second-order term (T,) after the predictor's dx: (σμ − dx∘dz) / x."""
    dz = -z - z / x * dx
    step = jnp.minimum(_length(x, z, dx, dz), 1)
    gap = jnp.mean(x * z)
    # Mehrotra's heuristic: centre little where the predictor gets far.
    centering = (jnp.mean((x + step * dx) * (z + step * dz)) / gap) ** 3
    return (centering * gap - dx * dz) / x


def advance(
    x: jax.Array, z: jax.Array, dx: jax.Array, corrector: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """x and z after one step of a common length, which the second-order term couples; positive."""
    dz = corrector - z - z / x * dx
    step = jnp.minimum(_STEP_FRACTION * _length(x, z, dx, dz), 1)
    floor = jnp.finfo(x.dtype).tiny
    return jnp.maximum(x + step * dx, floor), jnp.maximum(z + step * dz, floor)


def _length(x, z, dx, dz):
    """The longest step that leaves x and z non-negative."""
    ratio = jnp.maximum(jnp.max(-dx / x), jnp.max(-dz / z))
    return 1 / jnp.maximum(ratio, jnp.finfo(x.dtype).tiny)
