"""Rendered street scenes: Cityscapes' stand-in where its files are not at hand.

A road towards a horizon, houses and trees along it, cars, people and poles on it, painted
from far to near. Class, instance and disparity of every pixel are those of what was painted
last, so that they are exact, occlusion included.
"""

import numpy as np

from experiments.cityscapes.data import CLASSES, IGNORE, Annotated, SceneData, with_targets

HEIGHT, WIDTH = 64, 128
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 160, 32, 64
DISPARITY_PER_ROW = 0.45  # of the ground, below the horizon
_CLASS = {name: i for i, name in enumerate(CLASSES)}


def load_street_scenes(seed: int = 0) -> SceneData:
    """The data set that a seed stands for.

    Args:
      seed: of all scenes.

    Returns:
      SceneData of 64×128 pixels: 160 train, 32 validation, 64 test.
    """
    rng = np.random.default_rng(seed)
    parts = [
        with_targets(render_scenes(rng, size)) for size in (NUM_TRAIN, NUM_VALIDATION, NUM_TEST)
    ]
    return SceneData(*parts)


def render_scenes(rng: np.random.Generator, size: int) -> Annotated:
    """So many scenes with their labels."""
    scenes = [_Canvas(rng).scene() for _ in range(size)]
    return Annotated(*(np.stack(leaves) for leaves in zip(*scenes, strict=True)))


