"""Wake those who wait: a notice says only that something was asked for, never what.

Whoever hears one looks into the tables; who hears none looks every few seconds. So a lost notice
costs seconds, and nothing else.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db.engine import described, translated

CHANNEL = "cubeopt"  # what a person asks for
WANTED = "cubeopt_wanted"  # a worker that found nothing to do


class Listener:
    """Hears the notices of one database over a connection of its own."""

    def __init__(self, connection: Any, where: str) -> None:
        self._connection, self._where = connection, where

    def wait(self, seconds: float) -> bool:
        """Whether a notice came within *seconds*; StorageError when the connection is gone."""
        # Until something can be read we sleep; psycopg would look ten times a second.
        readable, _, _ = select.select([self._connection.fileno()], [], [], seconds)
        if not readable:
            return False
        with translated(self._where):
            heard = list(self._connection.notifies(timeout=0, stop_after=1))
        return bool(heard)


@contextmanager
def listening(engine: Engine, *channels: str) -> Iterator[Listener]:
    """Listen while the block runs, to what a person asks for or to *channels*."""
    where = described(engine)
    with translated(where):
        held = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        with translated(where):
            for channel in channels or (CHANNEL,):
                held.execute(text(f"LISTEN {channel}"))
        yield Listener(held.connection.driver_connection, where)
    finally:
        held.invalidate()  # a connection that listens is of no use to others
        held.close()
