"""How the checkpoints of a study's runs are called: STUDY/trial_00003/full/epoch_00050.t7.

Full runs over further seeds have folders of their own: full_1, full_2.

One that was made in the course of an epoch has its batches in the name: epoch_00050_batch_00017.t7.

The token of the lease stands in the name: the file of a zombie is not that of its successor.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"epoch_(\d+)(?:_batch_(\d+))?\.t(\d+)")
_FULL = re.compile(r"full(_\d+)?")


@dataclass(frozen=True, order=True)
class Saved:
    """What a checkpoint's name says."""

    epoch: int  # whole ones
    batches: int  # of the epoch begun
    token: int

    @property
    def name(self) -> str:
        begun = f"_batch_{self.batches:05d}" if self.batches else ""
        return f"epoch_{self.epoch:05d}{begun}.t{self.token}"


def parse(name: str) -> Saved | None:
    """What *name* says; None when it is not that of a checkpoint."""
    found = _NAME.fullmatch(name)
    return found and Saved(int(found[1]), int(found[2] or 0), int(found[3]))


def folder(study: str, trial: int, kind: str, replicate: int) -> Path:
    """Where a run's checkpoints are, below the folder of all."""
    return Path(study) / f"trial_{trial:05d}" / (f"{kind}_{replicate}" if replicate else kind)


def is_of_full_run(run: Path) -> bool:
    """Whether the folder *run* is that of a full run."""
    return _FULL.fullmatch(run.name) is not None


def of_epochs(run: Path) -> dict[int, Path]:
    """The checkpoints in the folder *run* made at the ends of epochs; of several, the last lease's.

    Also those of attempts whose report nobody heard: who goes by the storage leaves out what lies
    beyond the epoch recorded.
    """
    if not run.is_dir():
        return {}
    named = ((parse(each.name), each) for each in run.iterdir())
    found = sorted((name, path) for name, path in named if name and not name.batches)
    return {name.epoch: path for name, path in found}
