"""The whole story of one trial as plain rows: what it was, where it ran, why attempts ended."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cubeopt.db.records import AttemptRecord, EpochRecord, RunRecord, WorkerRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.errors import UnknownNameError
from cubeopt.report import origins, ranking
from cubeopt.report.summary import Records, Row
from cubeopt.search import fronts
from cubeopt.search.objective import Goal
from cubeopt.search.study import Rungs, better


def story(found: Records, number: int, workers: Sequence[WorkerRecord]) -> Row:
    """Everything the storage knows of trial *number*; UnknownNameError when there is none."""
    trials = {trial.number: trial for trial in found.trials}
    if number not in trials:
        known = f"it has {min(trials)} to {max(trials)}" if trials else "it has none yet"
        raise UnknownNameError(f"study {found.study.name!r} has no trial {number}; {known}")
    trial = trials[number]
    runs = [run for run in found.runs if run.trial_number == number]
    goal, measured = found.goal, found.measured
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
        "second": goal.objective.second,
        "runs": [_run(run) | _second(goal, ranking.reached(run, measured)) for run in runs],
        "constraints": [
            row for run in runs for row in _constraints(goal, run, ranking.reached(run, measured))
        ],
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


def _second(goal: Goal, metrics: Mapping[str, Any]) -> Row:
    if goal.objective.second is None:
        return {}
    return {"second_value": ranking.second_value(goal, metrics)}


def _constraints(goal: Goal, run: RunRecord, metrics: Mapping[str, Any]) -> list[Row]:
    """Whether the run's last validated epoch meets each of them."""
    return [
        {
            "kind": str(run.kind),
            "replicate": run.replicate,
            "constraint": str(each),
            "value": each.value(metrics),
            "met": each.excess(metrics) <= 0.0,
        }
        for each in goal.constraints
        if metrics
    ]


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
            if found.goal.affordable(there[number].metrics):  # it was compared with its like
                there = {n: e for n, e in there.items() if found.goal.affordable(e.metrics)}
            rows.append(_rung(found.goal, there, number, run))
    return rows


def _rung(goal: Goal, there: dict[int, EpochRecord], number: int, run: RunRecord) -> Row:
    own = there[number]
    ended = run.state == RunState.PRUNED and run.epoch == own.epoch
    return {
        "epoch": own.epoch,
        "value": own.value,
        **_second(goal, own.metrics),
        "rank": 1 + _ahead(goal, own, list(there.values())),
        "of": len(there),
        "verdict": "pruned" if ended else "went on" if run.epoch > own.epoch else str(run.state),
    }


def _ahead(goal: Goal, own: EpochRecord, there: Sequence[EpochRecord]) -> int:
    """How many of *there* are better, or with two objectives stand before it."""
    point = goal.losses(own.metrics) if goal.objective.second is not None else None
    if point is not None:
        losses = (goal.losses(each.metrics) for each in there)
        return fronts.ahead(point, [each for each in losses if each is not None])
    assert own.value is not None
    values = [each.value for each in there if each.value is not None]
    return sum(better(value, own.value, goal.objective.direction) for value in values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
