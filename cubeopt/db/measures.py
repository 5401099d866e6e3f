"""What runs were last measured at: the metrics that a study with two objectives or bounds needs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.standings import CHOSEN


def last(
    engine: Engine, study_id: int, keys: Sequence[str], run_ids: Sequence[int] | None = None
) -> dict[int, dict[str, Any]]:
    """By run id, the metrics *keys* of its last validated epoch; all runs, or those of *run_ids*.

    A run without such an epoch is not there, a metric that was not finite is None.
    """
    if not keys:
        return {}
    given = {"study_id": study_id, "keys": list(keys), "run_ids": run_ids and list(run_ids)}
    with transaction(engine) as connection:
        return {run_id: metrics for run_id, metrics in connection.execute(_LAST, given)}


_LAST = text(f"""
    SELECT run.id, {CHOSEN}
    FROM cubeopt.runs run JOIN LATERAL (
        SELECT metrics FROM cubeopt.epochs
        WHERE run_id = run.id AND value IS NOT NULL
        ORDER BY epoch DESC LIMIT 1
    ) AS epoch ON true
    WHERE run.study_id = :study_id
        AND (CAST(:run_ids AS bigint[]) IS NULL OR run.id = ANY(:run_ids))
""")


def results(
    engine: Engine, study_id: int, keys: Sequence[str]
) -> dict[int, tuple[float | None, dict[str, Any]]]:
    """By trial number, the value of its short run that is complete, and its metrics *keys*."""
    given = {"study_id": study_id, "keys": list(keys)}
    with transaction(engine) as connection:
        rows = connection.execute(_RESULTS if keys else _VALUES, given)
        return {number: (value, metrics) for number, value, metrics in rows}


_VALUES = text("""
    SELECT trial.number, run.value, CAST('{}' AS jsonb)
    FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
    WHERE run.study_id = :study_id AND run.kind = 'short' AND run.state = 'complete'
""")

_RESULTS = text(f"""
    SELECT trial.number, run.value, {CHOSEN}
    FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
        JOIN LATERAL (
            SELECT metrics FROM cubeopt.epochs
            WHERE run_id = run.id AND value IS NOT NULL
            ORDER BY epoch DESC LIMIT 1
        ) AS epoch ON true
    WHERE run.study_id = :study_id AND run.kind = 'short' AND run.state = 'complete'
""")
