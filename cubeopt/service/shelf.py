"""Where workers keep the checkpoints of runs: STUDY/trial_00003/full/epoch_00050.t7.

Full runs over further seeds have folders of their own: full_1, full_2.

One that was made in the course of an epoch has its batches in the name: epoch_00050_batch_00017.t7.

The token of the lease stands in the name: the file of a zombie is not that of its successor.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cubeopt.db.queue import Claim
from cubeopt.errors import CheckpointError
from cubeopt.training import checkpoint
from cubeopt.training.loop import PackRun, TrialState
from cubeopt.trial import TrialSpec

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
        kind = f"{claim.kind}_{claim.replicate}" if claim.replicate else claim.kind
        parent = Path(claim.study) / f"trial_{claim.trial_number:05d}" / kind
        begun = f"_batch_{batches:05d}" if batches else ""
        path = parent / f"epoch_{epoch:05d}{begun}.t{claim.token}"
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
        trains the run.
        """
        newest = self._folder / path
        for folder in newest.parent.iterdir():
            mark = _TOKEN_MARK.search(folder.name)
            if folder != newest and mark and int(mark[1]) <= token:
                checkpoint.remove(folder)
