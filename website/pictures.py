"""The picture of every rule on the toy of two losses, and the table of all.

    python -m website.pictures               # writes docs/images/rules/ and docs/results/toy.md
    python -m website.pictures --rules upgrad nash_mtl

Adam for 35 000 steps from the six starts of the literature, as `python -m experiments.toy`. The
rules that read losses get them with their lower bounds subtracted, so that none is negative.
"""

import argparse
import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax import lax
from PIL import Image

from experiments.report.figures import COLORS, GREY, STYLE
from experiments.toy.valleys import PROBLEMS, STARTS, losses, pareto_set
from mgda_jax import aggregate, task_gradients, weighting
from tests.weighting.rules import RULES

plt.switch_backend("agg")

DOCS = Path(__file__).parent.parent / "docs"
STEPS, POINTS, RATE = 35_000, 200, 1e-3
REACHED = PROBLEMS["valleys"].reached
LOWER = jnp.array([-2.1, -21.0])  # below the toy's least losses, -2 and -20
OWN = {  # instead of the registry's defaults, which are for four tasks or for tiny runs
    "fixed": lambda: weighting.fixed((0.7, 0.3)),
    "dwa": lambda: weighting.dwa(steps_per_epoch=100),
    "stch": lambda: weighting.stch(steps_per_epoch=100),
}


def walk(rule: Any) -> np.ndarray:
    """Adam on the rule's direction: the paths (starts, POINTS + 1, 2)."""
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
        path = lax.scan(some_steps, (start, tx.init(start)), jax.random.split(key, POINTS))[1]
        return jnp.concatenate([start[None], path])

    keys = jax.random.split(jax.random.key(0), len(STARTS))
    return np.asarray(jax.jit(jax.vmap(from_start))(STARTS, keys))


@functools.cache
def arc() -> np.ndarray:
    """The Pareto set."""
    return pareto_set()


@functools.cache
def heights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean loss on a grid."""
    x, y = np.meshgrid(np.linspace(-10, 10, 121), np.linspace(-10, 10, 121))
    both = jax.jit(jax.vmap(losses))(np.stack([x.ravel(), y.ravel()], 1))
    return x, y, np.asarray(both).mean(axis=1).reshape(x.shape)


def distances(paths: np.ndarray) -> np.ndarray:
    """From every path's end to the Pareto set."""
    return np.linalg.norm(arc() - paths[:, -1:], axis=2).min(axis=1)


def draw(paths: np.ndarray, path: Path) -> None:
    """One panel, as a PNG of 32 colours."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(3.4, 3.3), layout="constrained")
        axes.contour(*heights(), levels=20, colors=GREY, linewidths=0.4, alpha=0.6)
        axes.plot(*arc().T, color="black", lw=4, alpha=0.35)
        for color, points in zip(COLORS, paths, strict=False):
            axes.plot(*points.T, color=color, lw=1.3)
            axes.plot(*points[0], marker="o", ms=4, color=color)
            axes.plot(*points[-1], marker="*", ms=11, color=color, mec="white", mew=0.6)
        axes.set(xlim=(-10, 10), ylim=(-10, 10), aspect="equal", xlabel="θ₁", ylabel="θ₂")
        raw = io.BytesIO()
        figure.savefig(raw, dpi=130)
        plt.close(figure)
    Image.open(raw).convert("RGB").quantize(32).save(path, optimize=True)


def page(gaps: dict[str, np.ndarray]) -> str:
    """docs/results/toy.md."""
    lines = []
    for name, gap in gaps.items():
        reached = int(np.sum(gap < REACHED))
        line = f"| `{name}` | {reached} of {len(STARTS)} | {gap.max():.3f} |"
        lines.append((reached, line))
    lines.sort(key=lambda line: -line[0])
    return _PAGE.format(
        steps=f"{STEPS:,}".replace(",", " "), reached=REACHED, table="\n".join(t for _, t in lines),
        versions=f"jax {jax.__version__}, optax {optax.__version__}, numpy {np.__version__}",
    )  # fmt: skip


_PAGE = """\
# Every rule on the toy

The two losses in the plane of the CAGrad and Nash-MTL papers, the first counting a tenth: valleys
above, two paraboloids below. Adam at 0.001 for {steps} steps from six starts; **reached** counts
the ends within {reached} of the Pareto set, whose ends are 14 apart. A rule that reads losses gets
them with a lower bound subtracted. One toy, not a ranking: it shows which rules can be caught in a
valley that is no solution. The picture of each rule is on its page.

| rule | reached | largest distance |
|---|---:|---:|
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
    gaps = {}
    for name in chosen or sorted(RULES):
        rule = OWN[name]() if name in OWN else RULES[name].make((0, 1))
        paths = walk(rule)
        gaps[name] = distances(paths)
        draw(paths, folder / f"{name}.png")
        print(name, np.round(gaps[name], 3), flush=True)
    if not chosen:
        (DOCS / "results" / "toy.md").write_text(page(gaps), encoding="utf-8")


if __name__ == "__main__":
    main()
