"""Binary attributes of images as a `Problem`: ResNet, one dense head an attribute."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.celeba.data import AttributeData
from experiments.models.resnet import ResNetSize, resnet
from experiments.trainer.problem import Problem

PyTree = Any
STATISTICS_SAMPLE = 4096  # training images that mean and standard deviation are taken from


def attribute_problem(data: AttributeData, size: ResNetSize) -> Problem:
    """The problem of telling for each attribute whether an image has it.

    The heads' parameters are stacked over tasks, so that all heads are one product.

    Args:
      data: images and labels.
      size: layer sizes of the ResNet.

    Returns:
      Problem with one task an attribute, scored by accuracy in per cent; the metric error
      is 100 − accuracy.
    """
    encoder = resnet(size)
    tasks, side = data.tasks, data.train.images.shape[1]
    features = size.features(side)
    sample = data.train.images[:STATISTICS_SAMPLE] / np.float32(255)
    mean, std = sample.mean((0, 1, 2)), sample.std((0, 1, 2))

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        encoder_key, head_key = jax.random.split(key)
        make = jax.nn.initializers.lecun_normal(batch_axis=0)
        kernel = make(head_key, (len(tasks), features, 2))
        return encoder.init(encoder_key), {"kernel": kernel, "bias": jnp.zeros((len(tasks), 2))}

    def prepare(examples: Any, key: jax.Array | None) -> dict[str, Any]:
        images = (examples.images.astype(jnp.float32) / 255 - mean) / std
        return {"images": images, "labels": examples.labels.astype(jnp.int32).T}

    def encode(shared: PyTree, batch: dict[str, Any]) -> tuple[jax.Array, PyTree]:
        return encoder.apply(shared, batch["images"], train=True)

    def losses(own: PyTree, zs: jax.Array, batch: dict[str, Any]) -> jax.Array:
        logits = jnp.einsum("tnf,tfc->tnc", zs, own["kernel"]) + own["bias"][:, None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])

    def decode(own: PyTree, zs: jax.Array, batch: dict[str, Any]) -> tuple[PyTree, None]:
        mean_losses = losses(own, zs, batch).mean(axis=1)
        return {task: mean_losses[t] for t, task in enumerate(tasks)}, None

    def absorb(params: tuple[PyTree, PyTree], aux: PyTree) -> tuple[PyTree, PyTree]:
        shared, own = params
        return shared._replace(stats=aux[0]), own

    def tally(shared: PyTree, own: PyTree, batch: dict[str, Any], valid: jax.Array) -> PyTree:
        z, _ = encoder.apply(shared, batch["images"], train=False)
        logits = jnp.einsum("nf,tfc->tnc", z, own["kernel"]) + own["bias"][:, None]
        labels = batch["labels"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        right = jnp.argmax(logits, -1) == labels
        return {
            "loss": jnp.sum(loss, where=valid, axis=1),
            "correct": jnp.sum(right, where=valid, axis=1),
            "count": jnp.sum(valid),
        }

    def metrics(tallies: PyTree) -> dict[str, jax.Array]:
        accuracy = 100 * tallies["correct"] / tallies["count"]
        return {
            "accuracy": accuracy,
            "error": 100 - accuracy,
            "loss": tallies["loss"] / tallies["count"],
        }

    return Problem(
        tasks=tasks,
        data={"train": data.train, "validation": data.validation, "test": data.test},
        init=init,
        prepare=prepare,
        encode=encode,
        decode=decode,
        tally=tally,
        metrics=metrics,
        score="accuracy",
        score_label="accuracy %",
        absorb=absorb,
        eval_batch=256,
    )
