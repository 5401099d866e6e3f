"""Each trial's point and what came of it: what a sampler knows and what Optuna's tables show."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.standings import CHOSEN
from cubeopt.db.tables import RunState

ENDED = (RunState.COMPLETE, RunState.PRUNED, RunState.FAILED)


@dataclass(frozen=True)
class Outcome:
    """One trial as its short run stands."""

    number: int
    params: dict[str, Any]
    notes: dict[str, Any]  # what the sampler wrote beside it
    state: RunState
    epoch: int  # the last one recorded
    value: float | None  # the objective at the last validated epoch; None when it diverged
    values: dict[int, float]  # by epoch, of those that were validated
    metrics: dict[str, Any]  # at the last of them, of what was asked for
    mirrored_epoch: int  # the last one that Optuna's tables show; -1 when they lack the trial
    begun_at: datetime
    finished_at: datetime | None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Standing:
    """The trials of a study that wait or run, by number, and who trains them."""

    waiting: frozenset[int]
    running: frozenset[int]
    most_held: int  # by one worker
    idle: int  # live workers that hold no run, of any study

    @property
    def numbers(self) -> frozenset[int]:
        return self.waiting | self.running


@dataclass(frozen=True)
class Wish:
    """Values that a person wants tried, under a number of its own; the rest has to be drawn."""

    number: int
    params: dict[str, Any]


def read(engine: Engine, study_id: int, keys: Sequence[str] = ()) -> list[Outcome]:
    """All trials of a study by number, with the metrics *keys*."""
    return _read(engine, "true", keys, study_id=study_id)


def ended(
    engine: Engine, study_id: int, numbers: Collection[int], keys: Sequence[str] = ()
) -> list[Outcome]:
    """Those among the trials *numbers* that have ended, by number, with the metrics *keys*."""
    if not numbers:
        return []
    condition = f"trial.number = ANY(:numbers) AND {_ENDED}"
    return _read(engine, condition, keys, study_id=study_id, numbers=list(numbers))


def unmirrored(
    engine: Engine, study_id: int, keys: Sequence[str] = (), limit: int | None = None
) -> list[Outcome]:
    """Trials of which something is missing in Optuna's tables, the first *limit* by number."""
    condition = f"NOT trial.told AND (run.epoch > trial.mirrored_epoch OR {_ENDED})"
    return _read(engine, condition, keys, limit, study_id=study_id)


def standing(engine: Engine, study_id: int) -> Standing:
    """Where the trials stand that have not ended."""
    with transaction(engine) as connection:
        rows = list(connection.execute(_STANDING, {"study_id": study_id}))
        idle = connection.execute(_IDLE).scalar_one()
    waiting = frozenset(number for number, worker_id in rows if worker_id is None)
    held = Counter(worker_id for _, worker_id in rows if worker_id is not None)
    running = frozenset(number for number, _ in rows) - waiting
    return Standing(waiting, running, max(held.values(), default=0), idle)


_STANDING = text("""
    SELECT trial.number, run.worker_id
    FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
    WHERE run.study_id = :study_id AND run.kind = 'short' AND run.state IN ('waiting', 'running')
""")

_IDLE = text("""
    SELECT count(*) FROM cubeopt.workers worker
    WHERE state = 'live' AND drain_asked_at IS NULL AND NOT EXISTS (
        SELECT FROM cubeopt.runs WHERE state = 'running' AND worker_id = worker.id
    )
""")

