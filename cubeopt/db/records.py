"""What stands in the storage, as frozen values."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Engine, Float, Select, and_, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert

from cubeopt.db import priors, tables
from cubeopt.db.engine import transaction
from cubeopt.db.priors import Prior
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState, WorkerState
from cubeopt.errors import StudyError, UnknownNameError
from cubeopt.trial import did_you_mean


@dataclass(frozen=True)
class StudyRecord:
    """One study."""

    id: int
    name: str
    spec: dict[str, Any]
    state: StudyState
    state_reason: str | None
    direction: str
    metric: str
    dataset: str
    dataset_fingerprint: str
    dataset_rows: dict[str, int]
    baselines: dict[str, Any]
    code_version: str
    created_at: datetime
    finished_at: datetime | None
    state_since: datetime
    ran_seconds: float  # up to state_since


@dataclass(frozen=True)
class TrialRecord:
    """One trial; its state, epoch and value are those of its short run."""

    id: int
    study_id: int
    number: int
    params: dict[str, Any]
    state: RunState
    epoch: int
    value: float | None
    reason: dict[str, Any] | None  # {"end": an EndClass, "epoch": ..., ...} when it ended early
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class RunRecord:
    """One run: a trial's short one, or a full one that it was promoted to."""

    id: int
    trial_id: int
    trial_number: int
    study_id: int
    kind: RunKind
    replicate: int  # of a full run: 0 has the trial's own seed
    spec: dict[str, Any]
    pack_key: str
    target_epochs: int
    state: RunState
    priority: int
    width: int | None
    token: int
    worker_id: int | None
    lease_expires_at: datetime | None
    epoch: int
    value: float | None
    test_value: float | None
    checkpoint: str | None
    checkpoint_epoch: int | None
    failures: int
    suspect: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    end_class: EndClass | None  # of the newest attempt


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of a run measured."""

    run_id: int
    trial_number: int
    kind: RunKind
    epoch: int
    token: int
    value: float | None
    metrics: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class AttemptRecord:
    """One try at a run under one lease."""

    id: int
    run_id: int
    trial_number: int
    kind: RunKind
    token: int
    worker_id: int
    started_at: datetime
    ended_at: datetime | None
    from_epoch: int
    end_class: EndClass | None
    error: str | None
    device: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class WorkerRecord:
    """One worker process."""

    id: int
    name: str
    host: str
    pid: int
    device: str
    started_at: datetime
    heartbeat_at: datetime
    silent_seconds: float  # since the last heartbeat, by the clock of the database
    state: WorkerState
    drain_asked_at: datetime | None
    provenance: dict[str, Any]


def create_study(
    engine: Engine,
    *,
    name: str,
    spec: Mapping[str, Any],
    direction: str,
    metric: str,
    dataset: str,
    dataset_fingerprint: str,
    dataset_rows: Mapping[str, int],
    baselines: Mapping[str, Any],
    code_version: str,
    taught_by: Sequence[Prior] = (),
) -> StudyRecord:
    """Write a new study in the state 'running', and what teaches its sampler from the start.

    Raises StudyError when the name is taken.
    """
    values = {
        "name": name,
        "spec": dict(spec),
        "direction": direction,
        "metric": metric,
        "dataset": dataset,
        "dataset_fingerprint": dataset_fingerprint,
        "dataset_rows": dict(dataset_rows),
        "baselines": dict(baselines),
        "code_version": code_version,
    }
    statement = insert(_studies).values(values).on_conflict_do_nothing(index_elements=["name"])
    with transaction(engine) as connection:
        study_id = connection.execute(statement.returning(_studies.c.id)).scalar()
        if study_id is None:
            raise StudyError(
                f"a study named {name!r} exists already; give another name with --name"
            )
        priors.write(connection, study_id, taught_by)
    return study(engine, name)


def studies(engine: Engine) -> list[StudyRecord]:
    """All studies, the oldest first."""
    return _read(engine, select(_studies).order_by(_studies.c.id), StudyRecord)


def running(
    engine: Engine, only: str | None = None, known: Collection[int] = ()
) -> list[StudyRecord]:
    """The studies that run, the oldest first, without those whose ids are *known*.

    With *only* at most the one of this name.
    """
    chosen = and_(_studies.c.state == StudyState.RUNNING, _studies.c.id.not_in(known))
    if only is not None:
        chosen = and_(chosen, _studies.c.name == only)
    return _read(engine, select(_studies).where(chosen).order_by(_studies.c.id), StudyRecord)


def study(engine: Engine, name: str) -> StudyRecord:
    """The study called *name*; UnknownNameError, with a hint, when there is none."""
    found = _read(engine, select(_studies).where(_studies.c.name == name), StudyRecord)
    if not found:
        names = frozenset(known.name for known in studies(engine))
        raise UnknownNameError(f"there is no study named {name!r}{did_you_mean(name, names)}")
    return found[0]


def of_id(engine: Engine, study_id: int) -> StudyRecord | None:
    """The study with this id; None once it was deleted."""
    found = _read(engine, select(_studies).where(_studies.c.id == study_id), StudyRecord)
    return found[0] if found else None


def trials(engine: Engine, study_id: int, ended_after: datetime | None = None) -> list[TrialRecord]:
    """A study's trials by number; all, or those that have not ended, or did *ended_after* it."""
    short = [_runs.c[name] for name in ("state", "epoch", "value", "started_at", "finished_at")]
    statement = (
        select(_trials, *short)
        .join(_runs, and_(_runs.c.trial_id == _trials.c.id, _runs.c.kind == RunKind.SHORT))
        .where(_trials.c.study_id == study_id, _open_or_ended(ended_after))
        .order_by(_trials.c.number)
    )
    return _read(engine, statement, TrialRecord)


