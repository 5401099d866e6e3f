"""The values of all epochs of a study, and what changes when it does."""

from sqlalchemy import Engine

from cubeopt.db import attempts, courses, orders
from cubeopt.db.orders import Order

from .conftest import Hands, lease


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


def test_the_version_changes_with_whatever_happens_to_the_study_and_only_then(
    engine: Engine, hands: Hands
) -> None:
    study, other = hands.study("one"), hands.study("two")
    seen = [courses.version(engine, study.id)]

    def changed() -> bool:
        seen.append(courses.version(engine, study.id))
        return seen[-1] not in seen[:-1]

    hands.enqueue(study, [0, 1])
    assert changed()
    claim, second = hands.claim(2)
    assert changed()
    hands.report(claim, 1, 0.9)
    assert changed()
    attempts.release(engine, [lease(second)])
    assert changed()
    hands.complete(claim)
    assert changed()
    orders.steer(engine, "one", Order("pause"))
    assert changed()
    hands.enqueue(other, [0])
    assert not changed()


def test_now_is_the_clock_of_the_database(engine: Engine) -> None:
    before, after = courses.now(engine), courses.now(engine)
    assert before < after
    assert before.tzinfo is not None
