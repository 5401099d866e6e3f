"""What is to be told is written with the fact, once, and sent in order."""

from typing import Any

from sqlalchemy import text

from cubeopt.db import attempts, beats, breaker, orders, outbox, queue, records
from cubeopt.db.orders import Order
from cubeopt.db.tables import EndClass, Kind, StudyState

from .conftest import Hands, lease


def rows(hands: Any) -> list[Any]:
    with hands.engine.begin() as connection:
        return list(
            connection.execute(
                text(
                    "SELECT kind, study, state, facts, tries, last_error FROM cubeopt.outbox "
                    "ORDER BY id"
                )
            ).mappings()
        )


def age(hands: Any, seconds: float) -> None:
    with hands.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE cubeopt.outbox SET created_at = created_at - make_interval(secs => :s), "
                "due_at = due_at - make_interval(secs => :s), "
                "ended_at = ended_at - make_interval(secs => :s)"
            ),
            {"s": seconds},
        )


def silent(hands: Any, seconds: float) -> None:
    """No worker has been heard for so long."""
    with hands.engine.begin() as connection:
        statement = "UPDATE cubeopt.workers SET heartbeat_at = now() - make_interval(secs => :s)"
        connection.execute(text(statement), {"s": seconds})


def best(trial: int) -> dict[str, Any]:
    return {"best": {"trial": trial, "value": 0.5}, "before": None}


def test_each_end_of_a_study_is_told_with_its_facts(hands: Hands) -> None:
    study = hands.study("one")
    hands.enqueue(study, range(3))
    hands.complete(hands.claim()[0], 0.25)
    assert orders.steer(hands.engine, "one", Order.STOP)
    assert not orders.steer(hands.engine, "one", Order.STOP)  # it stands there: nothing to tell
    assert orders.steer(hands.engine, "one", Order.RESUME)
    assert orders.end(hands.engine, study.id, StudyState.COMPLETE, "all done")
    assert not orders.end(hands.engine, study.id, StudyState.COMPLETE, "all done")
    stopped, complete = rows(hands)
    assert (stopped["kind"], complete["kind"]) == ("study_stopped", "study_complete")
    assert stopped["facts"] == {
        "state": "stopped",
        "reason": "a person asked for stop",
        "metric": "fvu",
        "direction": "minimize",
        "dataset": "sample",
        "trials": {"complete": 1, "waiting": 2},
    }
    assert complete["facts"]["reason"] == "all done"


def test_a_pause_and_a_refused_order_are_not_told(hands: Hands) -> None:
    hands.study()
    orders.steer(hands.engine, "study", Order.PAUSE)
    orders.steer(hands.engine, "study", Order.RESUME)
    assert not orders.steer(hands.engine, "study", Order.RESUME)
    assert rows(hands) == []


def test_the_circuit_breaker_tells_why(hands: Hands) -> None:
    study = hands.study()
    hands.enqueue(study, range(2))
    for claim in hands.claim(2):
        attempts.fail(hands.engine, lease(claim), EndClass.ERROR, "Boom: no", 0)
    reason = breaker.trip(hands.engine, study.id, 2)
    (told,) = rows(hands)
    assert (told["kind"], told["study"]) == ("study_failed", "study")
    assert told["facts"]["reason"] == reason
    assert "Boom: no" in reason
    assert told["facts"]["trials"] == {"failed": 2}


def test_a_worker_whose_lease_expired_is_told_once_before_its_runs_go_back(hands: Hands) -> None:
    hands.enqueue(hands.study(), range(3))
    claims = hands.claim(2)
    outbox.note_lost(hands.engine)
    assert rows(hands) == []
    hands.expire(claims[0])
    outbox.note_lost(hands.engine, settling_seconds=1e9)  # the server has come up just now
    assert rows(hands) == []
    for _ in range(2):
        outbox.note_lost(hands.engine)
    queue.reap(hands.engine)
    hands.expire(claims[1])
    outbox.note_lost(hands.engine)  # the same silence
    (told,) = rows(hands)
    assert (told["kind"], told["study"]) == ("worker_lost", None)
    facts = told["facts"]
    assert facts.pop("silent_seconds") >= 0
    assert facts == {
        "worker": "host-1",
        "host": "host",
        "pid": 1,
        "device": "cpu",
        "runs": [{"study": "study", "trial": claims[0].trial_number, "kind": "short"}],
    }
    beats.beat(hands.engine, hands.worker_id, [], 60)  # it was only asleep
    outbox.note_lost(hands.engine)
    assert len(rows(hands)) == 1
    silent(hands, 31)  # and falls asleep again
    outbox.note_lost(hands.engine)
    assert len(rows(hands)) == 2


def test_a_worker_that_beats_on_and_lets_a_lease_expire_is_not_lost(hands: Hands) -> None:
    hands.enqueue(hands.study(), range(1))
    (claim,) = hands.claim()
    beats.beat(hands.engine, hands.worker_id, [], 60)
    silent(hands, 16)  # it beats four times in a lease
    hands.expire(claim)
    outbox.note_lost(hands.engine)
    assert queue.reap(hands.engine) == [claim.run_id]
    assert rows(hands) == []


