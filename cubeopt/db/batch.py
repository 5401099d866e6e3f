"""Statements that go to the server together: one round trip for all of them.

It is PostgreSQL's pipeline mode, which psycopg has and SQLAlchemy has not, so the statements go to
the driver's own connection, within the transaction of SQLAlchemy's. A worker's calls are made of
many small statements; one by one, most of their time is waiting for each other's turn.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, TextClause, make_url

Cursor = psycopg.Cursor[Any]
_DIALECT = make_url("postgresql+psycopg://").get_dialect()()

# Small statements with many tables: to plan one takes longer than to do it.
_PLAN_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan"


class Send(Protocol):
    """Adds a statement to the batch."""

    def __call__(self, statement: TextClause, values: Mapping[str, Any]) -> Cursor:
        """A cursor with its rows once the batch has ended."""


@contextmanager
def batch(connection: Connection) -> Iterator[Send]:
    """The statements sent within the block, in their order, with each an own view of the tables.

    The first one that fails raises when the block ends, and those behind it are not done.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)

    def send(statement: TextClause, values: Mapping[str, Any]) -> Cursor:
        cursor = driver.cursor(row_factory=namedtuple_row)
        return cursor.execute(_sql(statement), values, prepare=True)

    try:
        with driver.pipeline():
            driver.execute(_PLAN_ONCE)
            yield send
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)  # or the rollback would hide why
        raise


@cache  # our statements are constants
def _sql(statement: TextClause) -> bytes:
    return str(statement.compile(dialect=_DIALECT)).encode()
