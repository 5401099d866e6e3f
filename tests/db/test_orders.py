"""A person steers studies; every order is one statement, may be repeated, and wakes the workers."""

from typing import Any

import pytest

from cubeopt.db import attempts, interventions, notices, orders, records
from cubeopt.db.leases import Verdict
from cubeopt.db.orders import Deleted, Order
from cubeopt.db.tables import EndClass, RunState, StudyState
from cubeopt.errors import StateError, UnknownNameError

from .conftest import lease

LEFT = {Order.PAUSE: StudyState.PAUSED, Order.STOP: StudyState.STOPPED}


@pytest.mark.parametrize("order", LEFT)
def test_an_order_may_be_repeated_and_taken_back(hands: Any, order: Order) -> None:
    study = hands.study()
    assert orders.steer(hands.engine, "study", order)
    left = records.study(hands.engine, "study")
    assert (left.state, left.state_reason) == (LEFT[order], f"a person asked for {order}")
    assert (left.finished_at is not None) == (order is Order.STOP)
    assert left.state_since > study.state_since
    assert not orders.steer(hands.engine, "study", order)
    assert records.study(hands.engine, "study") == left
    assert orders.steer(hands.engine, "study", Order.RESUME)
    assert not orders.steer(hands.engine, "study", Order.RESUME)
    again = records.study(hands.engine, "study")
    assert (again.state, again.state_reason, again.finished_at) == (StudyState.RUNNING, None, None)


@pytest.mark.parametrize(
    ("state", "order"),
    [
        (StudyState.COMPLETE, Order.PAUSE),
        (StudyState.COMPLETE, Order.STOP),
        (StudyState.COMPLETE, Order.RESUME),
        (StudyState.FAILED, Order.PAUSE),
        (StudyState.STOPPED, Order.PAUSE),
    ],
)
def test_an_order_that_a_state_does_not_know_is_one_clear_error(
    hands: Any, state: StudyState, order: Order
) -> None:
    study = hands.study()
    orders.end(hands.engine, study.id, state, "so it is")
    with pytest.raises(StateError, match=f"study 'study' is {state}; only one that is .* {order}"):
        orders.steer(hands.engine, "study", order)
    assert records.study(hands.engine, "study").state_reason == "so it is"


def test_an_unknown_study_gets_a_hint(hands: Any) -> None:
    hands.study("quickstart")
    for act in (
        lambda n: orders.steer(hands.engine, n, Order.PAUSE),
        lambda n: orders.delete(hands.engine, n),
    ):
        with pytest.raises(UnknownNameError, match="did you mean 'quickstart'"):
            act("quikstart")


def test_a_coordinator_does_not_end_what_a_person_has_paused(hands: Any) -> None:
    study = hands.study()
    orders.steer(hands.engine, "study", Order.PAUSE)
    assert not orders.end(hands.engine, study.id, StudyState.COMPLETE, "all have ended")
    assert records.study(hands.engine, "study").state is StudyState.PAUSED


def test_a_complete_study_goes_on_where_a_trial_is_retried(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    (claim,) = hands.claim()
    attempts.fail(hands.engine, lease(claim), EndClass.ERROR, "boom", 0)
    orders.end(hands.engine, study.id, StudyState.COMPLETE, "all have ended")
    assert interventions.retry(hands.engine, "study", 0)
    assert orders.steer(hands.engine, "study", Order.RESUME)
    assert len(hands.claim()) == 1


def test_deleting_is_refused_while_runs_are_leased_unless_it_was_stopped(hands: Any) -> None:
    study, other = hands.study(), hands.study("other")
    hands.enqueue(study, range(3))
    hands.enqueue(other, [0])
    (claim,) = hands.claim()
    hands.report(claim, 1)
    with pytest.raises(
        StateError, match="workers hold runs of it; first: cubeopt study stop study"
    ):
        orders.delete(hands.engine, "study")
    orders.steer(hands.engine, "study", Order.STOP)
    assert orders.delete(hands.engine, "study") == Deleted(3, 3, 1, 1)
    assert hands.report(claim, 2) == {claim.run_id: Verdict.LOST}
    assert [each.name for each in records.studies(hands.engine)] == ["other"]
    assert records.counts(hands.engine, other.id)[RunState.WAITING] == 1


def test_only_what_moves_something_wakes_the_workers(hands: Any) -> None:
    hands.study()
    with notices.listening(hands.engine) as listener:
        for order in (Order.PAUSE, Order.RESUME, Order.STOP):
            orders.steer(hands.engine, "study", order)
            assert listener.wait(5.0)
            orders.steer(hands.engine, "study", order)
            assert not listener.wait(0.1)
        orders.delete(hands.engine, "study")
        assert listener.wait(5.0)
