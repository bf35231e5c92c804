"""Many binary labels as a `Problem`: a dense encoder, one logit a label, the area under the ROC."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.multilabel.data import MultilabelData
from experiments.trainer.problem import Problem, num_examples

PyTree = Any
WIDTHS = (128, 64)  # of the encoder


def label_problem(data: MultilabelData, widths: tuple[int, ...] = WIDTHS) -> Problem:
    """The problem of telling for each label whether an example has it.

    The heads' parameters are stacked over labels, so that all heads are one product.

    Args:
      data: features and labels; labels that are not known have no part in loss and score.
      widths: of the encoder's layers.

    Returns:
      Problem with one task a label, scored by the area under the ROC curve in per cent.
    """
    tasks, sizes = data.tasks, (data.train.x.shape[1], *widths)
    layers = list(zip(sizes[:-1], sizes[1:], strict=True))
    parts = {"train": data.train, "validation": data.validation, "test": data.test}

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        *keys, head_key = jax.random.split(key, len(layers) + 1)
        make, last = jax.nn.initializers.he_normal(), jax.nn.initializers.lecun_normal(1, 0)
        shared = [
            {"kernel": make(k, shape), "bias": jnp.zeros(shape[1])}
            for k, shape in zip(keys, layers, strict=True)
        ]
        return shared, {
            "kernel": last(head_key, (len(tasks), sizes[-1])),
            "bias": jnp.zeros(len(tasks)),
        }

    def prepare(examples: Any, key: jax.Array | None) -> dict[str, jax.Array]:
        known = examples.y.T >= 0
        return {"x": examples.x, "known": known, "y": jnp.where(known, examples.y.T, 0)}

    def encode(shared: PyTree, batch: dict[str, Any]) -> jax.Array:
        z = batch["x"]
        for layer in shared:
            z = jax.nn.relu(z @ layer["kernel"] + layer["bias"])
        return z

    def losses_of(logits: jax.Array, batch: dict[str, Any]) -> jax.Array:
        losses = optax.sigmoid_binary_cross_entropy(logits, batch["y"].astype(logits.dtype))
        known = batch["known"]
        return jnp.sum(losses, where=known, axis=1) / jnp.maximum(known.sum(axis=1), 1)

    def decode(own: PyTree, zs: jax.Array, batch: dict[str, Any]) -> PyTree:
        logits = jnp.einsum("tnf,tf->tn", zs, own["kernel"]) + own["bias"][:, None]
        losses = losses_of(logits, batch)
        return {task: losses[t] for t, task in enumerate(tasks)}

    def tally(shared: PyTree, own: PyTree, batch: dict[str, Any], valid: jax.Array) -> PyTree:
        logits = own["kernel"] @ encode(shared, batch).T + own["bias"][:, None]
        counted = {**batch, "known": batch["known"] & valid}
        areas = jax.vmap(area_under_roc)(logits, batch["y"] == 1, counted["known"])
        # A ranking does not add up over batches: `eval_batch` makes one batch of each part.
        return {"auc": 100 * areas, "loss": losses_of(logits, counted), "batches": 1}

    def metrics(tallies: PyTree) -> dict[str, jax.Array]:
        return {key: tallies[key] / tallies["batches"] for key in ("auc", "loss")}

    return Problem(
        tasks=tasks,
        data=parts,
        init=init,
        prepare=prepare,
        encode=encode,
        decode=decode,
        tally=tally,
        metrics=metrics,
        score="auc",
        score_label="AUC %",
        eval_batch=max(num_examples(part) for part in parts.values()),
    )


def area_under_roc(scores: jax.Array, positive: jax.Array, counted: jax.Array) -> jax.Array:
    """The share of pairs of an example and a counterexample that scores rank rightly, ties half.

    Args:
      scores: (N,); NaN out where one that counts is not finite.
      positive: (N,) bool.
      counted: (N,) bool, the examples that count.

    Returns:
      () in [0, 1]; NaN without an example or without a counterexample.

    Examples:
      >>> scores = jnp.array([0.1, 0.4, 0.4, 0.9])
      >>> every = jnp.ones(4, bool)
      >>> float(area_under_roc(scores, jnp.array([False, True, False, True]), every))
      0.875
    """
    examples, others = positive & counted, ~positive & counted
    ranked = jnp.sort(jnp.where(others, scores, jnp.inf))
    below = jnp.searchsorted(ranked, scores, side="left")
    level = jnp.searchsorted(ranked, scores, side="right")
    wins = jnp.sum((below + level).astype(scores.dtype), where=examples) / 2
    sound = jnp.all(jnp.isfinite(scores), where=counted)
    return jnp.where(sound, wins, jnp.nan) / (examples.sum() * others.sum())
