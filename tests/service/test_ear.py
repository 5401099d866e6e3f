"""A worker hears what is asked for, at once by a notice, and within seconds without one."""

import pytest
from sqlalchemy import text

from cubeopt.db import queue, recalls
from cubeopt.service.ear import Ear
from cubeopt.service.heartbeat import Heartbeat

from .conftest import until


@pytest.fixture
def ear(engine):
    worker_id = queue.register(engine, "w", "here", 1, "cpu", {})
    with Heartbeat(engine, worker_id, 30.0) as heart, Ear(engine, worker_id, heart) as opened:
        until(lambda: listeners(engine))
        yield opened


def listeners(engine):
    """The sessions that listen."""
    found = "SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN cubeopt'"
    with engine.connect() as connection:
        return list(connection.execute(text(f"{found} AND datname = current_database()")).scalars())


def test_a_notice_is_heard(engine, ear):
    assert not ear.drained
    recalls.drain(engine, "w")
    until(lambda: ear.drained, 5.0)


def test_without_a_notice_the_next_look_finds_it(engine, ear):
    with engine.begin() as connection:
        connection.execute(text("UPDATE cubeopt.workers SET drain_asked_at = now()"))
    until(lambda: ear.drained, 5.0)


def test_an_ear_whose_connection_was_cut_listens_again(engine, ear):
    (pid,) = listeners(engine)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    until(lambda: listeners(engine) not in ([], [pid]), 10.0)
    recalls.drain(engine, "w")
    until(lambda: ear.drained, 5.0)
