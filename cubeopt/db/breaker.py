"""The circuit breaker: a study whose trials fail in a row is ended, and says why."""

from sqlalchemy import Engine, text

from cubeopt.db import outbox
from cubeopt.db.budgets import RAN_SECONDS
from cubeopt.db.engine import transaction


def trip(engine: Engine, study_id: int, limit: int) -> str | None:
    """Fail a running study whose last *limit* ended runs all failed; the reason, if it did."""
    with transaction(engine) as connection:
        reason = connection.scalar(_TRIP, {"study_id": study_id, "limit": limit})
    return None if reason is None else str(reason)


# A diverged run is a result, and breaks a row of failures. What failed before a person resumed the
# study does not count: they know of it.
_TRIP = text(f"""
    WITH latest AS (
        SELECT run.id, run.state, run.finished_at, trial.number, attempt.end_class,
            substring(rtrim(attempt.error, E'\\n') from '[^\\n]*$') AS cause
        FROM cubeopt.runs run
            JOIN cubeopt.trials trial ON trial.id = run.trial_id
            LEFT JOIN cubeopt.attempts attempt
            ON attempt.run_id = run.id AND attempt.token = run.token
            JOIN cubeopt.studies study ON study.id = run.study_id
        WHERE run.study_id = :study_id AND run.state IN ('complete', 'pruned', 'failed')
            AND run.finished_at >= study.state_since
        ORDER BY run.finished_at DESC, run.id DESC
        LIMIT :limit
    ), row AS (
        SELECT count(*) = :limit AND bool_and(state = 'failed') AS unbroken,
            string_agg(CAST(number AS text), ', ' ORDER BY finished_at, id) AS numbers
        FROM latest
    ), last AS (
        SELECT * FROM latest ORDER BY finished_at DESC, id DESC LIMIT 1
    ), ended AS (
        UPDATE cubeopt.studies study
        SET state = 'failed', state_since = clock_timestamp(), finished_at = clock_timestamp(),
            ran_seconds = {RAN_SECONDS},
            state_reason = format(
                '%s trials failed in a row (%s); the last, trial %s, by %s: %s',
                :limit, row.numbers, last.number, replace(last.end_class, '_', ' '), last.cause
            )
        FROM row, last
        WHERE study.id = :study_id AND study.state = 'running' AND row.unbroken
        RETURNING study.*
    ), told AS ({outbox.study_ended("ended")})
    SELECT state_reason FROM ended
""")