def counts(engine: Engine, study_id: int, kind: RunKind = RunKind.SHORT) -> dict[RunState, int]:
    """How many runs of *kind* stand in each state; every state is there."""
    statement = (
        select(_runs.c.state, func.count())
        .where(_runs.c.study_id == study_id, _runs.c.kind == kind)
        .group_by(_runs.c.state)
    )
    with transaction(engine) as connection:
        found = {state: number for state, number in connection.execute(statement)}
    return {state: found.get(state, 0) for state in RunState}


def runs(engine: Engine, study_id: int, ended_after: datetime | None = None) -> list[RunRecord]:
    """A study's runs by trial number, the short one before the full ones, those by replicate.

    All, or those that have not ended, or did *ended_after* it.
    """
    chosen = and_(_runs.c.study_id == study_id, _open_or_ended(ended_after))
    return _read(engine, _select_runs(chosen), RunRecord)


def epochs(engine: Engine, study_id: int, after: datetime | None = None) -> list[EpochRecord]:
    """A study's epochs by trial number, kind and epoch; only those recorded later than *after*."""
    statement = _select_epochs(_runs.c.study_id == study_id)
    if after is not None:
        statement = statement.where(_epochs.c.created_at > after)
    return _read(engine, statement, EpochRecord)


def attempts(engine: Engine, study_id: int, after: int = 0) -> list[AttemptRecord]:
    """A study's attempts in the order they began; only those with ids *after* it."""
    statement = (
        select(_attempts, _trials.c.number.label("trial_number"), _runs.c.kind)
        .join(_runs, _runs.c.id == _attempts.c.run_id)
        .join(_trials, _trials.c.id == _runs.c.trial_id)
        .where(_runs.c.study_id == study_id, _attempts.c.id > after)
        .order_by(_attempts.c.id)
    )
    return _read(engine, statement, AttemptRecord)


def workers(engine: Engine) -> list[WorkerRecord]:
    """All workers that ever registered, the oldest first."""
    silent = func.extract("epoch", func.clock_timestamp() - _workers.c.heartbeat_at)
    silent_seconds = cast(silent, Float(53)).label("silent_seconds")
    return _read(engine, select(_workers, silent_seconds).order_by(_workers.c.id), WorkerRecord)


_studies, _trials, _runs = tables.studies, tables.trials, tables.runs
_attempts, _epochs, _workers = tables.attempts, tables.epochs, tables.workers
_Record = TypeVar("_Record")


def _open_or_ended(after: datetime | None) -> ColumnElement[bool]:
    if after is None:
        return true()
    return or_(_runs.c.finished_at.is_(None), _runs.c.finished_at > after)


def _select_runs(condition: ColumnElement[bool]) -> Select[Any]:
    newest = and_(_attempts.c.run_id == _runs.c.id, _attempts.c.token == _runs.c.token)
    return (
        select(_runs, _trials.c.number.label("trial_number"), _attempts.c.end_class)
        .join(_trials, _trials.c.id == _runs.c.trial_id)
        .outerjoin(_attempts, newest)
        .where(condition)
        .order_by(_trials.c.number, _runs.c.kind.desc(), _runs.c.replicate)
    )


def _select_epochs(condition: ColumnElement[bool]) -> Select[Any]:
    return (
        select(_epochs, _trials.c.number.label("trial_number"), _runs.c.kind)
        .join(_runs, _runs.c.id == _epochs.c.run_id)
        .join(_trials, _trials.c.id == _runs.c.trial_id)
        .where(condition)
        .order_by(_trials.c.number, _runs.c.id, _epochs.c.epoch)
    )


def _read(engine: Engine, statement: Select[Any], record: type[_Record]) -> list[_Record]:
    names = [field.name for field in dataclasses.fields(record)]  # type: ignore[arg-type]
    with transaction(engine) as connection:
        rows = connection.execute(statement).mappings().all()
    return [record(**{name: row[name] for name in names}) for row in rows]
