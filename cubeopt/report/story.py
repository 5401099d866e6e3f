"""The whole story of one trial as plain rows: what it was, where it ran, why attempts ended."""

import math
from collections.abc import Sequence
from datetime import datetime

from cubeopt.db.records import AttemptRecord, EpochRecord, RunRecord, WorkerRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.errors import UnknownNameError
from cubeopt.report import origins
from cubeopt.report.summary import Records, Row
from cubeopt.search.study import Rungs, better


def story(found: Records, number: int, workers: Sequence[WorkerRecord]) -> Row:
    """Everything the storage knows of trial *number*; UnknownNameError when there is none."""
    trials = {trial.number: trial for trial in found.trials}
    if number not in trials:
        known = f"it has {min(trials)} to {max(trials)}" if trials else "it has none yet"
        raise UnknownNameError(f"study {found.study.name!r} has no trial {number}; {known}")
    trial = trials[number]
    runs = [run for run in found.runs if run.trial_number == number]
    attempts = [attempt for attempt in found.attempts if attempt.trial_number == number]
    names = {worker.id: worker for worker in workers}
    replicate = {run.id: run.replicate for run in runs}
    return {
        "study": found.study.name,
        "trial": number,
        "state": str(trial.state),
        "reason": trial.reason,
        "metric": found.study.metric,
        "params": trial.params,
        "seed": runs[0].spec.get("seed"),
        "created": trial.created_at.isoformat(),
        "runs": [_run(run) for run in runs],
        "attempts": [
            {"replicate": replicate[attempt.run_id], **_attempt(attempt, names)}
            for attempt in attempts
        ],
        "unlike": origins.unlike_attempts(attempts),
        "rungs": _rungs(found, number),
    }


def _run(run: RunRecord) -> Row:
    return {
        "kind": str(run.kind),
        "replicate": run.replicate,
        "seed": run.spec.get("seed"),
        "state": str(run.state),
        "epoch": run.epoch,
        "target_epochs": run.target_epochs,
        "value": _finite(run.value),
        "test_value": _finite(run.test_value),
        "width": run.width,
        "failures": run.failures,
        "suspect": run.suspect,
        "checkpoint": run.checkpoint,
        "started": _moment(run.started_at),
        "finished": _moment(run.finished_at),
    }


def _attempt(attempt: AttemptRecord, workers: dict[int, WorkerRecord]) -> Row:
    worker = workers[attempt.worker_id]
    ended = attempt.ended_at
    return {
        "kind": str(attempt.kind),
        "attempt": attempt.token,
        "worker": worker.name,
        "host": worker.host,
        "device": attempt.device,
        "code": origins.code(attempt),
        "torch": origins.torch_version(attempt),
        "from_epoch": attempt.from_epoch,
        "started": attempt.started_at.isoformat(),
        "seconds": (ended - attempt.started_at).total_seconds() if ended else None,
        "end": str(attempt.end_class) if attempt.end_class else None,
        "error": attempt.error,
    }


def _rungs(found: Records, number: int) -> list[Row]:
    """Where the trial stood at each rung that it reached, among all that reached it so far."""
    ends = Rungs.model_validate(found.study.spec.get("rungs", {})).epochs
    short = [epoch for epoch in found.epochs if epoch.kind == RunKind.SHORT]
    (run,) = [run for run in found.runs if run.trial_number == number and run.kind == RunKind.SHORT]
    rows = []
    for rung in ends:
        there = {e.trial_number: e for e in short if e.epoch == rung and e.value is not None}
        if number in there:
            rows.append(_rung(there, number, run, found.study.direction))
    return rows


def _rung(there: dict[int, EpochRecord], number: int, run: RunRecord, direction: str) -> Row:
    own = there[number]
    values = [each.value for each in there.values() if each.value is not None]
    assert own.value is not None
    ended = run.state == RunState.PRUNED and run.epoch == own.epoch
    return {
        "epoch": own.epoch,
        "value": own.value,
        "rank": 1 + sum(better(value, own.value, direction) for value in values),
        "of": len(values),
        "verdict": "pruned" if ended else "went on" if run.epoch > own.epoch else str(run.state),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
