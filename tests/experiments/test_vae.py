"""The autoencoder: its losses by another way, and a short run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.trainer.config import run_main
from experiments.vae.command import VaeConfig, main
from experiments.vae.problem import autoencoder, digits


def test_parts_are_disjoint_digits():
    parts = digits()
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [1000, 300, 497]
    assert all(part.min() >= 0 and part.max() <= 1 for part in parts.values())


def test_losses_are_those_of_the_densities():
    data = {name: part[:5] for name, part in digits().items()}
    latent, width = 2, 3
    problem = autoencoder(data, latent, width)
    params, own = problem.init(jax.random.key(0))
    batch = problem.prepare(jnp.asarray(data["test"]), jax.random.key(1))
    found = problem.decode(own, jnp.stack([params, params]), batch)
    flat, arrays = np.asarray(params, np.float64), []
    for shape in ((64, 3), (3,), (3, 4), (4,), (2, 3), (3,), (3, 64), (64,)):
        arrays.append(flat[: np.prod(shape)].reshape(shape))
        flat = flat[np.prod(shape) :]
    a, b, c, d, e, f, g, h = arrays
    assert len(flat) == 0
    x, noise = (np.asarray(batch[k], np.float64) for k in ("images", "noise"))
    out = np.tanh(x @ a + b) @ c + d
    mean, deviation = out[:, :latent], np.exp(out[:, latent:] / 2)
    z = mean + deviation * noise
    p = 1 / (1 + np.exp(-(np.tanh(z @ e + f) @ g + h)))
    entropy = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1).mean()
    divergence = (mean**2 / 2 + deviation**2 / 2 - 0.5 - np.log(deviation)).sum(axis=1).mean()
    np.testing.assert_allclose(found["reconstruction"], entropy, rtol=1e-5)
    np.testing.assert_allclose(found["kl"], divergence, rtol=1e-5)


def call(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    try:
        run_main(main, VaeConfig, "vae", args)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def test_a_short_run_leaves_table_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = "--epochs 1 --batch-size 500 --latent 2 --width 3 --seeds 2 --learning-rate 0.01"
    args += f" --methods mgda --runs-dir {tmp_path} --cache-dir .cache"
    code, out, _ = call(args.split(), capsys)
    assert code == 0 and "| mgda " in out and "active units" in out
    names = {path.name for path in (tmp_path / "vae").iterdir()}
    assert {"table.md", "samples.png", "curves.png", "results.json"} <= names


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--latent 0", "--latent: expected at least 1, got 0"),
        ("--width x", "--width"),
        ("--methods nosuch", "--methods: no method 'nosuch'"),
        ("--batch-size 5000", "--batch-size: expected at most the 1000 training examples"),
    ],
)
def test_what_is_wrong_is_one_line(args: str, message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(args.split(), capsys)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert message in err and err.startswith("vae: ")
