"""One leads at a time, and one that stands still does not lead for ever."""

import time

import pytest
from sqlalchemy import Engine

from cubeopt.db import leader
from cubeopt.errors import StorageError


def until_nobody_leads(engine: Engine) -> None:
    deadline = time.monotonic() + 30.0
    while leader.lives(engine):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_leader_is_refused_until_the_first_has_left(engine: Engine) -> None:
    with leader.lead(engine) as first, leader.lead(engine) as second:
        assert first is not None
        assert second is None
        first.check()
    until_nobody_leads(engine)
    with leader.lead(engine) as third:
        assert third is not None


def test_a_leader_that_gives_no_sign_of_life_loses_the_lead_and_learns_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "_STILL", "SET idle_session_timeout = '200ms'")
    with leader.lead(engine) as still:  # its thread sleeps for three seconds
        assert still is not None
        until_nobody_leads(engine)
        with leader.lead(engine) as heir:
            assert heir is not None
        with pytest.raises(StorageError):
            still.check()


def test_signs_of_life_keep_the_lead_through_long_work(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "_STILL", "SET idle_session_timeout = '2s'")
    monkeypatch.setattr(leader, "_LIFE_SECONDS", 0.2)
    with leader.lead(engine) as busy:
        assert busy is not None
        time.sleep(4.0)
        assert leader.lives(engine)
        busy.check()
