"""The values of all epochs of a study."""

from sqlalchemy import Engine

from cubeopt.db import courses

from .conftest import Hands


def test_each_run_has_its_epochs_in_order_with_what_had_no_value(
    engine: Engine, hands: Hands
) -> None:
    study, other = hands.study("one"), hands.study("two")
    hands.enqueue(study, [0, 1])
    hands.enqueue(other, [0])
    first, second, third = hands.claim(3)
    hands.report(first, 1, 0.9)
    hands.report(first, 2, None)
    hands.report(first, 3, 0.7)
    hands.report(third, 1, 0.1)
    assert courses.read(engine, study.id) == {first.run_id: [(1, 0.9), (2, None), (3, 0.7)]}
    assert courses.read(engine, other.id) == {third.run_id: [(1, 0.1)]}
    assert second.run_id not in courses.read(engine, study.id)


def test_now_is_the_clock_of_the_database(engine: Engine) -> None:
    before, after = courses.now(engine), courses.now(engine)
    assert before < after
    assert before.tzinfo is not None
