"""What every indicator asks of the points that it is given."""

from typing import Any


def check_points(points: Any, name: str = "points", num_tasks: int | None = None) -> None:
    """ValueError unless an array is (N, T), with N and T at least one and T as given."""
    shape = points.shape
    if len(shape) != 2 or 0 in shape or num_tasks not in (None, shape[1]):
        columns = "T" if num_tasks is None else num_tasks
        raise ValueError(f"{name}: expected shape (N, {columns}), got {shape}")
