"""What a person does to one trial: let it be tried again, or end it; each one statement."""

from sqlalchemy import Engine, TextClause, text

from cubeopt.db import records
from cubeopt.db.engine import transaction
from cubeopt.db.tables import RunState
from cubeopt.errors import StateError, UnknownNameError


def retry(engine: Engine, study: str, number: int) -> bool:
    """Let a failed trial be tried again; False when it waits already."""
    return _act(engine, _RETRY, study, number, RunState.WAITING)


_RETRY = text("""
    WITH moved AS (
        UPDATE cubeopt.runs run
        SET state = 'waiting', failures = 0, suspect = false, finished_at = NULL,
            width = CASE WHEN run.epoch = 0 THEN NULL ELSE run.width END
        FROM cubeopt.trials trial JOIN cubeopt.studies study ON study.id = trial.study_id
        WHERE study.name = :study AND trial.number = :number AND run.trial_id = trial.id
            AND run.state = 'failed'
        RETURNING run.trial_id
    ), cleared AS (
        UPDATE cubeopt.trials trial SET reason = NULL FROM moved WHERE trial.id = moved.trial_id
    )
    SELECT trial_id, pg_notify('cubeopt', 'trial') FROM moved
""")


def prune(engine: Engine, study: str, number: int) -> bool:
    """End a trial that waits or runs; False when it was pruned already."""
    return _act(engine, _PRUNE, study, number, RunState.PRUNED)


# The token stays, but the run is not 'running' any more: its worker can write nothing to it.
# Rows are locked in the order in which reports lock them, for a pack may hold several.
_PRUNE = text("""
    WITH open AS MATERIALIZED (
        SELECT run.id
        FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
            JOIN cubeopt.studies study ON study.id = trial.study_id
        WHERE study.name = :study AND trial.number = :number
            AND run.state IN ('waiting', 'running')
        ORDER BY run.id
        FOR UPDATE OF run
    ), moved AS (
        UPDATE cubeopt.runs run
        SET state = 'pruned', worker_id = NULL, lease_expires_at = NULL,
            finished_at = clock_timestamp()
        FROM open WHERE run.id = open.id
        RETURNING run.id, run.trial_id, run.token, run.kind, run.epoch, run.value
    ), ended AS (
        UPDATE cubeopt.attempts attempt SET ended_at = clock_timestamp(), end_class = 'pruned'
        FROM moved
        WHERE attempt.run_id = moved.id AND attempt.token = moved.token AND ended_at IS NULL
    ), explained AS (
        UPDATE cubeopt.trials trial
        SET reason = jsonb_build_object(
            'end', 'pruned', 'by', 'a person', 'epoch', moved.epoch, 'value', moved.value
        )
        FROM moved WHERE trial.id = moved.trial_id AND moved.kind = 'short'
    )
    SELECT trial_id, pg_notify('cubeopt', 'trial') FROM moved
""")


def _act(engine: Engine, statement: TextClause, study: str, number: int, to: RunState) -> bool:
    with transaction(engine) as connection:
        if connection.execute(statement, {"study": study, "number": number}).first() is not None:
            return True
    runs = records.runs(engine, records.study(engine, study).id)
    its = [run for run in runs if run.trial_number == number]
    if not its:
        raise UnknownNameError(f"study {study!r} has no trial {number}")
    run = its[-1]
    if any(each.state == to for each in its if each.kind == run.kind):
        return False
    what = {
        RunState.WAITING: "only one that failed can be retried",
        RunState.PRUNED: "only one that waits or runs can be pruned",
    }
    raise StateError(f"the {run.kind} run of trial {number} is {run.state}; {what[to]}")
