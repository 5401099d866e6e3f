"""Several statements in one round trip, within a transaction of SQLAlchemy's."""

import pytest
from sqlalchemy import Engine, TextClause, text

from cubeopt.db.batch import batch
from cubeopt.db.engine import transaction
from cubeopt.errors import StorageError, StorageLostError

PUT = text("INSERT INTO public.kept (number) VALUES (:number)")
ALL = text("SELECT number FROM public.kept ORDER BY number")
CUT = text("SELECT pg_terminate_backend(pg_backend_pid())")
SHARE = text("SELECT '100%' || CAST(:of AS text) AS share")


@pytest.fixture
def tables(engine: Engine) -> Engine:
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE public.kept (number int PRIMARY KEY)"))
    return engine


def _numbers(engine: Engine) -> list[int]:
    with transaction(engine) as connection:
        return list(connection.scalars(ALL))


def test_each_statement_sees_those_before_it(tables: Engine) -> None:
    with transaction(tables) as connection:
        with batch(connection) as send:
            send(PUT, {"number": 2})
            first = send(ALL, {})
            send(PUT, {"number": 1})
            second = send(ALL, {})
        assert [row.number for row in first] == [2]
        assert [row.number for row in second] == [1, 2]
    assert _numbers(tables) == [1, 2]


def test_a_batch_is_of_the_transaction_around_it(tables: Engine) -> None:
    with transaction(tables) as connection:
        connection.execute(PUT, {"number": 1})
        with batch(connection) as send:
            seen = send(ALL, {})
        assert [row.number for row in seen] == [1]
        connection.rollback()
    assert _numbers(tables) == []


def _together(engine: Engine, *statements: tuple[TextClause, dict[str, int]]) -> None:
    with transaction(engine) as connection, batch(connection) as send:
        for statement, values in statements:
            send(statement, values)


def test_the_first_that_fails_undoes_all_and_says_why(tables: Engine) -> None:
    with pytest.raises(StorageError, match="duplicate key"):
        _together(tables, (PUT, {"number": 1}), (PUT, {"number": 1}), (PUT, {"number": 2}))
    assert _numbers(tables) == []


def test_a_connection_that_is_cut_within_a_batch_is_lost_and_the_next_one_works(
    tables: Engine,
) -> None:
    with pytest.raises(StorageLostError, match=r"terminating|closed the connection"):
        _together(tables, (PUT, {"number": 1}), (CUT, {}))
    assert _numbers(tables) == []


def test_a_percent_sign_is_one(tables: Engine) -> None:
    with transaction(tables) as connection:
        with batch(connection) as send:
            found = send(SHARE, {"of": "!"})
        assert [row.share for row in found] == ["100%!"]
