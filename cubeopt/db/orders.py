"""What a person orders of a study, and how a study ends: each transition one statement.

A statement moves what is in a state that allows it and wakes the workers. When it moved nothing, a
second look says why: it stands there already, or it may not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db import budgets, outbox, records
from cubeopt.db.budgets import RAN_SECONDS
from cubeopt.db.engine import transaction
from cubeopt.db.tables import StudyState
from cubeopt.errors import StateError


class Order(StrEnum):
    """What a person can ask of a study."""

    PAUSE = "pause"  # its runs go back into the queue and wait there for "resume"
    RESUME = "resume"  # what waits may be claimed again, new trials are asked for
    STOP = "stop"  # as "pause", but meant as the end


_FROM = {
    Order.PAUSE: (StudyState.RUNNING,),
    Order.RESUME: (StudyState.PAUSED, StudyState.STOPPED, StudyState.FAILED),
    Order.STOP: (StudyState.RUNNING, StudyState.PAUSED),
}
_TO = {
    Order.PAUSE: StudyState.PAUSED,
    Order.RESUME: StudyState.RUNNING,
    Order.STOP: StudyState.STOPPED,
}


@dataclass(frozen=True)
class Deleted:
    """How much went with a study."""

    trials: int
    runs: int
    attempts: int
    epochs: int


def steer(engine: Engine, name: str, order: Order) -> bool:
    """Move the study called *name*; False when it stands there already.

    Raises StateError when it is in a state that the order does not know, or when it shall go on
    but has spent a budget.
    """
    if order is Order.RESUME:
        _check_budgets(engine, name)
    to, ends = _TO[order], order is Order.STOP
    values = {
        "name": name,
        "to": to,
        "allowed": [str(state) for state in _FROM[order]],
        "ends": ends,
        "waiting_too": order is Order.RESUME,
        "reason": None if order is Order.RESUME else f"a person asked for {order}",
    }
    with transaction(engine) as connection:
        if connection.execute(_STEER, values).first() is not None:
            return True
    state = records.study(engine, name).state
    if state == to:
        return False
    allowed = " or ".join(_FROM[order])
    raise StateError(f"study {name!r} is {state}; only one that is {allowed} can {order}")


def _check_budgets(engine: Engine, name: str) -> None:
    """A study without a budget would be ended again at once."""
    record = records.study(engine, name)
    spent = budgets.spent(engine, record.id, record.spec)
    if spent is not None:
        raise StateError(
            f"study {name!r} cannot go on: {spent}; give it a larger budget with: cubeopt study "
            "revise FILE"
        )


# A complete study whose trial was retried has a run that waits, and may go on.
_STEER = text(f"""
    WITH moved AS (
        UPDATE cubeopt.studies study
        SET state = :to, state_reason = :reason, state_since = clock_timestamp(),
            ran_seconds = {RAN_SECONDS},
            finished_at = CASE WHEN :ends THEN clock_timestamp() END
        WHERE name = :name AND (
            state = ANY(:allowed)
            OR :waiting_too AND state = 'complete' AND EXISTS (
                SELECT FROM cubeopt.runs WHERE study_id = study.id AND runs.state = 'waiting'
            )
        )
        RETURNING study.*
    ), told AS ({outbox.study_ended("moved")})
    SELECT id, pg_notify('cubeopt', 'study') FROM moved
""")


def end(
    engine: Engine,
    study_id: int,
    state: StudyState,
    reason: str,
    seen: Mapping[str, Any] | None = None,
) -> bool:
    """End a running study and wake its workers; False when a person has moved it meanwhile, or
    its file is not the one that was *seen* any more.
    """
    spec = None if seen is None else json.dumps(seen, allow_nan=False)
    values = {"study_id": study_id, "state": state, "reason": reason, "spec": spec}
    with transaction(engine) as connection:
        return connection.execute(_END, values).first() is not None


_END = text(f"""
    WITH ended AS (
        UPDATE cubeopt.studies study
        SET state = :state, state_reason = :reason, state_since = clock_timestamp(),
            ran_seconds = {RAN_SECONDS}, finished_at = clock_timestamp()
        WHERE id = :study_id AND state = 'running'
            AND spec = coalesce(CAST(:spec AS jsonb), spec)
        RETURNING study.*
    ), told AS ({outbox.study_ended("ended")})
    SELECT id, pg_notify('cubeopt', 'study') FROM ended
""")


def delete(engine: Engine, name: str) -> Deleted:
    """Remove a study with all that hangs on it; StateError while it runs with leases."""
    with transaction(engine) as connection:
        row = connection.execute(_DELETE, {"name": name}).mappings().one_or_none()
    if row is None:
        records.study(engine, name)
        raise StateError(
            f"study {name!r} is running and workers hold runs of it; first: cubeopt study stop "
            f"{name}"
        )
    return Deleted(**{key: row[key] for key in ("trials", "runs", "attempts", "epochs")})


# All parts see the rows as they were before; what hangs on the study goes by the foreign keys.
_DELETE = text("""
    WITH gone AS (
        DELETE FROM cubeopt.studies study
        WHERE name = :name AND (
            state <> 'running' OR NOT EXISTS (
                SELECT FROM cubeopt.runs WHERE study_id = study.id AND runs.state = 'running'
            )
        )
        RETURNING id
    ), its_runs AS (
        SELECT run.id FROM cubeopt.runs run JOIN gone ON gone.id = run.study_id
    )
    SELECT pg_notify('cubeopt', 'study'),
        (SELECT count(*) FROM cubeopt.trials JOIN gone ON gone.id = trials.study_id) AS trials,
        (SELECT count(*) FROM its_runs) AS runs,
        (SELECT count(*) FROM cubeopt.attempts JOIN its_runs ON its_runs.id = run_id) AS attempts,
        (SELECT count(*) FROM cubeopt.epochs JOIN its_runs ON its_runs.id = run_id) AS epochs
    FROM gone
""")
