"""A variational autoencoder of small digits as a problem of two tasks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from sklearn.datasets import load_digits

from experiments.trainer.problem import Problem
from mgda_jax import per_task_decode

PyTree = Any
TASKS = ("kl", "reconstruction")
PIXELS, SPLITS = 64, (1000, 1300)  # where validation and test begin
ACTIVE = 0.01  # variance of a unit's posterior mean over images, as Burda et al. count them
SHOWN = 10  # images in the picture, and as many samples


def digits() -> dict[str, np.ndarray]:
    """Scikit-learn's digits in [0, 1], shuffled once: train, validation and test, (N, 64) each."""
    pixels = np.asarray(load_digits(return_X_y=True)[0], np.float32) / 16
    shuffled = pixels[np.random.default_rng(0).permutation(len(pixels))]
    parts = np.split(shuffled, SPLITS)
    return dict(zip(("train", "validation", "test"), parts, strict=True))


def autoencoder(data: dict[str, np.ndarray], latent: int, width: int) -> Problem:
    """Encoder to a Gaussian of independent units, decoder to the logits of the pixels.

    The losses are the two halves of the negative evidence lower bound, in nats an image:
    KL(q(z|x) ‖ N(0, 1)) and E_q[−log p(x|z)] with one draw of z. Both read all parameters, so
    the gradients with respect to the representation are those with respect to the parameters.

    Args:
      data: images (N, 64) in [0, 1] of each part.
      latent: units of z.
      width: hidden units of encoder and decoder.

    Returns:
      Problem scored by the bound on held-out images, higher being better.

    References:
      Kingma and Welling, Auto-Encoding Variational Bayes, 2014.
      Burda, Grosse, Salakhutdinov, Importance Weighted Autoencoders, 2016 (active units).
    """
    shapes = {
        "encoder": ((PIXELS, width), (width,), (width, 2 * latent), (2 * latent,)),
        "decoder": ((latent, width), (width,), (width, PIXELS), (PIXELS,)),
    }
    flat = [shape for part in shapes.values() for shape in part]

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        scale = [math.sqrt(2 / sum(s)) if len(s) == 2 else 0.0 for s in flat]
        repeated = np.repeat(np.array(scale, np.float32), [math.prod(s) for s in flat])
        params = jnp.asarray(repeated) * jax.random.normal(key, (len(repeated),))
        return params, {task: {} for task in TASKS}

    def unpacked(params: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        parts = lax.split(params, [math.prod(s) for s in flat])
        arrays = [part.reshape(s) for part, s in zip(parts, flat, strict=True)]
        return arrays[:4], arrays[4:]

    def encode(params: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean_and_spread = _dense(unpacked(params)[0], images)
        return mean_and_spread[:, :latent], mean_and_spread[:, latent:]

    def decode(params: jax.Array, z: jax.Array) -> jax.Array:
        return _dense(unpacked(params)[1], z)

    def kl(params: jax.Array, images: jax.Array) -> jax.Array:
        mean, log_variance = encode(params, images)
        return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=1)

    def reconstruction(params: jax.Array, images: jax.Array, noise: jax.Array) -> jax.Array:
        mean, log_variance = encode(params, images)
        logits = decode(params, mean + jnp.exp(log_variance / 2) * noise)
        return jnp.sum(jax.nn.softplus(logits) - images * logits, axis=1)

    def prepare(images: jax.Array, key: jax.Array | None) -> PyTree:
        key = jax.random.key(0) if key is None else key
        return {"images": images, "noise": jax.random.normal(key, (len(images), latent))}

    def tally(params: PyTree, own: PyTree, batch: PyTree, valid: jax.Array) -> PyTree:
        mean, _ = encode(params, batch["images"])
        losses = kl(params, batch["images"]), reconstruction(params, **batch)
        return {
            "losses": jnp.sum(jnp.stack(losses), where=valid, axis=1),
            "mean": jnp.sum(mean, where=valid[:, None], axis=0),
            "square": jnp.sum(mean**2, where=valid[:, None], axis=0),
            "count": jnp.sum(valid),
        }

    def metrics(sums: PyTree) -> dict[str, jax.Array]:
        losses = sums["losses"] / sums["count"]
        variance = sums["square"] / sums["count"] - (sums["mean"] / sums["count"]) ** 2
        return {
            "elbo": -jnp.sum(losses),
            "loss": losses,
            "active": jnp.sum(variance > ACTIVE).astype(jnp.float32),
        }

    def show(params: PyTree, own: PyTree) -> dict[str, jax.Array]:
        mean, _ = encode(params, jnp.asarray(data["test"][:SHOWN]))
        drawn = jax.random.normal(jax.random.key(0), (SHOWN, latent))
        pictures = jax.nn.sigmoid(decode(params, jnp.concatenate([mean, drawn])))
        return {"reconstructions": pictures[:SHOWN], "samples": pictures[SHOWN:]}

    return Problem(
        tasks=TASKS,
        data=data,
        init=init,
        prepare=prepare,
        encode=lambda params, batch: params,
        decode=per_task_decode(
            {
                "kl": lambda own, params, batch: jnp.mean(kl(params, batch["images"])),
                "reconstruction": lambda own, params, batch: jnp.mean(
                    reconstruction(params, **batch)
                ),
            }
        ),
        tally=tally,
        metrics=metrics,
        score="elbo",
        score_label="ELBO",
        show=show,
        log_gradients=True,
    )


def _dense(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    first, shift, second, out = weights
    return jnp.tanh(x @ first + shift) @ second + out
