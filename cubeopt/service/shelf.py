"""Where workers keep the checkpoints of runs, by the names of `cubeopt.saved`.

Of a short run only the newest one is kept. A full run keeps those of its save points too, thinned:
by them it can be seen how its cube came about.
"""

import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cubeopt import saved
from cubeopt.db.queue import Claim
from cubeopt.errors import CheckpointError
from cubeopt.saved import Saved
from cubeopt.training import checkpoint
from cubeopt.training.loop import PackRun, TrialState
from cubeopt.trial import TrialSpec

logger = logging.getLogger(__name__)

_PAGE = 4096  # bytes, to see whether there is room at all
_TOKEN_MARK = re.compile(r"\.t(\d+)")  # in the name of a checkpoint, and of its draft


class Shelf:
    """The checkpoints below *folder*, which all workers share."""

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        self._folder, self._provenance = folder, provenance

    def check(self) -> None:
        """CheckpointError when nothing can be written to the folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                file.write(bytes(_PAGE))
                file.flush()
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self._folder}: {error.strerror}"
            ) from error

    def take(self, run: PackRun, claim: Claim, spec: TrialSpec) -> TrialState:
        """Where the claimed run stands: its last checkpoint, or its first weights."""
        if claim.checkpoint is None:
            return run.fresh(spec)
        folder = self._folder / claim.checkpoint
        state, facts = checkpoint.load(folder, run.cube.layout)
        if state.spec != spec or facts.dataset_fingerprint != claim.dataset_fingerprint:
            raise CheckpointError(f"checkpoint {folder} is of another configuration or dataset")
        return state

    def put(self, run: PackRun, claim: Claim, slot: int, metrics: Mapping[str, float]) -> str:
        """Write a checkpoint of where a run stands; its path below the folder."""
        epoch, batches = divmod(run.steps_done(slot), run.steps_per_epoch)
        parent = saved.folder(claim.study, claim.trial_number, claim.kind, claim.replicate)
        path = parent / Saved(epoch, batches, claim.token).name
        checkpoint.save(
            self._folder / path,
            run.state(slot),
            run.cube.layout,
            run.feed,
            checkpoint.Facts(
                epoch=epoch,
                pack_width=run.width,
                dataset_fingerprint=claim.dataset_fingerprint,
                metrics=checkpoint.finite(metrics),
                provenance=self._provenance,
            ),
        )
        return str(path)

    def settle(self, path: str, token: int, recorded: bool) -> None:
        """Keep the checkpoint at *path* and none before it, or remove it if nobody knows of it."""
        if recorded:
            self.forget_older(path, token)
        else:
            checkpoint.remove(self._folder / path)

    def forget_older(self, path: str, token: int) -> None:
        """Of what this lease and those before it wrote, only the checkpoint just recorded counts.

        What bears a newer token stays: we may have slept since our report, and another worker
        trains the run. Of a full run, what was written at earlier save points is thinned.
        """
        newest = self._folder / path
        try:
            kept = _save_points(newest)
        except CheckpointError as error:  # its successor has cleared it away while we slept
            logger.debug("nothing is forgotten: %s", error)
            return
        for folder in list(newest.parent.iterdir()):
            mark = _TOKEN_MARK.search(folder.name)
            if folder == newest or not mark or int(mark[1]) > token:
                continue
            if folder not in kept or not _thinned(folder):
                checkpoint.remove(folder)


def _save_points(newest: Path) -> set[Path]:
    """What a full run keeps beside its *newest* checkpoint: one of each epoch before it."""
    recorded = saved.parse(newest.name)
    if recorded is None or not saved.is_of_full_run(newest.parent):
        return set()
    every = checkpoint.save_interval(newest)
    return {
        path
        for epoch, path in saved.of_epochs(newest.parent).items()
        if epoch < recorded.epoch + bool(recorded.batches) and epoch % every == 0
    }


def _thinned(folder: Path) -> bool:
    """Whether *folder* could be thinned; a picture of the past is worth no run's end."""
    try:
        checkpoint.thin(folder)
    except CheckpointError as error:
        logger.warning("no snapshot is kept: %s", error)
        return False
    return True
