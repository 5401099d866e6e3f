"""How an attempt ends without a report: given back to the queue, or failed."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.leases import HELD, Lease, arrays
from cubeopt.db.tables import EndClass, RunKind, RunState
from cubeopt.errors import LeaseLostError

logger = logging.getLogger(__name__)


def release(
    engine: Engine,
    leases: Sequence[Lease],
    end_class: EndClass = EndClass.PREEMPTED,
    error: str | None = None,
    suspect: bool = False,
    checkpoint: str | None = None,
) -> set[int]:
    """Give runs back to the queue; the ids of those that were still ours.

    A *suspect* was in a pack that broke with *error*: it is trained alone until it has recorded an
    epoch, so that the one at fault is found and the others lose nothing. A *checkpoint*, of a
    single lease, was made in the course of the epoch that follows the last one recorded; a release
    with one that comes again, because its answer was lost, is answered as the first time.
    """
    assert checkpoint is None or len(leases) == 1, "a checkpoint is of one run"
    values = {
        **arrays(leases),
        "end_class": end_class,
        "suspect": suspect,
        "checkpoint": checkpoint,
    }
    with transaction(engine) as connection:
        released = connection.execute(_RELEASE, {**values, "error": _storable(error)})
        return set(released.scalars())


_RELEASE = text(f"""
    WITH held AS MATERIALIZED ({HELD}), returned AS (
        UPDATE cubeopt.runs run
        SET state = 'waiting', worker_id = NULL, lease_expires_at = NULL,
            suspect = suspect OR :suspect,
            checkpoint = coalesce(:checkpoint, checkpoint),
            checkpoint_epoch = CASE WHEN CAST(:checkpoint AS text) IS NULL
                THEN checkpoint_epoch ELSE epoch END
        FROM held WHERE run.id = held.id
        RETURNING run.id, run.token
    ), ended AS (
        UPDATE cubeopt.attempts attempt
        SET ended_at = clock_timestamp(), end_class = :end_class, error = :error
        FROM returned WHERE attempt.run_id = returned.id AND attempt.token = returned.token
    )
    SELECT id FROM returned
    UNION
    SELECT id FROM cubeopt.runs WHERE id = ANY(:run_ids) AND checkpoint = :checkpoint
""")


def fail(
    engine: Engine, lease: Lease, end_class: EndClass, error: str, retry_limit: int
) -> RunState:
    """End an attempt with an error; whether the run waits for the next attempt or has failed.

    A run may fail *retry_limit* times and still be tried again. Out of memory before anything was
    computed is different: the run waits for a pack of half the width, until it was alone in one.
    Raises LeaseLostError when the run is not ours any more.
    """
    error = _storable(error) or ""
    smaller = end_class is EndClass.OUT_OF_MEMORY
    with transaction(engine) as connection:
        values = {"run_id": lease.run_id, "token": lease.token, "limit": retry_limit}
        row = connection.execute(_FAIL, {**values, "smaller": smaller}).mappings().one_or_none()
        if row is None:
            raise LeaseLostError(
                f"run {lease.run_id} is not held under token {lease.token} any more; "
                "its failure was not recorded"
            )
        state = RunState(row["state"])
        ended = {"run_id": lease.run_id, "token": lease.token, "error": error}
        connection.execute(_END_ATTEMPT, {**ended, "end_class": end_class})
        if state is RunState.FAILED and row["kind"] == RunKind.SHORT:
            cause = error.rstrip().rpartition("\n")[2]
            reason = {"end": end_class, "epoch": row["epoch"], "error": cause}
            _explain(connection, lease.run_id, reason)
    logger.warning("run %d failed (%s), now %s", lease.run_id, end_class, state)
    return state


_FAIL = text("""
    WITH fate AS MATERIALIZED (
        SELECT id, :smaller AND epoch = 0 AS resized,
            CASE WHEN :smaller AND epoch = 0 THEN width > 1 ELSE failures < :limit END AS again
        FROM cubeopt.runs
        WHERE id = :run_id AND token = :token AND state = 'running'
        FOR UPDATE
    )
    UPDATE cubeopt.runs run
    SET state = CASE WHEN again THEN 'waiting' ELSE 'failed' END,
        width = CASE WHEN resized THEN greatest(width / 2, 1) ELSE width END,
        failures = CASE WHEN resized THEN failures ELSE failures + 1 END,
        finished_at = CASE WHEN again THEN NULL ELSE clock_timestamp() END,
        worker_id = NULL, lease_expires_at = NULL
    FROM fate WHERE run.id = fate.id
    RETURNING run.state, run.kind, run.epoch
""")


def _storable(error: str | None) -> str | None:
    """*error* without what PostgreSQL cannot store."""
    return None if error is None else error.replace("\0", "").encode(errors="replace").decode()


_END_ATTEMPT = text("""
    UPDATE cubeopt.attempts
    SET ended_at = clock_timestamp(), end_class = :end_class, error = :error
    WHERE run_id = :run_id AND token = :token
""")


def _explain(connection: Connection, run_id: int, reason: dict[str, Any]) -> None:
    connection.execute(_EXPLAIN, {"run_id": run_id, "reason": json.dumps(reason)})


_EXPLAIN = text("""
    UPDATE cubeopt.trials trial SET reason = CAST(:reason AS jsonb)
    FROM cubeopt.runs run WHERE run.id = :run_id AND trial.id = run.trial_id
""")
