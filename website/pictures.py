"""The picture of every rule on the toy of two losses, and the table of all.

    python -m website.pictures               # writes docs/images/rules/ and docs/results/toy.md
    python -m website.pictures --rules upgrad nash_mtl

Adam for 35 000 steps from the six starts of the literature, as `python -m experiments.toy`. The
rules that read losses get them with their lower bounds subtracted, so that none is negative.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from jax import lax
from PIL import Image

from experiments.report.figures import COLORS, GREY, STYLE
from experiments.toy.valleys import PROBLEMS, STARTS, losses, pareto_set
from mgda_jax import aggregate, gramian, min_norm_point, task_gradients, weighting
from tests.weighting.rules import RULES

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

DOCS = Path(__file__).parent.parent / "docs"
STEPS, POINTS, RATE = 35_000, 200, 1e-3
REACHED = PROBLEMS["valleys"].reached
LOWER = jnp.array([-2.1, -21.0])  # below the toy's least losses, -2 and -20
OWN = {  # instead of the registry's defaults, which are for four tasks or for tiny runs
    "fixed": lambda: weighting.fixed((0.7, 0.3)),
    "dwa": lambda: weighting.dwa(steps_per_epoch=100),
    "stch": lambda: weighting.stch(steps_per_epoch=100),
}


class Walk(NamedTuple):
    """Of one rule: paths (6, points, 2), distances (6,) and stationarity (6,) of the ends."""

    paths: np.ndarray
    distance: np.ndarray
    stationarity: np.ndarray


def walk(rule: Any) -> Walk:
    """Adam on the rule's direction from all starts."""
    tx = optax.chain(aggregate(rule, 2), optax.adam(RATE))
    extra = getattr(rule, "reads", frozenset())

    def step(carry: Any, key: jax.Array) -> Any:
        theta, state = carry
        values, rows = task_gradients(losses)(theta)
        values = values - LOWER
        given: dict[str, Any] = {}
        if "previous_losses" in extra:
            given["previous_losses"] = values  # there is one batch: the plane
        if "cross_gramian" in extra:
            given["cross_gramian"] = weighting.cross_gramian(rows, rows)
        updates, state = tx.update(rows, state, theta, losses=values, key=key, **given)
        return (optax.apply_updates(theta, updates), state), None

    def some_steps(carry: Any, key: jax.Array) -> Any:
        carry, _ = lax.scan(step, carry, jax.random.split(key, STEPS // POINTS))
        return carry, carry[0]

    def from_start(start: jax.Array, key: jax.Array) -> Any:
        carry = (start, tx.init(start))
        (end, _), path = lax.scan(some_steps, carry, jax.random.split(key, POINTS))
        rows = task_gradients(losses)(end)[1]
        norms = jnp.linalg.norm(rows, axis=1)
        gap = jnp.min(jnp.linalg.norm(pareto_set() - end, axis=1))
        point = min_norm_point(gramian(rows)).norm
        return jnp.concatenate([start[None], path]), gap, point / jnp.max(norms)

    keys = jax.random.split(jax.random.key(0), len(STARTS))
    return Walk(*map(np.asarray, jax.jit(jax.vmap(from_start))(STARTS, keys)))


def draw(found: Walk, path: Path) -> None:
    """One panel, as a PNG of 32 colours."""
    x, y = np.meshgrid(np.linspace(-10, 10, 121), np.linspace(-10, 10, 121))
    plane = jnp.stack([jnp.ravel(x), jnp.ravel(y)], 1)
    height = np.asarray(jax.vmap(losses)(plane)).mean(axis=1).reshape(x.shape)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(3.4, 3.3), layout="constrained")
        axes.contour(x, y, height, levels=20, colors=GREY, linewidths=0.4, alpha=0.6)
        axes.plot(*np.asarray(pareto_set()).T, color="black", lw=4, alpha=0.35)
        for color, points in zip(COLORS, found.paths, strict=False):
            axes.plot(*points.T, color=color, lw=1.3)
            axes.plot(*points[0], marker="o", ms=4, color=color)
            axes.plot(*points[-1], marker="*", ms=11, color=color, mec="white", mew=0.6)
        axes.set(xlim=(-10, 10), ylim=(-10, 10), aspect="equal", xlabel="θ₁", ylabel="θ₂")
        raw = io.BytesIO()
        figure.savefig(raw, dpi=130)
        plt.close(figure)
    Image.open(raw).convert("RGB").quantize(32).save(path, optimize=True)


def page(walks: dict[str, Walk]) -> str:
    """docs/results/toy.md."""
    lines = []
    for name, found in walks.items():
        reached = int(np.sum(found.distance < REACHED))
        cells = [f"[{name}](../rules.md)", f"{reached} of {len(STARTS)}"]
        cells += [f"{number:.3f}" for number in (found.distance.max(), found.stationarity.max())]
        lines.append((reached, f"| {' | '.join(cells)} |"))
    lines.sort(key=lambda line: -line[0])
    return _PAGE.format(
        steps=f"{STEPS:,}".replace(",", " "), reached=REACHED, table="\n".join(t for _, t in lines),
        versions=f"jax {jax.__version__}, optax {optax.__version__}, numpy {np.__version__}",
    )  # fmt: skip


_PAGE = """\
# Every rule on the toy

The two losses in the plane of the CAGrad and Nash-MTL papers, the first counting a tenth: valleys
above, two paraboloids below. Adam at 0.001 for {steps} steps from six starts; **reached** counts
the ends within {reached} of the Pareto set, whose ends are 14 apart. Stationarity is the length of
the min-norm point over the longest gradient, the largest of the six ends; 0 is Pareto stationary.
A rule that reads losses gets them with a lower bound subtracted. One toy, not a ranking: it shows
which rules can be caught in a valley that is no solution. The [picture of each rule](../rules.md)
is on its page.

| rule | reached | largest distance | largest stationarity |
|---|---:|---:|---:|
{table}

```sh
python -m website.pictures
```

Options are the defaults, but for `fixed((0.7, 0.3))`, `dwa` and `stch` (an epoch of 100 steps) and
what has no default (`tests/weighting/rules.py`). {versions}, two CPU cores, float32.
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rules", nargs="+", choices=sorted(RULES), help="only these pictures")
    chosen = parser.parse_args(argv).rules
    folder = DOCS / "images" / "rules"
    folder.mkdir(parents=True, exist_ok=True)
    walks = {}
    for name in chosen or sorted(RULES):
        rule = OWN[name]() if name in OWN else RULES[name].make((0, 1))
        walks[name] = walk(rule)
        draw(walks[name], folder / f"{name}.png")
        print(name, np.round(walks[name].distance, 3), flush=True)
    if not chosen:
        (DOCS / "results" / "toy.md").write_text(page(walks), encoding="utf-8")


if __name__ == "__main__":
    main()
