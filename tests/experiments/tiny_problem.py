"""A data set and model of one's own for the trainer, as small as they get: two noisy labels."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.trainer.problem import Problem
from mgda_jax import per_task_decode

TASKS = ("left", "right")


def tiny_problem(num_train: int = 48, num_test: int = 20, features: int = 3) -> Problem:
    """Two binary labels of points in 5 dimensions; a dense encoder and one logit a task."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(5, 2))

    def part(size: int) -> dict[str, np.ndarray]:
        x = rng.normal(size=(size, 5))
        y = x @ directions + 0.3 * rng.normal(size=(size, 2)) > 0
        return {"x": x.astype(np.float32), "y": y.astype(np.float32)}

    def init(key):
        keys = jax.random.split(key, 3)
        own = {
            task: jax.random.normal(k, (features,)) for task, k in zip(TASKS, keys, strict=False)
        }
        return {"kernel": jax.random.normal(keys[2], (5, features))}, own

    def prepare(examples, key):
        noise = 0.0 if key is None else 0.01 * jax.random.normal(key, examples["x"].shape)
        return {**examples, "x": examples["x"] + noise}

    def encode(shared, batch):
        return jnp.tanh(batch["x"] @ shared["kernel"])

    def head_loss(t):
        def loss(own, z, batch):
            return jnp.mean(jnp.logaddexp(0, -(2 * batch["y"][:, t] - 1) * (z @ own)))

        return loss

    def tally(shared, own, batch, valid):
        z = encode(shared, batch)
        right = jnp.stack([(z @ own[task] > 0) == batch["y"][:, t] for t, task in enumerate(TASKS)])
        return {"correct": jnp.sum(right, where=valid, axis=1), "count": jnp.sum(valid)}

    return Problem(
        tasks=TASKS,
        data={"train": part(num_train), "validation": part(num_test), "test": part(num_test)},
        init=init,
        prepare=prepare,
        encode=encode,
        decode=per_task_decode({task: head_loss(t) for t, task in enumerate(TASKS)}),
        tally=tally,
        metrics=lambda tallies: {"accuracy": 100 * tallies["correct"] / tallies["count"]},
        score="accuracy",
        score_label="accuracy %",
    )
