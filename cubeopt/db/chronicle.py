"""What happened in a study lately, and how fast it goes: read at every look of somebody watching.

Nothing here is read from all epochs: those of a run are found by their key, and the runs of
interest are open or ended lately, for which there are indexes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.tables import EndClass, RunKind

STARTED, PROMOTED, FAILED = "started", "promoted", "failed"  # beside the classes of ends


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial."""

    at: datetime
    what: str  # STARTED, PROMOTED, FAILED (by errors, for good), or an EndClass
    trial: int
    kind: RunKind
    replicate: int
    token: int  # of the attempt; 0 of a promotion
    epoch: int  # the last one that the attempt recorded, or where it began
    target_epochs: int
    value: float | None  # the objective there
    worker: str | None
    seeds: int  # full runs that a promotion made
    by_person: bool  # who ended it, rather than a rung
    error: str | None  # its last line

    @property
    def key(self) -> str:
        """The same in every look, whatever is learned of the event later."""
        side = self.what if self.what in (STARTED, PROMOTED) else "ended"
        return f"{side} {self.trial} {self.kind} {self.replicate} {self.token}"


@dataclass(frozen=True)
class Pace:
    """Epochs that the study's runs recorded in the last *seconds*."""

    epochs: int
    seconds: float
    now: datetime  # by the clock of the database

    @property
    def rate(self) -> float | None:
        """Epochs a second."""
        return self.epochs / self.seconds if self.seconds > 0.0 and self.epochs else None


def events(engine: Engine, study_id: int, limit: int, after: datetime | None = None) -> list[Event]:
    """The last *limit* events of a study, the oldest first; only those *after* a moment."""
    values = {"study_id": study_id, "limit": limit, "after": after}
    with transaction(engine) as connection:
        rows = connection.execute(_EVENTS, values).mappings().all()
    return [_event(row) for row in rows]


def _event(row: Any) -> Event:
    error = (row["error"] or "").strip().rpartition("\n")[2] or None
    return Event(**{**row, "kind": RunKind(row["kind"]), "error": error})


_EVENTS = text(f"""
    WITH happened AS (
        (
            SELECT ended_at AS at, 'end' AS side, attempt.id, CAST(NULL AS bigint) AS trial_id
            FROM cubeopt.attempts attempt JOIN cubeopt.runs run ON run.id = attempt.run_id
            WHERE run.study_id = :study_id
                AND ended_at > coalesce(CAST(:after AS timestamptz), '-infinity')
            ORDER BY ended_at DESC LIMIT :limit
        ) UNION ALL (
            SELECT attempt.started_at, 'start', attempt.id, NULL
            FROM cubeopt.attempts attempt JOIN cubeopt.runs run ON run.id = attempt.run_id
            WHERE run.study_id = :study_id
                AND attempt.started_at > coalesce(CAST(:after AS timestamptz), '-infinity')
            ORDER BY attempt.started_at DESC LIMIT :limit
        ) UNION ALL (
            SELECT min(created_at), 'promotion', min(id), trial_id
            FROM cubeopt.runs WHERE study_id = :study_id AND kind = '{RunKind.FULL}'
            GROUP BY trial_id
            HAVING min(created_at) > coalesce(CAST(:after AS timestamptz), '-infinity')
        )
    )
    SELECT * FROM (
        SELECT happened.at,
            CASE WHEN side = 'start' THEN '{STARTED}'
                WHEN run.state = 'failed' AND run.token = attempt.token THEN '{FAILED}'
                ELSE attempt.end_class END AS what,
            trial.number AS trial, run.kind, run.replicate, attempt.token,
            coalesce(last.epoch, attempt.from_epoch) AS epoch, run.target_epochs, last.value,
            worker.name AS worker, 0 AS seeds,
            side = 'end' AND attempt.end_class = '{EndClass.PRUNED}'
                AND (run.kind = '{RunKind.FULL}' OR trial.reason ? 'by') AS by_person,
            CASE WHEN side = 'end' THEN attempt.error END AS error
        FROM happened JOIN cubeopt.attempts attempt ON attempt.id = happened.id
            JOIN cubeopt.runs run ON run.id = attempt.run_id
            JOIN cubeopt.trials trial ON trial.id = run.trial_id
            JOIN cubeopt.workers worker ON worker.id = attempt.worker_id
            LEFT JOIN LATERAL (
                SELECT epoch, value FROM cubeopt.epochs
                WHERE run_id = run.id AND token = attempt.token AND side = 'end'
                ORDER BY epoch DESC LIMIT 1
            ) last ON true
        WHERE side <> 'promotion'
        UNION ALL
        SELECT happened.at, '{PROMOTED}', trial.number, run.kind, 0, 0, short.epoch,
            run.target_epochs, short.value, NULL,
            (SELECT CAST(count(*) AS int) FROM cubeopt.runs
                WHERE trial_id = trial.id AND kind = '{RunKind.FULL}'),
            false, NULL
        FROM happened JOIN cubeopt.runs run ON run.id = happened.id
            JOIN cubeopt.trials trial ON trial.id = happened.trial_id
            JOIN cubeopt.runs short ON short.trial_id = trial.id AND short.kind = '{RunKind.SHORT}'
        WHERE side = 'promotion'
        ORDER BY at DESC, trial DESC LIMIT :limit
    ) AS event
    ORDER BY at, trial, what DESC
""")


def pace(engine: Engine, study_id: int, seconds: float) -> Pace:
    """What was recorded in the last *seconds*, or since the study began or went on."""
    with transaction(engine) as connection:
        row = connection.execute(_PACE, {"study_id": study_id, "seconds": seconds}).one()
    return Pace(row.epochs, row.seconds, row.now)


_PACE = text("""
    WITH span AS (
        SELECT least(:seconds, extract(epoch FROM clock_timestamp() - greatest(
            study.state_since,
            (SELECT min(started_at) FROM cubeopt.runs WHERE study_id = study.id)
        ))) AS seconds
        FROM cubeopt.studies study WHERE id = :study_id
    ), lately AS (
        SELECT run.id FROM cubeopt.runs run, span WHERE run.study_id = :study_id
            AND (finished_at IS NULL
                OR finished_at > clock_timestamp() - make_interval(secs => span.seconds))
    )
    SELECT count(epoch.run_id) AS epochs, CAST(span.seconds AS float) AS seconds,
        clock_timestamp() AS now
    FROM span LEFT JOIN (lately JOIN cubeopt.epochs epoch ON epoch.run_id = lately.id)
        ON epoch.created_at > clock_timestamp() - make_interval(secs => span.seconds)
    GROUP BY span.seconds
""")
