"""Orbax checkpoints: asynchronous, the newest two and the best, safe against damage."""

import shutil
import time
import warnings
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from experiments.errors import ExperimentError, first_line
from experiments.trainer.parallel import as_the_leader_says, leads, wait_for_all
from experiments.trainer.run_folder import folder_name, write_text

PyTree = Any
_SCORE = "score"
_OWNER = "method.txt"


class Checkpoints:
    """The checkpoints of one method in a folder; a context manager that waits for the last save.

    Kept are the two newest, so that one is left when the newest is damaged, and the one with
    the best validation score.
    """

    @classmethod
    def of_method(cls, root: Path, spec: str, every_seconds: float) -> Self:
        """Those of one method, in a folder of its own that holds the method's spec in full."""
        folder = root / folder_name(spec)
        owner = folder / _OWNER
        if leads():
            folder.mkdir(parents=True, exist_ok=True)
            if not owner.exists():
                write_text(owner, spec)
        wait_for_all("checkpoint folder made")
        if (found := owner.read_text(encoding="utf-8")) != spec:
            raise ExperimentError(f"{folder}: holds checkpoints of {found!r}, not of {spec!r}")
        return cls(folder, every_seconds)

    def __init__(self, folder: Path, every_seconds: float):
        """Open the folder; every_seconds is the least time between two saves."""
        self._folder, self._every, self._last = folder.absolute(), every_seconds, time.monotonic()
        self._manager = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:
                raise self._unsaved(error) from error

    def save(self, epoch: int, state: PyTree, score: float, last: bool) -> None:
        """Save after an epoch where it is time to, and after the last; the write goes on behind."""
        due = last or time.monotonic() - self._last >= self._every
        if as_the_leader_says(due):
            self._last = time.monotonic()
            try:
                self._manager.save(
                    epoch, args=ocp.args.StandardSave(state), metrics={_SCORE: score}, force=True
                )
            except Exception as error:  # a full disk shows as almost any type in three libraries
                raise self._unsaved(error) from error

    def _unsaved(self, error: Exception) -> ExperimentError:
        return ExperimentError(f"{self._folder}: cannot save a checkpoint ({first_line(error)})")

    def restore(self, like: PyTree) -> tuple[PyTree, int] | None:
        """The newest checkpoint that can be read and its epoch, or None.

        Args:
          like: a pytree of arrays or shapes that says what is expected.

        Returns:
          (state, epoch). A damaged checkpoint is set aside with a warning, and the one before is
          taken.
        """
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._manager.restore(epoch, args=ocp.args.StandardRestore(like)), epoch
            except Exception as error:  # a damaged file shows as almost any type in three libraries
                path = self._folder / str(epoch)
                aside = self._folder.with_name(f"{self._folder.name}.damaged") / str(epoch)
                warnings.warn(
                    f"{path}: cannot be read, the one before is taken ({first_line(error)})",
                    stacklevel=2,
                )
                self._manager.close()
                if leads():
                    shutil.rmtree(aside, ignore_errors=True)
                    aside.parent.mkdir(exist_ok=True)
                    path.rename(aside)
                wait_for_all(f"checkpoint {epoch} set aside")
                self._manager = self._open()
        return None

    def _open(self) -> ocp.CheckpointManager:
        keep = managers.AnyPreservationPolicy(
            [
                managers.LatestN(2),
                managers.BestN(get_metric_fn=lambda metrics: metrics[_SCORE], n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep)
        return ocp.CheckpointManager(self._folder, options=options)


def shapes(tree: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of a tree of arrays: what `restore` wants to see."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
