"""The outbox: what a receiver shall be told, written with the fact, sent by whoever leads.

A message of a study's end is written in the transaction that ends it; that a worker is lost, before
its runs are returned. So a process may be killed at any moment, and nothing remains untold. A
message is sent until the receiver has taken it, and may be sent twice; its event id is then the
same. Those of one study are sent one after the other, those of workers as well.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.tables import Kind, Post

_KEPT_DAYS = 7  # what has been delivered, or was not


@dataclass(frozen=True)
class Message:
    """One message that waits to be sent."""

    id: int
    event: str  # the same however often it is sent
    kind: Kind
    study_id: int | None  # None: of a worker, or of a study that was deleted
    study: str | None
    facts: dict[str, Any]
    body: str | None  # as it was sent first
    tries: int
    created_at: datetime


@dataclass(frozen=True)
class Undelivered:
    """The messages of a study that the receiver has not taken, and what it last said."""

    waiting: int = 0  # to be sent again
    given_up: int = 0
    last_error: str | None = None

    @property
    def untold(self) -> int:
        return self.waiting + self.given_up

    def __str__(self) -> str:
        said = f"{self.waiting} to be sent again, {self.given_up} given up; {self.last_error}"
        return f"{self.untold} message{'s' * (self.untold != 1)} not delivered: {said}"


def study_ended(moved: str) -> str:
    """SQL that writes a message of each row of cubeopt.studies in *moved*, as it is after its move.

    Part of the statement that moves them.
    """
    return f"""
        INSERT INTO cubeopt.outbox (kind, study_id, study, facts)
        SELECT 'study_' || moved.state, moved.id, moved.name, jsonb_build_object(
            'state', moved.state, 'reason', moved.state_reason, 'metric', moved.metric,
            'direction', moved.direction, 'dataset', moved.dataset,
            'trials', coalesce((
                SELECT jsonb_object_agg(counted.state, counted.trials) FROM (
                    SELECT state, count(*) AS trials FROM cubeopt.runs
                    WHERE study_id = moved.id AND kind = 'short' GROUP BY state
                ) counted
            ), '{{}}')
        )
        FROM {moved} moved WHERE moved.state IN ('complete', 'failed', 'stopped')
    """


def note_lost(engine: Engine, silence_seconds: float = 60.0, settling_seconds: float = 0.0) -> None:
    """Write a message of each worker that let a lease expire in its silence, or was silent for so
    long. One that beats on and has only let go of a run is not lost.

    Comes before the runs are returned and the worker is noted as gone (`queue.reap`, with the same
    numbers). One silence is told once, however long.
    """
    values = {"silence_seconds": silence_seconds, "settling_seconds": settling_seconds}
    with transaction(engine) as connection:
        connection.execute(_NOTE_LOST, values)


_NOTE_LOST = text("""
    WITH expired AS MATERIALIZED (
        SELECT worker_id, trial_id, study_id, kind FROM cubeopt.runs
        WHERE state = 'running' AND lease_expires_at < clock_timestamp()
    ), missed AS MATERIALIZED (
        SELECT id FROM cubeopt.workers
        WHERE id IN (SELECT worker_id FROM expired)
            AND heartbeat_at
                < clock_timestamp() - make_interval(secs => coalesce(lease_seconds, 0) / 2)
        UNION
        SELECT id FROM cubeopt.workers
        WHERE state = 'live'
            AND heartbeat_at < clock_timestamp() - make_interval(secs => :silence_seconds)
    ), lost AS (
        SELECT worker.*,
            extract(epoch FROM clock_timestamp() - worker.heartbeat_at) AS silent_seconds
        FROM cubeopt.workers worker JOIN missed ON missed.id = worker.id
        WHERE pg_postmaster_start_time()
            < clock_timestamp() - make_interval(secs => :settling_seconds)
    )
    INSERT INTO cubeopt.outbox (kind, topic, facts)
    SELECT 'worker_lost', format('worker %s, %s', lost.id, extract(epoch FROM lost.heartbeat_at)),
        jsonb_build_object(
            'worker', lost.name, 'host', lost.host, 'pid', lost.pid, 'device', lost.device,
            'silent_seconds', round(lost.silent_seconds, 1),
            'runs', coalesce((
                SELECT jsonb_agg(jsonb_build_object(
                    'study', study.name, 'trial', trial.number, 'kind', expired.kind
                ) ORDER BY study.name, trial.number)
                FROM expired
                    JOIN cubeopt.trials trial ON trial.id = expired.trial_id
                    JOIN cubeopt.studies study ON study.id = expired.study_id
                WHERE expired.worker_id = lost.id
            ), '[]')
        )
    FROM lost
    ON CONFLICT (topic) DO NOTHING
""")


def add_best(engine: Engine, study_id: int, facts: Mapping[str, Any], quiet_seconds: float) -> bool:
    """Write a message of a running study's new best; False within *quiet_seconds* of the last."""
    values = {
        "study_id": study_id,
        "facts": json.dumps(facts, allow_nan=False),
        "quiet_seconds": quiet_seconds,
    }
    with transaction(engine) as connection:
        return connection.execute(_ADD_BEST, values).rowcount == 1


