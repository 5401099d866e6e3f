"""One training as rows: what `cubeopt train` has written of it so far, and what it shows."""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from cubeopt.errors import InputError
from cubeopt.search.objective import DIRECTIONS, finite
from cubeopt.settings import Settings
from cubeopt.training import logbook
from cubeopt.training.diagnosis import Finding, diagnose
from cubeopt.training.logbook import CHECKPOINTS, CONFIG, LOG, RESULT, Row

_RECENT = 5  # epochs over which the pace is taken
_PATIENCE = 5.0  # times as long as an epoch takes: then it is silent
_LEAST_SECONDS, _FIRST_SECONDS = 60.0, 900.0  # of silence; before the first epoch
_MODEL = "state.safetensors"  # what makes a folder a checkpoint


class State(StrEnum):
    """How a training stands, as far as its files tell."""

    TRAINING = "training"
    SILENT = "silent"  # nothing has come for much longer than an epoch takes
    ENDED = "ended"  # its result is there
    DIVERGED = "diverged"  # a number is NaN or infinite: it has ended itself


@dataclass(frozen=True)
class Training:
    """One training; what a list has for an epoch without the number is None."""

    name: str
    folder: str
    state: State
    epoch: int
    target_epochs: int | None
    epoch_seconds: float | None  # the median of the last ones
    seconds_left: float | None  # of one that trains, at this pace
    silent_seconds: float | None  # since something was written
    metric: str  # that judges it
    value: float | None
    best: float | None
    best_epoch: int | None
    checkpoint: str | None  # the newest
    epochs: list[int]
    metrics: dict[str, list[float | None]]
    findings: list[Finding]
    result: dict[str, Any] | None  # what stands in result.json

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (State.ENDED, State.DIVERGED)

    def last(self, name: str) -> float | None:
        """The newest number called *name*."""
        return next((v for v in reversed(self.metrics.get(name, [])) if v is not None), None)

    def named(self, prefix: str) -> dict[str, list[float | None]]:
        """The numbers whose names begin with *prefix*, by what follows it."""
        return {
            name.removeprefix(prefix): values
            for name, values in self.metrics.items()
            if name.startswith(prefix)
        }

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


class Journal:
    """A training's folder, looked at again and again; its log may be rewritten meanwhile."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._folder = folder(path, settings)
        self._stamp: tuple[int, int] | None = None
        self._rows: list[Row] = []
        self._findings: list[Finding] = []

    def look(self) -> Training:
        """The training now. CheckpointError when its log is damaged."""
        self._read()
        result = self._result()
        last = self._rows[-1] if self._rows else {}
        seconds = [x for row in self._rows if (x := finite(row.get("epoch_seconds"))) is not None]
        pace = statistics.median(seconds[-_RECENT:]) if seconds else None
        epoch, target = int(last.get("epoch", 0)), self._target()
        silent = self._silence()
        state = self._state(result, last, pace, silent)
        left = None
        if state is State.TRAINING and pace is not None and target is not None:
            left = max(0.0, (target - epoch) * pace - (silent or 0.0))
        names = dict.fromkeys(name for row in self._rows for name in row if name != "epoch")
        metrics = {name: [finite(row.get(name)) for row in self._rows] for name in names}
        epochs = [int(row["epoch"]) for row in self._rows]
        metric = (result or {}).get("metric", "fvu")
        value, best, best_epoch = _judged(metric, epochs, metrics)
        return Training(
            name=self._folder.name,
            folder=str(self._folder),
            state=state,
            epoch=epoch,
            target_epochs=target,
            epoch_seconds=pace,
            seconds_left=left,
            silent_seconds=silent,
            metric=metric,
            value=value,
            best=best,
            best_epoch=best_epoch,
            checkpoint=self._checkpoint(),
            epochs=epochs,
            metrics=metrics,
            findings=self._findings,
            result=result,
        )

    def _read(self) -> None:
        """The whole log when it is another than before: it may have been rewritten, not only grown.

        A resumed training drops what came after its checkpoint.
        """
        path = self._folder / LOG
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_size)
        except FileNotFoundError:
            stamp = None
        if stamp is not None and stamp == self._stamp:
            return
        self._rows = logbook.read(path)
        self._findings = diagnose(self._rows)
        self._stamp = stamp

    def _result(self) -> dict[str, Any] | None:
        """The result of this training; none if the log is newer, which is another training's."""
        path = self._folder / RESULT
        try:
            of_result, of_log = path.stat().st_mtime_ns, (self._folder / LOG).stat().st_mtime_ns
            content = json.loads(path.read_text(encoding="utf-8")) if of_result >= of_log else None
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _target(self) -> int | None:
        """The epochs that its configuration asks for."""
        try:
            content = yaml.safe_load((self._folder / CONFIG).read_text(encoding="utf-8"))
            return int(content["real_training"]["epochs"])
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            return None

    def _checkpoint(self) -> str | None:
        saved = sorted((self._folder / CHECKPOINTS).glob("step_*"))
        return saved[-1].name if saved else None

    def _silence(self) -> float | None:
        """Seconds since one of the files was written, by this machine's clock."""
        written = []
        for path in (self._folder / CONFIG, self._folder / LOG, self._folder / CHECKPOINTS):
            try:
                written.append(path.stat().st_mtime)
            except OSError:
                continue
        return max(0.0, time.time() - max(written)) if written else None

    def _state(
        self, result: Mapping[str, Any] | None, last: Row, pace: float | None, silent: float | None
    ) -> State:
        if result is not None:
            return State.ENDED
        if any(value is None for value in last.values()):
            return State.DIVERGED
        patience = _FIRST_SECONDS if pace is None else max(_LEAST_SECONDS, _PATIENCE * pace)
        return State.SILENT if silent is not None and silent > patience else State.TRAINING


