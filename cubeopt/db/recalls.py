"""What a worker shall not go on with: a person drains it or moves its runs, or time is over."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, text

from cubeopt.db import budgets, records
from cubeopt.db.batch import batch
from cubeopt.db.engine import transaction
from cubeopt.db.leases import Lease, arrays
from cubeopt.errors import UnknownNameError
from cubeopt.trial import did_you_mean


@dataclass(frozen=True)
class Recall:
    """What a worker shall not go on with."""

    drained: bool  # the worker itself shall leave
    leases: frozenset[Lease]  # give these back


def drain(engine: Engine, name: str) -> bool:
    """Ask the worker called *name* to leave; False when it was asked before, or has gone."""
    with transaction(engine) as connection:
        if connection.execute(_DRAIN, {"name": name}).first() is not None:
            return True
    names = frozenset(worker.name for worker in records.workers(engine))
    if name not in names:
        raise UnknownNameError(f"there is no worker named {name!r}{did_you_mean(name, names)}")
    return False


_DRAIN = text("""
    WITH asked AS (
        UPDATE cubeopt.workers SET drain_asked_at = clock_timestamp()
        WHERE name = :name AND state = 'live' AND drain_asked_at IS NULL
        RETURNING id
    )
    SELECT id, pg_notify('cubeopt', 'worker') FROM asked
""")


def recall(engine: Engine, worker_id: int, held: Sequence[Lease]) -> Recall:
    """What a person or a budget has asked of this worker and of the runs that it holds."""
    with transaction(engine) as connection:
        with batch(connection) as send:
            asked = send(_DRAINED, {"worker_id": worker_id})
            found = send(_ALLOWED, arrays(held))
        drained = any(row.drained for row in asked)
        rows = found.fetchall()
        specs = {row.study_id: {"budget": row.budget or {}} for row in rows}
        over = {each for each, spec in specs.items() if budgets.exhausted(connection, each, spec)}
    allowed = {row.id for row in rows if row.study_id not in over}
    leases = frozenset(lease for lease in held if lease.run_id not in allowed)
    return Recall(drained, leases)


_DRAINED = text("""
    SELECT drain_asked_at IS NOT NULL AS drained FROM cubeopt.workers WHERE id = :worker_id
""")

_ALLOWED = text("""
    SELECT run.id, run.study_id, study.spec->'budget' AS budget FROM cubeopt.runs run
        JOIN unnest(CAST(:run_ids AS bigint[]), CAST(:tokens AS bigint[])) AS lease(id, token)
        ON run.id = lease.id AND run.token = lease.token
        JOIN cubeopt.studies study ON study.id = run.study_id
    WHERE run.state = 'running' AND study.state = 'running'
""")
