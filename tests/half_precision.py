"""float16 where jaxlib compiles it: on x86 without F16C it lacks the conversions."""

import functools

import jax
import jax.numpy as jnp
import pytest


@functools.cache
def _compiles() -> bool:
    try:
        values = jnp.arange(8, dtype=jnp.float16)
        jax.block_until_ready(jax.jit(lambda x: jnp.max(jnp.abs(x)))(values))
    except jax.errors.JaxRuntimeError as error:
        if "Failed to materialize symbols" not in str(error):
            raise
        return False
    return True


def needs(dtype: jax.typing.DTypeLike) -> None:
    """Skip the running test where it is of float16 and a reduction of that does not compile."""
    if dtype == jnp.float16 and not _compiles():
        pytest.skip("jaxlib has no float16 conversions for this instruction set (no F16C)")
