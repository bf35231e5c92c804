"""Two digits in one image as a `Problem`: cross entropy, accuracy."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.multimnist.data import TASKS, Dataset
from experiments.multimnist.networks import Network
from experiments.trainer.problem import Problem
from mgda_jax import per_task_decode

PyTree = Any


def digit_pairs(
    dataset: Dataset, network: Network, units: tuple[float, float] = (1.0, 1.0)
) -> Problem:
    """The problem of naming the left and the right digit of each image.

    Args:
      dataset: images uint8 and labels (N, 2).
      network: what is trained.
      units: what the left and the right loss are multiplied by in training.

    Returns:
      Problem with tasks "left" and "right", scored by accuracy in per cent.
    """

    def prepare(examples: Any, key: jax.Array | None) -> dict[str, Any]:
        pixels = examples.images[..., None].astype(jnp.float32) / 255
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        return {
            "images": (pixels - dataset.mean) / dataset.std,
            "labels": examples.labels,
            "encoder_key": keys[0],
            "head_keys": dict(zip(TASKS, keys[1:], strict=True)),
        }

    def loss(task: str, unit: float):
        def head_loss(own: PyTree, z: jax.Array, batch: dict[str, Any]) -> jax.Array:
            labels = batch["labels"][:, TASKS.index(task)]
            out = network.logits(own, z, batch, task)
            entropy = optax.softmax_cross_entropy_with_integer_labels(out, labels).mean()
            if network.penalty is None:
                return unit * entropy
            return unit * (entropy + network.penalty(own, z, task))

        return head_loss

    def tally(shared: PyTree, own: PyTree, batch: dict[str, Any], valid: jax.Array) -> PyTree:
        z = network.encode(shared, batch)
        outs = jnp.stack([network.logits(own[task], z, batch, task) for task in TASKS])
        labels = batch["labels"].T
        losses = optax.softmax_cross_entropy_with_integer_labels(outs, labels)
        correct = jnp.argmax(outs, -1) == labels
        return {
            "loss": jnp.sum(losses, where=valid, axis=1),
            "correct": jnp.sum(correct, where=valid, axis=1),
            "count": jnp.sum(valid),
        }

    def metrics(tallies: PyTree) -> dict[str, jax.Array]:
        return {
            "accuracy": 100 * tallies["correct"] / tallies["count"],
            "loss": tallies["loss"] / tallies["count"],
        }

    return Problem(
        tasks=TASKS,
        data={"train": dataset.train, "validation": dataset.validation, "test": dataset.test},
        init=network.init,
        prepare=prepare,
        encode=network.encode,
        decode=per_task_decode(
            {task: loss(task, unit) for task, unit in zip(TASKS, units, strict=True)}
        ),
        tally=tally,
        metrics=metrics,
        score="accuracy",
        score_label="accuracy %",
        common=network.common,
    )
