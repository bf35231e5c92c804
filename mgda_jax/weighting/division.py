"""Divisions in which a zero is a value and not an accident."""

import jax
import jax.numpy as jnp


def one_for_zero(divisor: jax.Array) -> jax.Array:
    """The divisor with ones for its zeros; a NaN stays."""
    return jnp.where(divisor == 0, jnp.ones_like(divisor), divisor)


def divide(vector: jax.Array, divisor: jax.Array) -> jax.Array:
    """vector / divisor, zero where the divisor is."""
    return jnp.where(divisor == 0, jnp.zeros_like(vector), vector / one_for_zero(divisor))
