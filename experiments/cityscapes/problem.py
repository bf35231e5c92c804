"""Class, instance and disparity of every pixel as a `Problem`: one encoder, three decoders."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.cityscapes.augmentation import augment
from experiments.cityscapes.data import CLASSES, IGNORE, TASKS, SceneData, Scenes
from experiments.models.dilated import DilatedSize, dilated_resnet
from experiments.models.pyramid import pyramid_decoder, upsample
from experiments.models.stateful import Variables
from experiments.trainer.problem import Problem
from mgda_jax import per_task_decode

PyTree = Any
OUTPUTS = {"disparity": 1, "instance": 2, "semantic": len(CLASSES)}
REGRESSIONS = ("disparity", "instance")
STATISTICS_SAMPLE = 200  # training scenes that the spread of the targets is taken from
_PERCENT = 100


def scene_problem(
    data: SceneData,
    size: DilatedSize,
    *,
    inside: int = 512,
    regression: str = "l1",
    pretrained: Variables | None = None,
    eval_batch: int = 8,
) -> Problem:
    """The problem of labelling every pixel with class, offset to its instance, disparity.

    The regressions are trained in units of their spread: the mean distance of the training
    targets from their median, which is the error of the best constant. The score, in per
    cent, is the mean IoU of the semantic task and 100 (1 − L1 / spread) of a regression.

    Args:
      data: scenes with targets and masks.
      size: layer sizes of the encoder.
      inside: features inside the decoders.
      regression: "l1", as the authors' code, or "mse", as the paper's text.
      pretrained: the encoder's first variables; None for random ones.
      eval_batch: scenes a step of evaluation.

    Returns:
      Problem with tasks "disparity", "instance" and "semantic", and the metric shown beside
      the score: L1 in pixels (mean over valid pixels, of offsets over both components) and
      mean IoU in per cent (over the classes that occur).
    """
    encoder = dilated_resnet(size)
    decoders = {t: pyramid_decoder(size.features, OUTPUTS[t], inside=inside) for t in TASKS}
    mean, std = _pixel_statistics(data.train)
    middle, spread = _target_statistics(data.train)

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        encoder_key, *decoder_keys = jax.random.split(key, 1 + len(TASKS))
        own = {t: decoders[t].init(k) for t, k in zip(TASKS, decoder_keys, strict=True)}
        return encoder.init(encoder_key) if pretrained is None else pretrained, own

    def prepare(examples: Scenes, key: jax.Array | None) -> dict[str, Any]:
        keys = [None] * len(TASKS)
        if key is not None:
            augment_key, *keys = jax.random.split(key, 1 + len(TASKS))
            examples = augment(examples, augment_key)
        images = (examples.images.astype(jnp.float32) / 255 - mean) / std
        return {"images": images, "scenes": examples, "keys": dict(zip(TASKS, keys, strict=True))}

    def encode(shared: PyTree, batch: dict[str, Any]) -> tuple[jax.Array, PyTree]:
        return encoder.apply(shared, batch["images"], train=True)

    def predict(
        task: str, own: PyTree, z: jax.Array, batch: dict[str, Any], train: bool
    ) -> tuple[jax.Array, PyTree]:
        out, stats = decoders[task].apply(own, z, batch["keys"][task], train=train)
        return upsample(out, *batch["images"].shape[1:3]), stats

    def head(task: str):
        def head_loss(own: PyTree, z: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, PyTree]:
            out, stats = predict(task, own, z, batch, train=True)
            if task == "semantic":
                errors, valid = _cross_entropy(out, batch["scenes"].classes)
            else:
                target, valid = _target(task, batch["scenes"])
                off = out - (target - middle[task]) / spread[task]
                errors = (jnp.abs(off) if regression == "l1" else off**2).mean(-1)
            return _masked_mean(errors, valid), stats

        return head_loss

    def absorb(params: tuple[PyTree, PyTree], aux: PyTree) -> tuple[PyTree, PyTree]:
        shared, own = params
        moved = {t: own[t]._replace(stats=aux[1][t]) for t in TASKS}
        return shared._replace(stats=aux[0]), moved

    def tally(shared: PyTree, own: PyTree, batch: dict[str, Any], valid: jax.Array) -> PyTree:
        z, _ = encoder.apply(shared, batch["images"], train=False)
        outs = {t: predict(t, own[t], z, batch, train=False)[0] for t in TASKS}
        tallies = {}
        for task in REGRESSIONS:
            target, known = _target(task, batch["scenes"])
            known = known & valid[:, None, None]
            errors = jnp.abs(outs[task] * spread[task] + middle[task] - target).mean(-1)
            tallies[task] = {"error": jnp.sum(errors, where=known), "count": jnp.sum(known)}
        classes = batch["scenes"].classes
        known = ((classes != IGNORE) & valid[:, None, None])[..., None]
        truth = (classes[..., None] == jnp.arange(len(CLASSES))) & known
        guess = (jnp.argmax(outs["semantic"], -1)[..., None] == jnp.arange(len(CLASSES))) & known
        pixels = (0, 1, 2)
        return {
            **tallies,
            "intersection": jnp.sum(truth & guess, pixels, dtype=jnp.float32),
            "union": jnp.sum(truth | guess, pixels, dtype=jnp.float32),
            "truth": jnp.sum(truth, pixels, dtype=jnp.float32),
        }

    def metrics(tallies: PyTree) -> dict[str, jax.Array]:
        occurs = tallies["truth"] > 0
        iou = tallies["intersection"] / jnp.maximum(tallies["union"], 1)
        shown = {t: tallies[t]["error"] / jnp.maximum(tallies[t]["count"], 1) for t in REGRESSIONS}
        scores = {t: _PERCENT * (1 - shown[t] / spread[t]) for t in REGRESSIONS}
        mean_iou = _PERCENT * jnp.mean(iou, where=occurs)
        shown, scores = ({**d, "semantic": mean_iou} for d in (shown, scores))
        return {
            "score": jnp.stack([scores[t] for t in TASKS]),
            "shown": jnp.stack([shown[t] for t in TASKS]),
        }

    return Problem(
        tasks=TASKS,
        data={"train": data.train, "validation": data.validation, "test": data.test},
        init=init,
        prepare=prepare,
        encode=encode,
        decode=per_task_decode({task: head(task) for task in TASKS}, has_aux=True),
        tally=tally,
        metrics=metrics,
        score="score",
        score_label="score %",
        absorb=absorb,
        eval_batch=eval_batch,
    )


def _target(task: str, scenes: Scenes) -> tuple[Any, Any]:
    """Targets (N, h, w, outputs) of a regression in pixels, and where they hold (N, h, w)."""
    if task == "instance":
        return scenes.offsets, scenes.has_instance
    return scenes.disparity[..., None], scenes.has_disparity


def _cross_entropy(logits: jax.Array, classes: jax.Array) -> tuple[jax.Array, jax.Array]:
    valid = classes != IGNORE
    labels = jnp.where(valid, classes, 0).astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), valid


def _masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Zero where nothing is valid: a batch without any instance has no instance loss."""
    return jnp.sum(values, where=valid) / jnp.maximum(jnp.sum(valid), 1)


def _pixel_statistics(scenes: Scenes, sample: int = 100) -> tuple[np.ndarray, np.ndarray]:
    pixels = scenes.images[:sample] / np.float32(255)
    return pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))


def _target_statistics(scenes: Scenes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Median (outputs,) and mean distance from it () of the valid training targets, by task."""
    middle, spread = {}, {}
    for task in REGRESSIONS:
        target, valid = _target(task, jax.tree.map(lambda a: a[:STATISTICS_SAMPLE], scenes))
        known = target[valid]
        middle[task] = np.median(known, axis=0).astype(np.float32)
        spread[task] = np.float32(np.abs(known - middle[task]).mean())
    return middle, spread