_ENDED = "run.state IN ('complete', 'pruned', 'failed')"
_OUTCOMES = f"""
    SELECT trial.number, trial.params, trial.notes, run.state, run.epoch, run.value,
        trial.mirrored_epoch, coalesce(run.started_at, trial.created_at) AS begun_at,
        run.finished_at, seen.epochs, seen.values, coalesce(last.metrics, '{{}}') AS metrics
    FROM cubeopt.trials trial
        JOIN cubeopt.runs run ON run.trial_id = trial.id AND run.kind = 'short'
        CROSS JOIN LATERAL (
            SELECT array_agg(epoch ORDER BY epoch) AS epochs,
                array_agg(value ORDER BY epoch) AS values
            FROM cubeopt.epochs WHERE run_id = run.id AND value IS NOT NULL
        ) seen
        LEFT JOIN LATERAL (
            SELECT {CHOSEN} AS metrics FROM cubeopt.epochs epoch
            WHERE run_id = run.id AND value IS NOT NULL AND cardinality(CAST(:keys AS text[])) > 0
            ORDER BY epoch.epoch DESC LIMIT 1
        ) last ON true
    WHERE trial.study_id = :study_id AND
"""


def _read(
    engine: Engine,
    condition: str,
    keys: Sequence[str],
    limit: int | None = None,
    **values: Any,
) -> list[Outcome]:
    statement = text(f"{_OUTCOMES} {condition} ORDER BY trial.number LIMIT :limit")
    with transaction(engine) as connection:
        found = connection.execute(statement, {**values, "keys": list(keys), "limit": limit})
        rows = [dict(row) for row in found.mappings()]
    for row in rows:
        row["state"] = RunState(row["state"])
        row["values"] = dict(zip(row.pop("epochs") or (), row["values"] or (), strict=True))
    return [Outcome(**row) for row in rows]


def mark_mirrored(engine: Engine, study_id: int, shown: Sequence[Outcome]) -> None:
    """Note that Optuna's tables have what *shown* says."""
    if not shown:
        return
    values = {
        "study_id": study_id,
        "numbers": [each.number for each in shown],
        "epochs": [each.epoch for each in shown],
        "told": [each.ended for each in shown],
    }
    with transaction(engine) as connection:
        connection.execute(_MARK, values)


# Trials are locked in the order in which reports lock them.
_MARK = text("""
    WITH shown AS (
        SELECT * FROM unnest(
            CAST(:numbers AS int[]), CAST(:epochs AS int[]), CAST(:told AS boolean[])
        ) AS shown(number, epoch, told)
    ), locked AS MATERIALIZED (
        SELECT trial.id, shown.epoch, shown.told
        FROM cubeopt.trials trial JOIN shown ON shown.number = trial.number
        WHERE trial.study_id = :study_id
        ORDER BY trial.number
        FOR NO KEY UPDATE OF trial
    )
    UPDATE cubeopt.trials trial SET mirrored_epoch = locked.epoch, told = locked.told
    FROM locked WHERE trial.id = locked.id
""")


def wish(engine: Engine, study_id: int, params: Mapping[str, Any]) -> int:
    """Reserve the next number of a study for *params*; the number."""
    with transaction(engine) as connection:
        connection.execute(_LOCK, {"study_id": study_id})
        values = {"study_id": study_id, "params": json.dumps(dict(params), allow_nan=False)}
        return int(connection.execute(_WISH, values).scalar_one())


# A statement of its own, so that the next one sees the numbers that were taken meanwhile.
_LOCK = text("SELECT FROM cubeopt.studies WHERE id = :study_id FOR NO KEY UPDATE")

_WISH = text("""
    INSERT INTO cubeopt.trials (study_id, number, params, drawn)
    SELECT :study_id, coalesce(max(number) + 1, 0), CAST(:params AS jsonb), false
    FROM cubeopt.trials WHERE study_id = :study_id
    RETURNING number
""")


def wishes(engine: Engine, study_id: int) -> list[Wish]:
    """What people wished for and nobody has drawn yet, the first wish first."""
    with transaction(engine) as connection:
        rows = connection.execute(_WISHES, {"study_id": study_id}).mappings()
        return [Wish(**row) for row in rows]


_WISHES = text("""
    SELECT number, params FROM cubeopt.trials
    WHERE study_id = :study_id AND NOT drawn ORDER BY number
""")