_ADD_BEST = text("""
    INSERT INTO cubeopt.outbox (kind, study_id, study, facts)
    SELECT 'new_best', study.id, study.name, CAST(:facts AS jsonb)
    FROM cubeopt.studies study
    WHERE id = :study_id AND state = 'running' AND NOT EXISTS (
        SELECT FROM cubeopt.outbox
        WHERE study_id = :study_id AND kind = 'new_best'
            AND created_at > clock_timestamp() - make_interval(secs => :quiet_seconds)
    )
""")


def last_best(engine: Engine, study_id: int) -> tuple[dict[str, Any], float] | None:
    """What was last told of a study's best, and how many seconds ago."""
    with transaction(engine) as connection:
        row = connection.execute(_LAST_BEST, {"study_id": study_id}).one_or_none()
    return None if row is None else (dict(row[0]), float(row[1]))


_LAST_BEST = text("""
    SELECT facts, extract(epoch FROM clock_timestamp() - created_at) FROM cubeopt.outbox
    WHERE study_id = :study_id AND kind = 'new_best' ORDER BY id DESC LIMIT 1
""")


def due(engine: Engine) -> list[Message]:
    """The messages to send now: of each study, and of all workers, the first that waits."""
    with transaction(engine) as connection:
        rows = connection.execute(_DUE).mappings()
        return [
            Message(**{**row, "event": str(row["event"]), "kind": Kind(row["kind"])})
            for row in rows
        ]


_DUE = text("""
    SELECT id, event, kind, study_id, study, facts, body, tries, created_at
    FROM (
        SELECT DISTINCT ON (study) * FROM cubeopt.outbox WHERE state = 'waiting'
        ORDER BY study, id
    ) first
    WHERE due_at <= clock_timestamp()
    ORDER BY id
""")


def compose(engine: Engine, message_id: int, body: str) -> None:
    """Keep what is about to be sent, so that it is the same when it is sent again."""
    with transaction(engine) as connection:
        connection.execute(_COMPOSE, {"id": message_id, "body": body})


_COMPOSE = text("UPDATE cubeopt.outbox SET body = :body WHERE id = :id AND body IS NULL")


def delivered(engine: Engine, message_id: int) -> None:
    """The receiver has taken a message."""
    with transaction(engine) as connection:
        connection.execute(_DELIVERED, {"id": message_id})


_DELIVERED = text("""
    UPDATE cubeopt.outbox
    SET state = 'delivered', tries = tries + 1, ended_at = clock_timestamp()
    WHERE id = :id AND state = 'waiting'
""")


def failed(
    engine: Engine, message_id: int, error: str, again_seconds: float, limit_seconds: float
) -> bool:
    """The receiver has not taken a message: try again, or give up one older than the limit.

    True when it was given up.
    """
    values = {
        "id": message_id,
        "error": error,
        "again_seconds": again_seconds,
        "limit_seconds": limit_seconds,
    }
    with transaction(engine) as connection:
        return connection.execute(_FAILED, values).scalar() == Post.GIVEN_UP


_FAILED = text("""
    WITH age AS (
        SELECT id, created_at < clock_timestamp() - make_interval(secs => :limit_seconds) AS over
        FROM cubeopt.outbox WHERE id = :id AND state = 'waiting' FOR UPDATE
    )
    UPDATE cubeopt.outbox message
    SET tries = tries + 1, last_error = :error,
        due_at = clock_timestamp() + make_interval(secs => :again_seconds),
        state = CASE WHEN over THEN 'given_up' ELSE 'waiting' END,
        ended_at = CASE WHEN over THEN clock_timestamp() END
    FROM age WHERE message.id = age.id
    RETURNING state
""")


def tidy(engine: Engine, expire_seconds: float | None = None) -> None:
    """Forget what ended a week ago. With *expire_seconds* what has waited for longer has expired:
    whoever leads does not know whom to tell.

    The last best that was told of a study is kept as long as the study.
    """
    with transaction(engine) as connection:
        if expire_seconds is not None:
            connection.execute(_EXPIRE, {"seconds": expire_seconds})
        connection.execute(_FORGET, {"days": _KEPT_DAYS})


_EXPIRE = text("""
    UPDATE cubeopt.outbox SET state = 'expired', ended_at = clock_timestamp()
    WHERE state = 'waiting' AND created_at < clock_timestamp() - make_interval(secs => :seconds)
""")

_FORGET = text("""
    DELETE FROM cubeopt.outbox old
    WHERE ended_at < clock_timestamp() - make_interval(days => :days)
        AND NOT (
            kind = 'new_best' AND study_id IS NOT NULL AND id = (
                SELECT max(id) FROM cubeopt.outbox
                WHERE study_id = old.study_id AND kind = 'new_best'
            )
        )
""")


def undelivered(engine: Engine, study_id: int) -> Undelivered:
    """What the receiver has not been told of a study."""
    with transaction(engine) as connection:
        row = connection.execute(_UNDELIVERED, {"study_id": study_id}).mappings().one()
        return Undelivered(**row)


_UNDELIVERED = text("""
    SELECT count(*) FILTER (WHERE state = 'waiting' AND tries > 0) AS waiting,
        count(*) FILTER (WHERE state = 'given_up') AS given_up,
        (array_agg(last_error ORDER BY due_at DESC) FILTER (WHERE last_error IS NOT NULL))[1]
            AS last_error
    FROM cubeopt.outbox
    WHERE study_id = :study_id AND state IN ('waiting', 'given_up')
""")
