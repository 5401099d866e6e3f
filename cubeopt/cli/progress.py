"""What a person sees while a worker runs."""

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cubeopt import logs
from cubeopt.cli.printing import number
from cubeopt.db import records
from cubeopt.db.engine import Engine
from cubeopt.db.tables import RunState, StudyState
from cubeopt.errors import StorageLostError
from cubeopt.search import study as study_file
from cubeopt.service.events import Event, Happening

_LOOK_SECONDS = 2.0  # between two looks at how far the studies are

_WORDS = {
    Happening.STARTED: "starts",
    Happening.PRUNED: "pruned",
    Happening.COMPLETE: "complete",
    Happening.DIVERGED: "diverged",
    Happening.LOST: "lost to another worker",
    Happening.ERROR: "error",
    Happening.RELEASED: "given back",
    Happening.LET_GO: "let go",
    Happening.ABANDONED: "given up",
}
_WHY = {
    Happening.LET_GO: "a person ended it, or another worker has it",
    Happening.ABANDONED: "the storage does not answer, and its lease expires",
}


class WorkerScreen:
    """A line for each thing that happens to a run, and below them, on a terminal, a bar a study."""

    def __init__(self, console: Console, engine: Engine, study: str | None) -> None:
        self._console, self._engine, self._study = console, engine, study
        self._draws = console.is_terminal and not logs.as_json()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self._draws,
        )
        self._bars: dict[int, TaskID] = {}
        self._looked = 0.0
        self._epochs = 0
        self._ended = 0
        self._started = time.monotonic()

    def __enter__(self) -> "WorkerScreen":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def tell(self, event: Event) -> None:
        """Show *event*."""
        claim = event.claim
        self.look()
        if event.what in (Happening.EPOCH, Happening.COMPLETE, Happening.PRUNED):
            self._epochs += 1
        if event.what in (Happening.COMPLETE, Happening.PRUNED, Happening.DIVERGED):
            self._ended += 1
        if event.what is Happening.EPOCH:
            if claim.target_epochs > 10 and event.epoch % 10:
                return  # ten lines of a full run are enough
            what = f"epoch {event.epoch}/{claim.target_epochs}"
        elif event.epoch:
            what = f"{_WORDS[event.what]} at epoch {event.epoch}/{claim.target_epochs}"
        else:
            what = _WORDS[event.what]
        value = "" if event.value is None else f"  {claim.metric} {number(event.value)}"
        why = event.detail or _WHY.get(event.what)
        detail = f": {why}" if why else ""
        full = "full run of " if claim.kind == "full" else ""
        seed = f" with seed {claim.spec['seed']}" if claim.replicate else ""
        line = f"{claim.study}: {full}trial {claim.trial_number}{seed} {what}{value}{detail}"
        self._print(line, **_fields(event))

    def pass_on(self, label: str, line: str) -> None:
        """Show a *line* that somebody else has printed."""
        if not logs.as_json():
            self._print(f"{label}: {line}")
        elif line.startswith("{"):  # it logs as we do, and says who it is
            sys.stderr.write(line + "\n")  # in one write: several threads are here
        else:
            self._print(line, worker=label)

    def farewell(self) -> str:
        """What this worker did."""
        seconds = time.monotonic() - self._started
        return f"{self._ended} runs ended here, {self._epochs} epochs in {seconds:.0f} s"

    def look(self) -> None:
        """Move the bars; rarely, for it asks the database."""
        now = time.monotonic()
        if not self._draws or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        with suppress(StorageLostError):
            self._move()

    def _move(self) -> None:
        for record in records.studies(self._engine):
            if record.state != StudyState.RUNNING or self._study not in (None, record.name):
                continue
            counts = records.counts(self._engine, record.id)
            ended = sum(
                counts[each] for each in (RunState.COMPLETE, RunState.PRUNED, RunState.FAILED)
            )
            total = study_file.parse(record.spec, record.name).trials()
            if record.id not in self._bars:
                self._bars[record.id] = self._progress.add_task(record.name, total=total)
            self._progress.update(self._bars[record.id], completed=ended)

    def _print(self, line: str, **fields: Any) -> None:
        if logs.as_json():
            logs.say(line, **fields)
            return
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fields(event: Event) -> dict[str, Any]:
    claim = event.claim
    return {
        "study": claim.study,
        "trial": claim.trial_number,
        "run": claim.run_id,
        "kind": claim.kind,
        "event": event.what,
        "epoch": event.epoch,
        "value": event.value,
    }
