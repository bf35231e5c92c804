"""Rays in the space of losses: the ratio of the losses to end at."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mgda_jax.tasks import task_vector
from mgda_jax.weighting.arguments import check_each
from mgda_jax.weighting.division import one_for_zero

PyTree = Any


def check_ray(ray: PyTree, name: str) -> None:
    """ValueError unless a concrete ray is finite and ≥ 0, not all zero; None is equal losses."""
    if ray is not None:
        message = f"{name} must be finite and non-negative, not all zero"
        check_each(ray, lambda x: np.all(x >= 0) and np.any(x), message)


def task_ray(
    ray: PyTree, num_tasks: int, dtype: Any, active: jax.Array | None, name: str
) -> jax.Array:
    """(T,) of length one, zero for inactive tasks."""
    vector = jnp.ones(num_tasks, dtype)
    if ray is not None:
        vector = task_vector(ray, num_tasks, name, dtype)
    return unit_rays(vector, active)


def unit_rays(rays: jax.Array, active: jax.Array | None) -> jax.Array:
    """Rays (..., T) over the active tasks, of length one; zero where nothing is left."""
    if active is not None:
        mask = jnp.reshape(active, (1,) * (rays.ndim - 1) + active.shape)
        rays = jnp.where(mask, rays, jnp.zeros_like(rays))
    rays = rays / one_for_zero(jnp.max(rays, axis=-1, keepdims=True))
    return rays / one_for_zero(jnp.sqrt(jnp.sum(rays * rays, axis=-1, keepdims=True)))