def folder(path: Path, settings: Settings) -> Path:
    """The folder of the training that *path* means: itself, one above, or a name of an experiment.

    InputError, which says what to use instead, when there is no training's log.
    """
    known = settings.experiments_dir / path
    if not path.exists() and len(path.parts) == 1 and known.is_dir():
        path = known
    if not path.exists():
        raise InputError(
            f"there is no folder {path}; give the folder of a training, as in "
            f"{settings.experiments_dir}/NAME"
        )
    for each in _upward(path.resolve()):
        if (each / LOG).is_file():
            return each
    raise InputError(_instead(path.resolve(), settings))


def _upward(path: Path) -> Iterator[Path]:
    """*path*, the folder of its checkpoints, and that of the experiment."""
    yield path
    if path.name == CHECKPOINTS:
        yield path.parent
    if path.parent.name == CHECKPOINTS:
        yield path.parent.parent


def _instead(path: Path, settings: Settings) -> str:
    """What to use for *path*, which has no log."""
    shelf = settings.checkpoints_dir.resolve()
    if path.is_relative_to(shelf):
        parts = path.relative_to(shelf).parts
        study = parts[0] if parts else "NAME"
        trial = "NUMBER"
        if len(parts) > 1 and parts[1].removeprefix("trial_").isdigit():
            trial = str(int(parts[1].removeprefix("trial_")))
        return (
            f"{path} belongs to a study, whose epochs stand in the storage and not in a log; "
            f"use: cubeopt study watch {study}, or cubeopt trial show {study} {trial}"
        )
    what = "is a checkpoint without its training" if (path / _MODEL).is_file() else "has no log"
    if path.is_file():
        what = "is a file"
    return (
        f"{path} {what}: a training by `cubeopt train` writes {LOG} into its folder, "
        f"as in {settings.experiments_dir}/NAME"
    )


def _judged(
    metric: str, epochs: Sequence[int], metrics: Mapping[str, Sequence[float | None]]
) -> tuple[float | None, float | None, int | None]:
    """The last value of *metric* on the validation split, the best one and its epoch."""
    values = metrics.get(f"validation/{metric}", ())
    known = [
        (value, epoch) for value, epoch in zip(values, epochs, strict=False) if value is not None
    ]
    if not known:
        return None, None, None
    sign = -1.0 if any(metric == m and w == "maximize" for m, w in DIRECTIONS.items()) else 1.0
    best, at = min(known, key=lambda pair: sign * pair[0])
    return known[-1][0], best, at
