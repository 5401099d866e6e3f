"""Of which runs of a study, and of which of their epochs, a cube can be looked at."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cubeopt import saved
from cubeopt.db import keepsakes, records
from cubeopt.db.engine import Engine
from cubeopt.db.keepsakes import Keepsake
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import RunKind
from cubeopt.errors import CheckpointError, UnknownNameError

SHOWN = 100  # short runs in a list, the best first; all others can be asked for by their key
_KEY = re.compile(r"(\d{1,9})-(?:short|full(?:-\d{1,9})?)")


@dataclass(frozen=True)
class CubeRun:
    """A run that has left a checkpoint."""

    key: str  # 3-full, 3-full-1 (another seed), 3-short
    trial: int
    kind: str
    replicate: int
    state: str
    epoch: int
    value: float | None


@dataclass(frozen=True)
class CubeRuns:
    """Those of a study: full ones first, then short ones, the best of each first."""

    study: str
    metric: str
    runs: Sequence[CubeRun]
    left_out: int  # short runs beyond SHOWN


def runs(engine: Engine, name: str) -> CubeRuns:
    """The runs of the study called *name* with a checkpoint; UnknownNameError without the study."""
    study = records.study(engine, name)
    ranked = _ranked(study, keepsakes.of_study(engine, study.id))
    full = [each for each in ranked if each.kind is RunKind.FULL]
    short = [each for each in ranked if each.kind is RunKind.SHORT]
    shown = [_row(each) for each in (*full, *short[:SHOWN])]
    return CubeRuns(study.name, study.metric, shown, max(0, len(short) - SHOWN))


def of_trial(engine: Engine, name: str, trial: int) -> str:
    """The key of the trial's full run, else of its short one; UnknownNameError without either."""
    study = records.study(engine, name)
    keys = {_key(each) for each in keepsakes.of_study(engine, study.id, trial)}
    for key in (f"{trial}-full", f"{trial}-short"):
        if key in keys:
            return key
    raise UnknownNameError(f"trial {trial} of study {name!r} has left no checkpoint")


def newest(engine: Engine, folder: Path, name: str, trial: int, epoch: int | None = None) -> Path:
    """The newest checkpoint below *folder* of a trial, or that of *epoch*.

    UnknownNameError when it has left none, or none of that epoch; CheckpointError when they are not
    on this machine.
    """
    found = epochs(engine, folder, name, of_trial(engine, name, trial))
    if not found:
        raise CheckpointError(
            f"the checkpoints of trial {trial} of study {name!r} are not on this machine; they "
            f"should be in {folder / name}"
        )
    if epoch is not None and epoch not in found:
        raise UnknownNameError(
            f"no checkpoint of epoch {epoch} of trial {trial} is here, only of "
            f"{', '.join(map(str, found))}"
        )
    return found[max(found) if epoch is None else epoch]


def epochs(engine: Engine, folder: Path, name: str, key: str) -> dict[int, Path]:
    """The checkpoints below *folder* of a run's epochs that are on this machine.

    A full run that went on from its trial's short run has that one's last checkpoint, too.
    UnknownNameError when the study has no run with this *key*, or it has left none anywhere.
    """
    study, named = records.study(engine, name), _KEY.fullmatch(key)
    of_trial = keepsakes.of_study(engine, study.id, int(named[1])) if named else []
    found = {_key(each): each for each in of_trial}
    if key not in found:
        raise UnknownNameError(
            f"study {name!r} has no run {key!r} with a checkpoint; keys are as in 3-full, "
            "3-full-1 and 3-short"
        )
    run = found[key]
    before = found.get(f"{run.trial}-short")
    goes_on = run.kind is RunKind.FULL and run.replicate == 0
    together: dict[int, Path] = {}
    for each in (before, run) if goes_on else (run,):
        if each is not None:
            together |= _of_run(study, each, folder)
    return dict(sorted(together.items()))


def _of_run(study: StudyRecord, run: Keepsake, folder: Path) -> dict[int, Path]:
    home = folder / saved.folder(study.name, run.trial, str(run.kind), run.replicate)
    found = {epoch: path for epoch, path in saved.of_epochs(home).items() if epoch <= run.epoch}
    newest = folder / run.checkpoint
    named = saved.parse(newest.name)
    if named is not None and not named.batches and newest.is_dir():
        found[named.epoch] = newest  # what the storage knows of wins
    return found


def _ranked(study: StudyRecord, found: Sequence[Keepsake]) -> list[Keepsake]:
    sign = 1.0 if study.direction == "minimize" else -1.0

    def order(run: Keepsake) -> tuple[float, int, int]:
        value = math.inf if run.value is None else sign * run.value
        return value, run.trial, run.replicate

    return sorted(found, key=order)


def _row(run: Keepsake) -> CubeRun:
    return CubeRun(
        _key(run),
        run.trial,
        str(run.kind),
        run.replicate,
        str(run.state),
        run.epoch,
        run.value,
    )


def _key(run: Keepsake) -> str:
    return f"{run.trial}-{run.kind}" + (f"-{run.replicate}" if run.replicate else "")