class _Canvas:
    """One scene while it is painted."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.instances = rng, 0
        self.y, self.x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        self.image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        self.classes = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
        self.instance = np.zeros((HEIGHT, WIDTH), np.int32)
        self.disparity = np.zeros((HEIGHT, WIDTH), np.float32)
        self.measured = np.zeros((HEIGHT, WIDTH), bool)
        self.horizon = rng.uniform(20, 28)
        self.vanishing = WIDTH / 2 + rng.uniform(-15, 15)

    def paint(self, where, name, colour, disparity, instance=0, texture=0.02):
        """Cover pixels with a class; disparity None: not measurable."""
        shade = texture * self.rng.normal(size=(HEIGHT, WIDTH, 1))
        np.copyto(self.image, np.asarray(colour) + shade, where=where[..., None])
        self.classes[where] = IGNORE if name is None else _CLASS[name]
        self.instance[where] = instance
        self.measured[where] = disparity is not None
        near = np.zeros(()) if disparity is None else np.asarray(disparity)
        self.disparity[where] = np.broadcast_to(near, where.shape)[where]

    def colour(self, *base: float, spread: float = 0.08) -> np.ndarray:
        """A colour near another."""
        return np.clip(np.array(base) + self.rng.uniform(-spread, spread, 3), 0, 1)

    def depth_at(self, row: float) -> float:
        """Disparity of the ground at a row."""
        return DISPARITY_PER_ROW * (row - self.horizon)

    def scene(self) -> tuple[np.ndarray, ...]:
        """Paint everything; the arrays of an `Annotated`."""
        rng, x, y = self.rng, self.x, self.y
        light = rng.uniform(0.75, 1.0)
        everywhere = np.ones((HEIGHT, WIDTH), bool)
        self.paint(everywhere, "sky", self.colour(0.55, 0.7, 0.85), None)
        self._backdrop()
        below = y > self.horizon
        ground = DISPARITY_PER_ROW * (y - self.horizon)
        side = rng.choice(["sidewalk", "terrain"], p=[0.7, 0.3])
        side_colour = (0.55, 0.52, 0.5) if side == "sidewalk" else (0.4, 0.5, 0.25)
        self.paint(below, side, self.colour(*side_colour, spread=0.04), ground)
        road = np.abs(x - self.vanishing) < 4 + rng.uniform(1.1, 1.7) * (y - self.horizon)
        self.paint(below & road, "road", self.colour(0.35, 0.35, 0.37, spread=0.04), ground)
        feet = np.sort(rng.uniform(self.horizon + 5, HEIGHT - 6, rng.integers(4, 10)))
        for foot in feet:  # from far to near
            kind = rng.choice(
                ["car", "person", "pole", "tree", "bus"], p=[0.4, 0.25, 0.15, 0.1, 0.1]
            )
            getattr(self, f"_{kind}")(foot, rng.uniform(4, WIDTH - 4))
        hood = y > HEIGHT - 4 - 2 * np.cos((x - WIDTH / 2) / WIDTH * np.pi)
        self.paint(hood, None, (0.15, 0.15, 0.17), None)
        # Where the two cameras' views cannot be matched, nothing is measured.
        self.measured &= rng.random((HEIGHT, WIDTH)) > 0.05
        self.measured &= x > 4
        image = light * self.image + 0.03 * rng.normal(size=self.image.shape)
        return (
            (255 * np.clip(image, 0, 1)).round().astype(np.uint8),
            self.classes,
            self.instance,
            np.where(self.measured, self.disparity, 0).astype(np.float32),
            self.measured,
        )

    def _backdrop(self) -> None:
        left, rng = 0.0, self.rng
        while left < WIDTH:
            width, base = rng.uniform(10, 28), self.horizon + rng.uniform(1, 5)
            top = self.horizon - rng.uniform(-2, 22)
            inside = (self.x >= left) & (self.x < left + width) & (self.y < base + 1)
            kind = rng.choice(["building", "vegetation", "fence", ""], p=[0.5, 0.25, 0.1, 0.15])
            disparity = self.depth_at(base)
            if kind == "building":
                self.paint(inside & (self.y > top), kind, self.colour(0.6, 0.45, 0.4), disparity)
                window = (self.x % 5 < 2) & (self.y % 6 < 3) & (self.y > top + 2)
                self.paint(inside & window, kind, (0.25, 0.28, 0.35), disparity)
            elif kind == "vegetation":
                crown = top + 3 * np.sin(self.x / rng.uniform(2, 4))
                leaves = self.colour(0.2, 0.4, 0.15)
                self.paint(inside & (self.y > crown), kind, leaves, disparity, texture=0.08)
            elif kind == "fence":
                bars = (self.y > base - 5) & ((self.x % 3 < 1.5) | (self.y < base - 3.5))
                self.paint(inside & bars, kind, self.colour(0.5, 0.45, 0.35), disparity)
            left += width

    def _box(self, foot: float, middle: float, height: float, width: float) -> np.ndarray:
        return (np.abs(self.x - middle) < width / 2) & (self.y <= foot) & (self.y > foot - height)

    def _vehicle(self, foot: float, middle: float, name: str, length: float, rise: float) -> None:
        size, disparity = 0.45 * (foot - self.horizon) + 1, self.depth_at(foot)
        self.instances += 1
        paint = self.colour(*self.rng.choice([[0.7, 0.15, 0.1], [0.15, 0.2, 0.6], [0.8, 0.8, 0.8]]))
        body = self._box(foot - 0.15 * size, middle, size, length * size)
        cabin = self._box(foot - size, middle, rise * size, 0.75 * length * size)
        glass = self._box(foot - 1.1 * size, middle, 0.5 * rise * size, 0.65 * length * size)
        wheels = np.zeros_like(body)
        for end in (-0.33, 0.33):
            hub = middle + end * length * size
            wheels |= np.hypot(self.x - hub, self.y - (foot - 0.25 * size)) < 0.3 * size
        for where, colour in (
            (body | cabin, paint), (glass, (0.2, 0.25, 0.3)), (wheels, (0.08, 0.08, 0.08))
        ):  # fmt: skip
            self.paint(where, name, colour, disparity, self.instances)

    def _car(self, foot: float, middle: float) -> None:
        self._vehicle(foot, middle, "car", 2.6, 0.6)

    def _bus(self, foot: float, middle: float) -> None:
        self._vehicle(foot, middle, "bus", 3.4, 1.3)

    def _person(self, foot: float, middle: float) -> None:
        size, disparity = 0.8 * (foot - self.horizon) + 2, self.depth_at(foot)
        self.instances += 1
        legs = self._box(foot, middle, 0.45 * size, 0.22 * size + 1)
        trunk = self._box(foot - 0.45 * size, middle, 0.35 * size, 0.3 * size + 1)
        head = np.hypot(self.x - middle, self.y - (foot - 0.9 * size)) < 0.1 * size + 0.5
        for where, colour in (
            (legs, self.colour(0.2, 0.2, 0.35)), (trunk, self.colour(0.6, 0.4, 0.3, spread=0.3)),
            (head, (0.85, 0.65, 0.5)),
        ):  # fmt: skip
            self.paint(where, "person", colour, disparity, self.instances)

    def _pole(self, foot: float, middle: float) -> None:
        size, disparity = 1.5 * (foot - self.horizon) + 4, self.depth_at(foot)
        self.paint(
            self._box(foot, middle, size, 1 + 0.06 * size), "pole", (0.5, 0.5, 0.5), disparity
        )
        plate = self._box(foot - 0.75 * size, middle, 0.2 * size, 0.2 * size + 1)
        self.paint(plate, "traffic_sign", self.colour(0.9, 0.75, 0.1), disparity)

    def _tree(self, foot: float, middle: float) -> None:
        size, disparity = 1.2 * (foot - self.horizon) + 4, self.depth_at(foot)
        trunk = self._box(foot, middle, size, 0.1 * size + 1)
        crown = np.hypot(self.x - middle, self.y - (foot - size)) < 0.4 * size
        self.paint(trunk, "vegetation", (0.35, 0.25, 0.15), disparity)
        self.paint(crown, "vegetation", self.colour(0.2, 0.45, 0.15), disparity, texture=0.08)
