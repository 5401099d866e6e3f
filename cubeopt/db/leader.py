"""One coordinator leads a database at a time: a lock that PostgreSQL drops with its connection."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from cubeopt.db.engine import described, transaction, translated

logger = logging.getLogger(__name__)

_LEADER_LOCK = 0x63756266  # any number nobody else locks; the schema's lock is another


class Leadership:
    """Held as long as the connection that took the lock lives."""

    def __init__(self, connection: Connection, where: str) -> None:
        self._connection, self._where = connection, where

    def check(self) -> None:
        """StorageError when the connection, and with it the lock, is gone."""
        with translated(self._where):
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()


@contextmanager
def lead(engine: Engine) -> Iterator[Leadership | None]:
    """Try to become the leader; None when another process is."""
    where = described(engine)
    with translated(where):
        connection = engine.connect()
    try:
        with translated(where):
            taken = connection.scalar(
                text("SELECT pg_try_advisory_lock(:key)"), {"key": _LEADER_LOCK}
            )
            connection.commit()
        yield Leadership(connection, where) if taken else None
    finally:
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
