"""The experiments are a user's code: they run under JAX's default promotion rules."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def promotion() -> Iterator[None]:
    """Override of the strict rules that the library's own tests run under."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
