"""A lease lives as long as its worker beats, and a worker learns what it has lost."""

import time

import pytest
from sqlalchemy import text

from cubeopt.db import leases, queue, records
from cubeopt.db.leases import EpochReport, Lease, Verdict
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import EndClass, RunState
from cubeopt.service.heartbeat import Heartbeat

LEASE_SECONDS = 0.6


@pytest.fixture
def worker(engine):
    return queue.register(engine, "worker", "here", 1, "cpu", {})


@pytest.fixture
def study(engine, create):
    """The tiny study with three waiting runs."""
    record = create()
    trials = [NewTrial(number, {}, {}, "key", 5) for number in range(3)]
    queue.enqueue(engine, record.id, trials)
    return record


def claim(engine, worker, limit=2):
    claims = queue.claim(
        engine, worker, limit, limit, lease_seconds=LEASE_SECONDS, device="cpu", provenance={}
    )
    return [Lease(each.run_id, each.token) for each in claims]


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def take(engine, lease, worker):
    """The run of *lease* expires, is reaped, and another worker leases it."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE cubeopt.runs SET lease_expires_at = 'epoch' WHERE id = :id"),
            {"id": lease.run_id},
        )
    assert queue.reap(engine) == [lease.run_id]
    (newer,) = claim(engine, worker, limit=1)
    assert newer == Lease(lease.run_id, lease.token + 1)
    return newer


def test_a_beating_worker_keeps_its_leases_longer_than_they_last(engine, study, worker):
    held = claim(engine, worker)
    with Heartbeat(engine, worker, LEASE_SECONDS) as heart:
        heart.hold(held)
        time.sleep(3 * LEASE_SECONDS)
        assert queue.reap(engine) == []
        assert heart.lost() == set()
    assert records.workers(engine)[0].silent_seconds < LEASE_SECONDS
    until(lambda: len(queue.reap(engine)) == 2)


def test_a_dropped_lease_is_extended_no_longer(engine, study, worker):
    kept, dropped = claim(engine, worker)
    with Heartbeat(engine, worker, LEASE_SECONDS) as heart:
        heart.hold([kept, dropped])
        heart.drop([dropped])
        until(lambda: queue.reap(engine) == [dropped.run_id])
        time.sleep(LEASE_SECONDS)
        assert queue.reap(engine) == []
        assert heart.lost() == set()


def test_a_worker_learns_which_lease_another_worker_has_by_now(engine, study, worker):
    taken, kept = claim(engine, worker)
    with Heartbeat(engine, worker, LEASE_SECONDS) as heart:
        heart.hold([taken, kept])
        take(engine, taken, queue.register(engine, "other", "there", 2, "cpu", {}))
        until(lambda: heart.lost() == {taken})
        heart.drop([taken])
        assert heart.lost() == set()


def test_leaving_a_lost_lease_keeps_a_newer_one_of_the_same_run(engine, study, worker):
    old, _ = claim(engine, worker)
    with Heartbeat(engine, worker, LEASE_SECONDS) as heart:
        heart.hold([old])
        new = take(engine, old, worker)
        heart.hold([new])
        heart.drop([old])
        time.sleep(2 * LEASE_SECONDS)
        assert old.run_id not in queue.reap(engine)
        assert heart.lost() <= {old}


def test_a_run_that_ended_is_not_lost(engine, study, worker):
    ended, _ = claim(engine, worker)
    with Heartbeat(engine, worker, LEASE_SECONDS) as heart:
        heart.hold([ended])
        report = EpochReport(ended.run_id, ended.token, 5, 0.5, {})
        verdicts = leases.report(engine, [report], lambda question: False)
        assert verdicts == {ended.run_id: Verdict.COMPLETE}
        heart.drop([ended])
        time.sleep(LEASE_SECONDS)
        assert heart.lost() == set()


def test_a_database_that_is_away_for_a_moment_costs_no_lease(engine, study, worker, caplog):
    held = claim(engine, worker)
    schema = "ALTER SCHEMA {} RENAME TO {}"
    with Heartbeat(engine, worker, LEASE_SECONDS) as heart:
        heart.hold(held)
        with engine.begin() as connection:
            connection.execute(text(schema.format("cubeopt", "away")))
        until(lambda: "heartbeat failed" in caplog.text)
        with engine.begin() as connection:
            connection.execute(text(schema.format("away", "cubeopt")))
        time.sleep(2 * LEASE_SECONDS)
        assert queue.reap(engine) == []
        assert heart.lost() == set()
    runs = records.runs(engine, study.id)
    assert [run.state for run in runs].count(RunState.RUNNING) == 2
    assert {each.end_class for each in records.attempts(engine, study.id)} == {None}
    assert EndClass.LOST not in {run.end_class for run in runs}


def test_a_worker_that_was_asleep_was_not_without_a_storage(engine, study, worker, monkeypatch):
    held = claim(engine, worker)
    with Heartbeat(engine, worker, 60.0) as heart:
        heart.hold(held)
        asleep = time.monotonic() + 3600
        monkeypatch.setattr(time, "monotonic", lambda: asleep)
        heart.alarm()  # a connection that broke meanwhile
        assert not heart.outlived
        until_heard = 200
        while heart.unheard and until_heard:
            time.sleep(0.02)
            until_heard -= 1
        assert not heart.unheard
        assert heart.silence == 0.0


@pytest.mark.parametrize(("lease_seconds", "pause"), [(8.0, 2.0), (60.0, 15.0), (86400.0, 15.0)])
def test_a_worker_with_a_long_lease_is_not_taken_for_gone(
    engine, worker, monkeypatch, lease_seconds, pause
):
    """The coordinator notes as gone who has not beaten for a minute."""
    rests = []

    def rest(self, seconds):
        rests.append(seconds)
        return len(rests) < 3

    monkeypatch.setattr(Heartbeat, "_rest", rest)
    with Heartbeat(engine, worker, lease_seconds):
        until(lambda: len(rests) == 3)
    assert rests == [pause] * 3
