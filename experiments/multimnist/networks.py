"""Six ways in which two tasks share a network, each as what the digits' problem asks of one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from experiments.models.cross_stitch import cross_stitch
from experiments.models.dense import SharedModel
from experiments.models.lenet import NUM_CLASSES, LeNetSize, lenet
from experiments.models.mmoe import mmoe
from experiments.models.multi_camera import multi_camera
from experiments.models.snr import Inputs, expected_open, snr
from experiments.models.soft_sharing import soft_sharing
from experiments.multimnist.data import TASKS

PyTree = Any
OUTPUTS: dict[str, int] = dict.fromkeys(TASKS, NUM_CLASSES)
GATE_PENALTY = 1e-3  # of an open gate
TIE = 1e-3  # λ of soft sharing


class Network(NamedTuple):
    """A network of two tasks, as pure functions.

    Attributes:
      init: `init(key) -> (shared, own)`, own a dict by task.
      encode: `encode(shared, batch) -> z`; batch holds images (N, side, side, 1), encoder_key
        and head_keys (None where nothing is drawn).
      logits: `logits(own[task], z, batch, task) -> (N, 10)`.
      penalty: None, or `penalty(own[task], z, task) -> ()`, which the task's loss adds.
      common: whether the tasks read one representation, which MGDA-UB needs.
    """

    init: Callable[[jax.Array], tuple[PyTree, dict[str, PyTree]]]
    encode: Callable[[PyTree, dict[str, Any]], PyTree]
    logits: Callable[[PyTree, PyTree, dict[str, Any], str], jax.Array]
    penalty: Callable[[PyTree, PyTree, str], jax.Array] | None = None
    common: bool = True


def lenet_network(size: LeNetSize) -> Network:
    """The paper's: one convolutional encoder, a head per task."""
    encoder, head = lenet(size)

    def init(key: jax.Array) -> tuple[PyTree, dict[str, PyTree]]:
        encoder_key, *head_keys = jax.random.split(key, 1 + len(TASKS))
        own = {task: head.init(k) for task, k in zip(TASKS, head_keys, strict=True)}
        return encoder.init(encoder_key), own

    return Network(
        init,
        lambda shared, batch: encoder.apply(shared, batch["images"], batch["encoder_key"]),
        lambda own, z, batch, task: head.apply(own, z, batch["head_keys"][task]),
    )


def _network(model: SharedModel, inputs: Callable[[dict[str, Any]], PyTree], **rest: Any):
    return Network(
        model.init,
        lambda shared, batch: model.encode(shared, inputs(batch)),
        lambda own, z, batch, task: model.heads[task](own, z, inputs(batch)),
        **rest,
    )


def _pixels(batch: dict[str, Any]) -> jax.Array:
    return batch["images"].reshape(len(batch["images"]), -1)


def _strips(batch: dict[str, Any]) -> jax.Array:
    """Three overlapping halves of each image: (N, 3, side, side / 2, 1)."""
    half = batch["images"].shape[2] // 2
    starts = (0, half // 2, half)
    return jax.numpy.stack([batch["images"][:, :, s : s + half] for s in starts], axis=1)


def _mmoe(size: LeNetSize) -> Network:
    return _network(mmoe(size.side**2, OUTPUTS, hidden=size.hidden), _pixels)


def _cross_stitch(size: LeNetSize) -> Network:
    return _network(cross_stitch(size.side**2, OUTPUTS, sizes=(64, 32)), _pixels, common=False)


def _snr(size: LeNetSize) -> Network:
    def penalty(own: PyTree, z: Any, task: str) -> jax.Array:
        del task
        return GATE_PENALTY * (z.open_gates + expected_open(own["log_alpha"][...]))

    model = snr(size.side**2, OUTPUTS)
    return _network(model, lambda b: Inputs(_pixels(b), b["encoder_key"]), penalty=penalty)


def _soft_sharing(size: LeNetSize) -> Network:
    def penalty(own: PyTree, z: Any, task: str) -> jax.Array:
        del own
        return TIE * z.distances[TASKS.index(task)]

    model = soft_sharing(size.side**2, OUTPUTS)
    return _network(model, _pixels, penalty=penalty, common=False)


def _multi_camera(size: LeNetSize) -> Network:
    model = multi_camera(3, OUTPUTS, channels=(1, 16, 32), hidden=size.hidden)
    return _network(model, _strips)


NETWORKS: dict[str, Callable[[LeNetSize], Network]] = {
    "lenet": lenet_network,
    "cross_stitch": _cross_stitch,
    "mmoe": _mmoe,
    "multi_camera": _multi_camera,
    "snr": _snr,
    "soft_sharing": _soft_sharing,
}
