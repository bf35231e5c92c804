"""Differential equations on a box, each with its solution: Helmholtz, Kovasznay flow, Burgers.

A residual takes values and derivatives of any arrays, numpy's or JAX's; a solution likewise takes
the points of either.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.pinn.burgers import VISCOSITY, burgers_solution

Array = Any  # of numpy or of JAX
RESIDUAL = "residual"  # the task that every equation has; the others are its conditions


class Jet(NamedTuple):
    """Fields and their derivatives along each of d axes at N points.

    Attributes:
      value: (N, fields).
      first: (d, N, fields), ∂u/∂x_i.
      second: (d, N, fields), ∂²u/∂x_i².
    """

    value: Array
    first: Array
    second: Array


class Condition(NamedTuple):
    """Values that are given on some faces of the box.

    Attributes:
      faces: (axis, end) each, end 0 where the axis begins and 1 where it ends.
      values: `values(points (N, d)) -> (N, fields)`.
    """

    faces: tuple[tuple[int, int], ...]
    values: Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Equation:
    """A boundary value problem with its solution.

    Attributes:
      axes: names of the d coordinates.
      fields: names of the unknowns.
      low: (d,) where the box begins.
      high: (d,) where it ends.
      residual: `residual(points (N, d), Jet) -> (N, equations)`, zero for the solution.
      solution: `solution(points (N, d)) -> (N, fields)`.
      conditions: by name; with the residual they are the tasks.
      grid: points along each axis on which solutions are compared.
    """

    axes: tuple[str, ...]
    fields: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    residual: Callable[[Array, Jet], Array]
    solution: Callable[[Array], Array]
    conditions: Mapping[str, Condition]
    grid: tuple[int, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the losses, sorted."""
        return tuple(sorted((*self.conditions, RESIDUAL)))

    def grid_points(self) -> np.ndarray:
        """(grid points, d) float64, the first axis slowest; at the middle of their cells."""
        lines = [
            low + (np.arange(n) + 0.5) / n * (high - low)
            for low, high, n in zip(self.low, self.high, self.grid, strict=True)
        ]
        return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(self.axes))

    def random_points(self, count: int, seed: int) -> np.ndarray:
        """(count, d) float64, evenly distributed."""
        unit = np.random.default_rng(seed).random((count, len(self.axes)))
        return np.array(self.low) + unit * (np.array(self.high) - np.array(self.low))


_SIDES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of a rectangle


def helmholtz(waves: tuple[int, int] = (1, 2), number: float = 1.0) -> Equation:
    """Δu + k²u = q on [−1, 1]² with u = 0 around it, made for u = sin(a₁πx) sin(a₂πy).

    Args:
      waves: (a₁, a₂), half waves to either side.
      number: k, the wave number; 0 is Poisson's equation.

    Returns:
      Equation with the conditions "boundary".

    References:
      Wang, Teng, Perdikaris, Understanding and Mitigating Gradient Flow Pathologies in
      Physics-Informed Neural Networks, SIAM J. Sci. Comput. 2021 (with a = (1, 4)).
    """
    first, second = waves

    def solution(points: Array) -> Array:
        xp = points.__array_namespace__()
        x, y = points[:, :1], points[:, 1:]
        return xp.sin(first * math.pi * x) * xp.sin(second * math.pi * y)

    def residual(points: Array, u: Jet) -> Array:
        source = (number**2 - math.pi**2 * (first**2 + second**2)) * solution(points)
        return u.second[0] + u.second[1] + number**2 * u.value - source

    boundary = Condition(_SIDES, lambda points: 0 * points[:, :1])
    return Equation(
        axes=("x", "y"),
        fields=("u",),
        low=(-1.0, -1.0),
        high=(1.0, 1.0),
        residual=residual,
        solution=solution,
        conditions={"boundary": boundary},
        grid=(64, 64),
    )


def kovasznay(reynolds: float = 40.0) -> Equation:
    """Steady Navier–Stokes flow behind a grid: u·∇u + ∇p = Δu/Re, ∇·u = 0, u and p given around.

    u = 1 − e^{λx} cos 2πy, v = λ/2π e^{λx} sin 2πy, p = (1 − e^{2λx})/2 with
    λ = Re/2 − √(Re²/4 + 4π²).

    Args:
      reynolds: Re.

    Returns:
      Equation with the conditions "boundary", on the box of the ConFIG paper.

    References:
      Kovasznay, Laminar flow behind a two-dimensional grid, Proc. Camb. Phil. Soc. 1948.
    """
    rate = reynolds / 2 - math.sqrt(reynolds**2 / 4 + 4 * math.pi**2)

    def solution(points: Array) -> Array:
        xp = points.__array_namespace__()
        x, angle = points[:, 0], 2 * math.pi * points[:, 1]
        decay = xp.exp(rate * x)
        u, v = 1 - decay * xp.cos(angle), rate / (2 * math.pi) * decay * xp.sin(angle)
        return xp.stack([u, v, (1 - decay**2) / 2], axis=1)

    def residual(points: Array, flow: Jet) -> Array:
        xp = points.__array_namespace__()
        speed, (dx, dy) = flow.value[:, :2], flow.first
        carried = speed[:, :1] * dx[:, :2] + speed[:, 1:] * dy[:, :2]
        pressure = xp.stack([dx[:, 2], dy[:, 2]], axis=1)
        momentum = carried + pressure - (flow.second[0] + flow.second[1])[:, :2] / reynolds
        divergence = dx[:, :1] + dy[:, 1:2]
        return xp.concatenate([momentum, divergence], axis=1)

    return Equation(
        axes=("x", "y"),
        fields=("u", "v", "p"),
        low=(-0.5, -0.5),
        high=(1.0, 1.5),
        residual=residual,
        solution=solution,
        conditions={"boundary": Condition(_SIDES, solution)},
        grid=(48, 64),
    )


def burgers() -> Equation:
    """u_t + u u_x = ν u_xx on [−1, 1] × [0, 1], u = −sin πx at first and 0 at both ends.

    With ν = 0.01/π a front steepens at x = 0 from t = 0.5 on.

    Returns:
      Equation with the conditions "boundary" and "initial", and the grid of the ConFIG paper.

    References:
      Raissi, Perdikaris, Karniadakis, Physics-informed neural networks, J. Comput. Phys. 2019.
    """

    def residual(points: Array, u: Jet) -> Array:
        del points
        return u.first[1] + u.value * u.first[0] - VISCOSITY * u.second[0]

    def start(points: Array) -> Array:
        return -points.__array_namespace__().sin(math.pi * points[:, :1])

    return Equation(
        axes=("x", "t"),
        fields=("u",),
        low=(-1.0, 0.0),
        high=(1.0, 1.0),
        residual=residual,
        solution=burgers_solution,
        conditions={
            "boundary": Condition(((0, 0), (0, 1)), lambda points: 0 * points[:, :1]),
            "initial": Condition(((1, 0),), start),
        },
        grid=(256, 100),
    )


EQUATIONS: dict[str, Callable[[], Equation]] = {
    "helmholtz": helmholtz,
    "poisson": lambda: helmholtz(waves=(1, 1), number=0.0),
    "burgers": burgers,
    "kovasznay": kovasznay,
}
