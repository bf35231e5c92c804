"""The keys of rules that draw, held as numbers: every checkpoint format can store those."""

from typing import Any

import jax
import jax.numpy as jnp

from mgda_jax.tasks import check_int


def new_key(seed: Any) -> jax.Array:
    """The data (uint32) of the key of a seed, for a state."""
    return jax.random.key_data(jax.random.key(seed))


def check_seed(seed: Any, rule: str) -> None:
    """Raise ValueError unless the seed is an int (an array of one may be traced)."""
    message = f"{rule}: seed must be an int"
    check_int(seed, lambda n: -(2**63) <= n < 2**63, message, traced=True)


def draw_key(own: jax.Array, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The next state's key data, and the typed key of this draw.

    A key that is given, typed or raw, replaces the draw from the state's own.
    """
    if key is not None:
        return own, key if _is_typed(key) else jax.random.wrap_key_data(key)
    following, now = jax.random.split(jax.random.wrap_key_data(own))
    return jax.random.key_data(following), now


def _is_typed(key: jax.Array) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
