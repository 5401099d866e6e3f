"""A worker's heartbeat: it lives, and so do its leases."""

from collections.abc import Sequence

from sqlalchemy import Engine, text

from cubeopt.db import waits as waiting
from cubeopt.db.engine import transaction
from cubeopt.db.leases import HELD, Lease, arrays
from cubeopt.db.waits import Waits


def beat(
    engine: Engine,
    worker_id: int,
    leases: Sequence[Lease],
    lease_seconds: float,
    waits: Waits | None = None,
) -> set[int]:
    """Extend *leases* and note the heartbeat; the ids of the runs that are still ours.

    *waits* are those of this worker for the answers to its claims so far.
    """
    with transaction(engine) as connection:
        beaten = {"worker_id": worker_id, "lease_seconds": lease_seconds}
        connection.execute(_NOTE_HEARTBEAT, beaten)
        if waits is not None:
            waiting.note(connection, worker_id, waits)
        held = connection.execute(_EXTEND, {**arrays(leases), "lease_seconds": lease_seconds})
        return set(held.scalars())


_NOTE_HEARTBEAT = text("""
    UPDATE cubeopt.workers
    SET heartbeat_at = clock_timestamp(), state = 'live', lease_seconds = :lease_seconds
    WHERE id = :worker_id
""")

_EXTEND = text(f"""
    WITH held AS MATERIALIZED ({HELD})
    UPDATE cubeopt.runs run
    SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease_seconds)
    FROM held WHERE run.id = held.id
    RETURNING run.id
""")
