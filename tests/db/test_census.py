"""What machines are told equals what the tables hold."""

from typing import Any

import pytest
from sqlalchemy import text

from cubeopt.db import (
    attempts,
    beats,
    budgets,
    census,
    interventions,
    leader,
    orders,
    queue,
    waits,
)
from cubeopt.db.orders import Order
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.db.waits import BOUNDS, Stopwatch, Waits

from .conftest import Hands, lease


def scalar(hands: Any, statement: str, **values: Any) -> Any:
    with hands.engine.begin() as connection:
        return connection.execute(text(statement), values).scalar()


def test_an_empty_storage_has_none_of_anything(engine: Any) -> None:
    found = census.take(engine)
    assert (found.studies, found.workers, found.live_workers) == ([], [], 0)
    assert found.studies_by_state == dict.fromkeys(StudyState, 0)
    assert found.claims == Waits()
    assert (found.led, found.leader_silent_seconds, found.messages) == (False, None, {})


def test_a_study_is_counted_as_its_tables_have_it(hands: Hands) -> None:
    study = hands.study(budget={"epochs": 999, "device_hours": 9})
    hands.enqueue(study, range(5), target=2)
    first, second, third, fourth = hands.claim(4)
    hands.report([first, second], 1)
    hands.complete(first, 0.2)  # 2 epochs
    attempts.fail(hands.engine, lease(second), EndClass.ERROR, "boom", 0)  # failed after 1
    interventions.retry(hands.engine, "study", second.trial_number)  # and waits with its epoch
    attempts.release(hands.engine, [lease(third)])
    queue.promote(hands.engine, study.id, [first.trial_number], 7, seeds=2)
    for claim in hands.claim(2, max_width=8):  # the two full runs go first
        assert claim.kind is RunKind.FULL
        hands.report(claim, claim.epoch + 1)
    (found,) = census.take(hands.engine).studies
    assert found.runs == {
        (RunKind.SHORT, RunState.COMPLETE): 1,
        (RunKind.SHORT, RunState.RUNNING): 1,
        (RunKind.SHORT, RunState.WAITING): 3,
        (RunKind.FULL, RunState.RUNNING): 2,
    }
    assert found.waiting == 3
    assert found.epochs == 5 == scalar(hands, "SELECT count(*) FROM cubeopt.epochs")
    assert found.attempts == {EndClass.DONE: 1, EndClass.ERROR: 1, EndClass.PREEMPTED: 1}
    account = {each.name: each.used for each in budgets.accounts(hands.engine, study.id)}
    assert found.epochs == account["epochs"]
    assert 0 < found.device_seconds <= account["device_hours"] * 3600
    assert fourth.token == 1


def test_what_waits_of_a_paused_study_is_no_queue(hands: Hands) -> None:
    hands.enqueue(hands.study(), range(3))
    orders.steer(hands.engine, "study", Order.PAUSE)
    (found,) = census.take(hands.engine).studies
    assert found.runs == {(RunKind.SHORT, RunState.WAITING): 3}
    assert (found.state, found.waiting) == (StudyState.PAUSED, 0)


def test_a_study_that_ended_two_days_ago_is_only_counted(hands: Hands) -> None:
    hands.study("old")
    hands.study("new")
    for name in ("old", "new"):
        orders.steer(hands.engine, name, Order.STOP)
    with hands.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE cubeopt.studies SET state_since = now() - interval '2 days' "
                "WHERE name = 'old'"
            )
        )
    found = census.take(hands.engine)
    assert [each.name for each in found.studies] == ["new"]
    assert found.studies_by_state[StudyState.STOPPED] == 2


def test_gone_workers_leave_and_twins_are_one(hands: Hands) -> None:
    hands.enqueue(hands.study(), range(3))
    hands.claim(2)
    twin = queue.register(hands.engine, "host-1", "host", 2, "cpu", {})
    gone = queue.register(hands.engine, "gone", "host", 3, "cpu", {})
    beats.beat(hands.engine, gone, [], 60, Waits(3, 0.3, (0, 0, 0, 0, 0, 0, 3, *[0] * 6)))
    queue.retire(hands.engine, gone)
    found = census.take(hands.engine)
    assert [(each.name, each.leases, each.draining) for each in found.workers] == [
        ("host-1", 2, False)
    ]
    assert found.live_workers == 2
    assert found.claims.count == 3  # of one that has gone, too
    assert twin > hands.worker_id


def test_leases_that_nobody_takes_back_are_seen(hands: Hands) -> None:
    hands.enqueue(hands.study(), range(2))
    claims = hands.claim(2)
    assert census.take(hands.engine).expired_leases == 0
    hands.expire(*claims)
    assert census.take(hands.engine).expired_leases == 2


def test_a_leader_is_seen_with_its_sign_of_life(engine: Any) -> None:
    with leader.lead(engine) as leadership:
        assert leadership is not None
        found = census.take(engine)
        assert found.led
        assert found.leader_silent_seconds is not None
        assert 0 <= found.leader_silent_seconds < 60
    assert not census.take(engine).led


def test_waits_are_sums_that_a_beat_said_again_does_not_double(hands: Hands) -> None:
    watch = Stopwatch()
    for seconds in (0.0005, 0.001, 0.004, 0.2, 9.0):
        watch.add(seconds)
    read = watch.read()
    assert read.buckets == (2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
    assert read.at_most == [2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 5]
    assert (read.count, read.seconds) == (5, pytest.approx(9.2055))
    for _ in range(2):
        beats.beat(hands.engine, hands.worker_id, [], 60, read)
    other = queue.register(hands.engine, "other", "host", 2, "cpu", {})
    beats.beat(hands.engine, other, [], 60, Waits(1, 0.5, (*[0] * 8, 1, *[0] * 4)))
    with hands.engine.begin() as connection:
        total = waits.total(connection)
    assert (total.count, total.seconds) == (6, pytest.approx(9.7055))
    assert total.buckets == (2, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1)
    assert len(BOUNDS) + 1 == len(total.buckets)
