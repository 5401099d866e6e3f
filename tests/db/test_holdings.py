"""What workers hold and did, with the numbers of a small queue."""

from typing import Any

from sqlalchemy import text

from cubeopt.db import attempts, holdings
from cubeopt.db.tables import EndClass, RunKind

from .conftest import lease


def test_what_is_held_what_was_done_lately_and_how_it_ended(hands: Any) -> None:
    study = hands.study("one")
    hands.enqueue(study, range(6))
    first, second, third, fourth = hands.claim(4)
    hands.report([first, second], 1, metrics={"samples_per_second": 10.0})
    hands.report(first, 2, metrics={"samples_per_second": 32.5})
    hands.complete(third)
    attempts.fail(hands.engine, lease(fourth), EndClass.ERROR, "boom", 0)
    found = holdings.read(hands.engine, 60.0)
    assert [(h.study, h.trial, h.kind, h.epoch, h.width) for h in found.holdings] == [
        ("one", 0, RunKind.SHORT, 2, 8),
        ("one", 1, RunKind.SHORT, 1, 8),
    ]
    assert all(0 < h.lease_seconds <= 60 for h in found.holdings)
    # Four epochs in the last minute; the two runs that are held made 32.5 and 10 samples a second.
    pace = found.paces[hands.worker_id]
    assert (pace.epochs, pace.samples_per_second) == (4, 42.5)
    assert {(e.study, e.end_class): e.count for e in found.ends} == {
        ("one", EndClass.DONE): 1,
        ("one", EndClass.ERROR): 1,
    }


def test_epochs_of_long_ago_are_not_counted_but_the_rate_of_what_is_held_is(hands: Any) -> None:
    hands.enqueue(hands.study(), range(2))
    (claim,) = hands.claim(1)
    hands.report(claim, 1, metrics={"samples_per_second": 4.0})
    with hands.engine.begin() as connection:
        connection.execute(text("UPDATE cubeopt.epochs SET created_at = now() - interval '2 min'"))
    pace = holdings.read(hands.engine, 60.0).paces[hands.worker_id]
    assert (pace.epochs, pace.samples_per_second) == (0, 4.0)


def test_nobody_holds_nothing(hands: Any) -> None:
    found = holdings.read(hands.engine, 60.0)
    assert (found.holdings, found.paces, found.ends) == ([], {}, [])