def test_a_silent_worker_that_holds_nothing_is_lost_and_one_that_left_is_not(hands: Hands) -> None:
    left = queue.register(hands.engine, "left", "host", 2, "cpu", {})
    queue.retire(hands.engine, left)
    silent(hands, 61)
    for _ in range(2):
        outbox.note_lost(hands.engine)
        queue.reap(hands.engine)
    (told,) = rows(hands)
    assert (told["facts"]["worker"], told["facts"]["runs"]) == ("host-1", [])
    assert told["facts"]["silent_seconds"] >= 61


def test_a_new_best_is_told_at_most_once_in_the_quiet_time(hands: Hands) -> None:
    study = hands.study()
    assert outbox.last_best(hands.engine, study.id) is None
    assert outbox.add_best(hands.engine, study.id, best(1), 60)
    assert not outbox.add_best(hands.engine, study.id, best(2), 60)
    age(hands, 61)
    assert outbox.add_best(hands.engine, study.id, best(3), 60)
    last = outbox.last_best(hands.engine, study.id)
    assert last is not None
    assert last[0] == best(3)
    assert 0 <= last[1] < 60
    orders.steer(hands.engine, "study", Order.STOP)
    age(hands, 61)
    assert not outbox.add_best(hands.engine, study.id, best(4), 60)  # its end has told


def test_messages_of_a_study_wait_for_each_other_and_for_no_other_study(hands: Hands) -> None:
    one, two = hands.study("one"), hands.study("two")
    for study in (one, two):
        outbox.add_best(hands.engine, study.id, best(1), 0)
        outbox.add_best(hands.engine, study.id, best(2), 0)
    first, other = outbox.due(hands.engine)
    assert (first.study, other.study) == ("one", "two")
    assert first.facts == other.facts == best(1)
    assert not outbox.failed(hands.engine, first.id, "no", 60, 3600)
    assert [each.id for each in outbox.due(hands.engine)] == [other.id]
    outbox.delivered(hands.engine, other.id)
    (next_,) = outbox.due(hands.engine)
    assert (next_.study, next_.facts) == ("two", best(2))
    age(hands, 61)
    again = outbox.due(hands.engine)[0]
    assert (again.id, again.event, again.tries) == (first.id, first.event, 1)


def test_what_is_not_taken_is_given_up_and_kept_with_its_error(hands: Hands) -> None:
    study = hands.study()
    outbox.add_best(hands.engine, study.id, best(1), 0)
    (message,) = outbox.due(hands.engine)
    assert not outbox.failed(hands.engine, message.id, "answered 500", 0, 3600)
    assert outbox.undelivered(hands.engine, study.id) == outbox.Undelivered(1, 0, "answered 500")
    age(hands, 3601)
    assert outbox.failed(hands.engine, message.id, "answered 502", 0, 3600)
    assert outbox.due(hands.engine) == []
    assert outbox.undelivered(hands.engine, study.id) == outbox.Undelivered(0, 1, "answered 502")
    assert str(outbox.undelivered(hands.engine, study.id)) == (
        "1 message not delivered: 0 to be sent again, 1 given up; answered 502"
    )
    (row,) = rows(hands)
    assert (row["state"], row["tries"], row["last_error"]) == ("given_up", 2, "answered 502")


def test_what_is_sent_again_is_as_it_was_first(hands: Hands) -> None:
    outbox.add_best(hands.engine, hands.study().id, best(1), 0)
    (message,) = outbox.due(hands.engine)
    for body in ("first", "second"):
        outbox.compose(hands.engine, message.id, body)
    assert outbox.due(hands.engine)[0].body == "first"


def test_old_messages_go_and_the_last_best_stays_with_its_study(hands: Hands) -> None:
    study = hands.study()
    for trial in (1, 2):
        outbox.add_best(hands.engine, study.id, best(trial), 0)
    orders.steer(hands.engine, "study", Order.STOP)
    while due := outbox.due(hands.engine):
        outbox.delivered(hands.engine, due[0].id)
    age(hands, 8 * 86400)
    outbox.tidy(hands.engine)
    assert [row["facts"] for row in rows(hands)] == [best(2)]
    orders.delete(hands.engine, "study")
    outbox.tidy(hands.engine)
    assert rows(hands) == []


def test_where_nobody_is_told_messages_expire(hands: Hands) -> None:
    study = hands.study()
    outbox.add_best(hands.engine, study.id, best(1), 0)
    outbox.tidy(hands.engine, expire_seconds=60)
    assert rows(hands)[0]["state"] == "waiting"
    age(hands, 61)
    outbox.tidy(hands.engine)
    assert rows(hands)[0]["state"] == "waiting"
    outbox.tidy(hands.engine, expire_seconds=60)
    assert rows(hands)[0]["state"] == "expired"
    assert outbox.due(hands.engine) == []


def test_a_message_outlives_its_study(hands: Hands) -> None:
    study = hands.study("gone")
    orders.steer(hands.engine, "gone", Order.STOP)
    orders.delete(hands.engine, "gone")
    (message,) = outbox.due(hands.engine)
    assert (message.kind, message.study, message.study_id) == (Kind.STUDY_STOPPED, "gone", None)
    assert records.of_id(hands.engine, study.id) is None
