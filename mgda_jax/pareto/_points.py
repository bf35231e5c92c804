"""What every indicator asks of the points that it is given."""

from typing import Any


def check_points(points: Any, name: str = "points", num_tasks: int | None = None) -> None:
    """ValueError unless an array is (N, T), with N and T at least one and T as given."""
    shape = points.shape
    if len(shape) != 2 or 0 in shape or num_tasks not in (None, shape[1]):
        columns = "T" if num_tasks is None else num_tasks
        raise ValueError(f"{name}: expected shape (N, {columns}), got {shape}")


def check_reference(points: Any, reference: Any, name: str) -> None:
    """ValueError unless points are (N, T) with T ≥ 2, and the reference (T,)."""
    check_points(points)
    if points.shape[1] < 2 or reference.shape != points.shape[1:]:
        raise ValueError(
            f"{name}: expected points (N, T) with T >= 2 and reference (T,), got "
            f"{points.shape}, {reference.shape}"
        )
