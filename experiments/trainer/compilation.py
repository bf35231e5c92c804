"""Compiled programs that one run leaves for the next."""

from pathlib import Path
from typing import Protocol

import jax


class Cached(Protocol):
    """A configuration that says where to keep what was prepared."""

    @property
    def cache_dir(self) -> Path: ...


def use_compilation_cache(config: Cached) -> None:
    """Keep compiled programs between runs."""
    folder = config.cache_dir / "jax"
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
