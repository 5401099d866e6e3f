"""One coordinator leads a database at a time: a lock that PostgreSQL drops with its connection."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from cubeopt.db.engine import described, transaction, translated
from cubeopt.errors import StorageError

logger = logging.getLogger(__name__)

_LEADER_LOCK = 0x63756266  # any number nobody else locks; the schema's lock is another
_LIFE_SECONDS = 3.0  # between two signs of life of a leader
# A leader that stands still, or whose machine does, gives none: the server ends its session.
_STILL = "SET idle_session_timeout = '15s'"


class Leadership:
    """Held as long as the connection that took the lock lives; a thread keeps it awake."""

    def __init__(self, connection: Connection, where: str) -> None:
        self._connection, self._where = connection, where
        self._guard, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="leadership", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """StorageError when the connection, and with it the lock, is gone."""
        with self._guard, translated(self._where):
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()

    def end(self) -> None:
        """Give no more signs of life."""
        self._over.set()
        self._thread.join()

    def _live(self) -> None:
        while not self._over.wait(_LIFE_SECONDS):
            try:
                self.check()
            except StorageError:  # whoever leads meets it, too
                return


@contextmanager
def lead(engine: Engine) -> Iterator[Leadership | None]:
    """Try to become the leader; None when another process is."""
    where = described(engine)
    with translated(where):
        connection = engine.connect()
    leadership = None
    try:
        with translated(where):
            taken = connection.scalar(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": _LEADER_LOCK}
            )
            connection.execute(text(_STILL))
            connection.commit()
        leadership = Leadership(connection, where) if taken else None
        yield leadership
    finally:
        if leadership is not None:
            leadership.end()
        # The lock belongs to the session of PostgreSQL, not to the transaction: end the session.
        connection.invalidate()
        connection.close()


def lives(engine: Engine) -> bool:
    """Whether some process leads this database now."""
    with transaction(engine) as connection:
        found = connection.scalar(
            text(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted "
                "AND classid = 0 AND objid = :key AND objsubid = 1 AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database()))"
            ),
            {"key": _LEADER_LOCK},
        )
    return bool(found)


def sign_of_life(connection: Connection) -> tuple[bool, float | None]:
    """Whether some process leads, and how many seconds ago it gave its last sign of life.

    The latter only where our role may see it.
    """
    row = connection.execute(_SIGN, {"key": _LEADER_LOCK}).one_or_none()
    return (False, None) if row is None else (True, row[0])


_SIGN = text("""
    SELECT CAST(extract(epoch FROM clock_timestamp() - session.state_change) AS float)
    FROM pg_locks lock LEFT JOIN pg_stat_activity session ON session.pid = lock.pid
    WHERE lock.locktype = 'advisory' AND lock.granted AND lock.classid = 0 AND lock.objid = :key
        AND lock.objsubid = 1
        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    LIMIT 1
""")
