"""What happened lately, and how fast: read by keys and indexes, and only what is new."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from cubeopt.db import chronicle, orders, queue
from cubeopt.db.orders import Order
from cubeopt.db.tables import EndClass

from .conftest import Hands


def test_only_the_last_events_are_read_and_only_those_after_a_moment(hands: Hands) -> None:
    study = hands.study()
    hands.enqueue(study, range(3))
    for number, claim in enumerate(hands.claim(limit=3)):
        hands.complete(claim, 0.1 * number)
    told = chronicle.events(hands.engine, study.id, 100)
    assert [(each.what, each.trial) for each in told] == [
        *(("started", 0), ("started", 1), ("started", 2)),
        *(("done", 0), ("done", 1), ("done", 2)),
    ]
    assert chronicle.events(hands.engine, study.id, 2) == told[-2:]
    assert chronicle.events(hands.engine, study.id, 100, told[-3].at) == told[-2:]
    assert chronicle.events(hands.engine, study.id + 1, 100) == []


def test_an_event_keeps_its_key_whatever_becomes_of_the_trial(hands: Hands) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (first,) = hands.claim()
    hands.expire(first)
    queue.reap(hands.engine)
    (second,) = hands.claim()
    before = chronicle.events(hands.engine, study.id, 10)
    assert [(each.what, each.token) for each in before] == [
        *(("started", first.token), ("lost", first.token), ("started", second.token)),
    ]
    hands.complete(second)
    after = chronicle.events(hands.engine, study.id, 10)
    assert [each.key for each in after[:3]] == [each.key for each in before]
    assert after[-1].what == EndClass.DONE


def test_the_pace_is_of_the_last_seconds_and_of_what_ran_since_the_study_went_on(
    hands: Hands,
) -> None:
    study = hands.study()
    assert chronicle.pace(hands.engine, study.id, 60.0).rate is None
    hands.enqueue(study, range(2))
    old, new = hands.claim(limit=2)
    for epoch in (1, 2, 3):
        hands.report(old, epoch)
    hands.complete(new)
    _age(hands, old.run_id, epochs=(1, 2), by=timedelta(minutes=10))
    with hands.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE cubeopt.studies SET state_since = state_since - interval '1 h';"
                "UPDATE cubeopt.runs SET started_at = started_at - interval '1 h'"
            )
        )
    found = chronicle.pace(hands.engine, study.id, 60.0)
    assert (found.epochs, found.seconds, found.rate) == (2, 60.0, pytest.approx(2 / 60))
    assert chronicle.pace(hands.engine, study.id, 1200.0).epochs == 4
    orders.steer(hands.engine, study.name, Order.PAUSE)
    orders.steer(hands.engine, study.name, Order.RESUME)
    resumed = chronicle.pace(hands.engine, study.id, 60.0)
    assert resumed.seconds < 60.0
    assert resumed.epochs == 0


def _age(hands: Hands, run_id: int, epochs: tuple[int, ...], by: timedelta) -> None:
    with hands.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE cubeopt.epochs SET created_at = created_at - CAST(:by AS interval) "
                "WHERE run_id = :run_id AND epoch = ANY(:epochs)"
            ),
            {"run_id": run_id, "epochs": list(epochs), "by": by},
        )
