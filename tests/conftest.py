"""JAX as the tests want it: one thread a worker, compiled programs kept, no silent promotion."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent

if "JAX_PLATFORMS" not in os.environ:
    jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# The workers share the cores, so a second thread in each only gets in the way, as does a program
# split for several threads that compile it. XLA reads its flags at the first computation.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    single = "--xla_cpu_multi_thread_eigen=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{single} {os.environ.get('XLA_FLAGS', '')}"


@pytest.fixture(scope="module", autouse=True)
def promotion() -> Iterator[None]:
    """No implicit dtype or rank promotion in the library.

    Doctests and README blocks are outside: they run as a user's code does. Override the fixture
    in a folder or module whose dependencies promote (optax's adam and flax do).
    """
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
