"""Sprites with 40 binary attributes: CelebA's stand-in where its files are not at hand.

Every image is one sprite on a background. Attributes are correlated through a few hidden
factors and have base rates from rare to frequent, as those of faces. Some fill the image,
some are marks of a contrast that sinks below the noise, some exist only beside others, and
some are functions of two others: tasks from easy to impossible to get right.
"""

import numpy as np

from experiments.celeba.data import Attributed, AttributeData

SIDE = 32
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 2048, 512, 1024
NUM_FACTORS = 5
_SCENE = (
    "background_blue background_bright background_gradient background_striped border noisy "
    "large square hollow red tilted left high outlined shadowed two_toned"
).split()
_MARKS = [f"mark_{letter}" for letter in "abcdefghijklmnop"]  # from plain to invisible
_CORNERS = ["corner_ne", "corner_nw", "corner_se", "corner_sw"]
_PAIRS = {
    "large_and_red": lambda a: a["large"] & a["red"],
    "left_xor_high": lambda a: a["left"] ^ a["high"],
    "square_or_hollow": lambda a: a["square"] | a["hollow"],
    "striped_xor_border": lambda a: a["background_striped"] ^ a["border"],
}
_DRAWN = [*_SCENE, *_MARKS, *_CORNERS]
TASKS = tuple(sorted([*_DRAWN, *_PAIRS]))
EASY = tuple(sorted([*_SCENE[:10], *_MARKS[:4], *_CORNERS[:3]]))  # 17, as many as CelebA's


def load_sprites(seed: int = 0) -> AttributeData:
    """The data set that a seed stands for.

    Args:
      seed: of factors, attributes and images.

    Returns:
      AttributeData of 32×32 images: 2048 train, 512 validation, 1024 test.
    """
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(NUM_FACTORS, len(_DRAWN)))
    loadings *= np.sqrt(rng.uniform(0, 0.8, len(_DRAWN))) / np.linalg.norm(loadings, axis=0)
    rates = rng.uniform(0.15, 0.6, len(_DRAWN))

    def split(size: int) -> Attributed:
        attributes = _draw_attributes(rng, loadings, rates, size)
        return Attributed(render(rng, attributes), np.stack([attributes[t] for t in TASKS], 1))

    return AttributeData(TASKS, EASY, split(NUM_TRAIN), split(NUM_VALIDATION), split(NUM_TEST))


def _draw_attributes(
    rng: np.random.Generator, loadings: np.ndarray, rates: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    own = np.sqrt(1 - np.sum(loadings**2, axis=0))
    latent = rng.normal(size=(size, NUM_FACTORS)) @ loadings
    latent = latent + own * rng.normal(size=latent.shape)  # each of variance one
    # The threshold that so many of a large sample of standard normals exceed.
    sample = np.sort(np.random.default_rng(0).normal(size=10_000))
    threshold = sample[((1 - rates) * len(sample)).astype(int)]
    drawn = dict(zip(_DRAWN, (latent > threshold).T, strict=True))
    return {**drawn, **{name: pair(drawn) for name, pair in _PAIRS.items()}}


def render(rng: np.random.Generator, attributes: dict[str, np.ndarray]) -> np.ndarray:
    """Images of sprites with given attributes.

    Args:
      rng: of positions, colours and noise.
      attributes: {name: (N,) bool} of all that are drawn.

    Returns:
      (N, 32, 32, 3) uint8.
    """
    has = {name: value[:, None, None] for name, value in attributes.items()}
    size = len(attributes["red"])
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5

    def jitter(spread: float) -> np.ndarray:
        return rng.uniform(-spread, spread, size=(size, 1, 1))

    def choose(name: str, yes: float, no: float) -> np.ndarray:
        return np.where(has[name], yes, no)

    light = choose("background_bright", 0.6, 0.4) + jitter(0.05)
    light = light + choose("background_gradient", 0.25, 0) * (y / SIDE - 0.5)
    light = light + choose("background_striped", 0.08, 0) * np.sign(np.sin(y * np.pi / 3))
    tint = np.where(has["background_blue"][..., None], [-0.12, 0, 0.12], [0.12, 0, -0.12])
    image = light[..., None] + tint

    def paint(where: np.ndarray, colour: np.ndarray | float) -> None:
        np.copyto(image, colour, where=where[..., None])

    edge = np.minimum(np.minimum(x, SIDE - x), np.minimum(y, SIDE - y))
    paint(has["border"] & (edge < 2), 0.15)

    # In the sprite's frame: u to the right, v down, in pixels from its centre.
    u = x - (SIDE / 2 + choose("left", -2.5, 2.5) + jitter(1.5))
    v = y - (SIDE / 2 + choose("high", -2.5, 2.5) + jitter(1.5))
    radius = choose("large", 8.5, 6.5) + jitter(0.7)
    along, across = (
        np.where(has["tilted"], (u + s * v) / np.sqrt(2), w) for s, w in ((1, u), (-1, v))
    )
    square = np.maximum(np.abs(along), np.abs(across)) * 1.1
    distance = np.where(has["square"], square, np.hypot(u, v))
    shadow = np.hypot(u - 2, v - 2) < radius
    paint(has["shadowed"] & shadow, 0.25)
    inside = distance < radius
    red, green = np.array([0.75, 0.3, 0.25]), np.array([0.25, 0.65, 0.35])
    colour = np.where(has["red"][..., None], red, green) + jitter(0.08)[..., None]
    colour = colour + (choose("two_toned", 0.12, 0) * (v < 0))[..., None]
    paint(inside, colour)
    paint(has["outlined"] & inside & (distance > radius - 1.3), 0.1)
    paint(has["hollow"] & (np.hypot(u, v) < 0.3 * radius), 0.9)

    for i, name in enumerate(_MARKS):  # in two rings around the centre, at their own angles
        angle, ring = 2 * np.pi * i / 8 + np.pi / 8 * (i // 8), (0.45, 0.75)[i // 8]
        spot = np.hypot(u - ring * radius * np.cos(angle), v - ring * radius * np.sin(angle)) < 1.2
        image += ((0.45 * 0.82**i) * (has[name] & spot))[..., None] * (1 if i % 2 else -1)
    for i, name in enumerate(_CORNERS):
        corner = np.hypot(x - (4, SIDE - 4)[i % 2 == 0], y - (4, SIDE - 4)[i // 2]) < 2
        image += (0.3 * (has[name] & corner))[..., None]

    noise = choose("noisy", 0.1, 0.05)[..., None] * rng.normal(size=image.shape)
    return (255 * np.clip(image + noise, 0, 1)).round().astype(np.uint8)
