"""A study's file is revised: the new one in, the old one kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db import budgets
from cubeopt.db.budgets import RAN_SECONDS
from cubeopt.db.engine import transaction


@dataclass(frozen=True)
class Revision:
    """One change of a study's file."""

    spec: dict[str, Any]  # the content of the file before
    created_at: datetime


def read(engine: Engine, study_id: int) -> list[Revision]:
    """Those of a study, the oldest first."""
    with transaction(engine) as connection:
        rows = connection.execute(_READ, {"study_id": study_id}).mappings()
        return [Revision(**row) for row in rows]


_READ = text("""
    SELECT spec, created_at FROM cubeopt.revisions WHERE study_id = :study_id ORDER BY id
""")


def revise(
    engine: Engine,
    study_id: int,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    trials: int | None,
    promotes: bool,
) -> bool:
    """Put the file *after* in the place of *before*; False when another has come in between.

    A complete study runs again if it has something left to do: fewer trials than *trials* (None:
    no limit), runs that wait, or, with *promotes*, trials to be carried on; and no budget spent.
    """
    values = {"study_id": study_id, "before": _json(before), "after": _json(after)}
    with transaction(engine) as connection:
        if connection.execute(_REVISE, values).first() is None:
            return False
        if budgets.first_spent(connection, study_id, after) is None:
            left = {"study_id": study_id, "trials": trials, "promotes": promotes}
            connection.execute(_GO_ON, left)
    return True


# Whoever adds a trial or ends the study names the file that it goes by, and waits for this lock.
_REVISE = text("""
    WITH revised AS (
        UPDATE cubeopt.studies SET spec = CAST(:after AS jsonb)
        WHERE id = :study_id AND spec = CAST(:before AS jsonb)
        RETURNING id
    ), kept AS (
        INSERT INTO cubeopt.revisions (study_id, spec)
        SELECT id, CAST(:before AS jsonb) FROM revised
    )
    SELECT id, pg_notify('cubeopt', 'study') FROM revised
""")

_GO_ON = text(f"""
    UPDATE cubeopt.studies study
    SET state = 'running', state_reason = NULL, state_since = clock_timestamp(),
        ran_seconds = {RAN_SECONDS}, finished_at = NULL
    WHERE id = :study_id AND state = 'complete' AND (
        CAST(:trials AS int) IS NULL OR :promotes
        OR (SELECT count(*) FROM cubeopt.trials WHERE study_id = study.id) < :trials
        OR EXISTS (
            SELECT FROM cubeopt.runs WHERE study_id = study.id AND runs.state = 'waiting'
        )
    )
""")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False)
