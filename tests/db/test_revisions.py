"""A study's file is changed in one step, kept as it was, and seen by all who go by it."""

from typing import Any

import pytest

from cubeopt.db import notices, orders, queue, records, revisions
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import StudyState


def _revise(hands: Any, study: Any, after: dict[str, Any], **left: Any) -> bool:
    values = {"trials": 2, "promotes": False, **left}
    return revisions.revise(hands.engine, study.id, study.spec, after, **values)


def test_a_file_is_replaced_once_and_the_old_one_kept(hands: Any) -> None:
    study = hands.study()
    first, second = {**study.spec, "budget": {"trials": 2}}, {**study.spec, "x": 1e-05}
    with notices.listening(hands.engine) as listener:
        assert _revise(hands, study, first)
        assert listener.wait(5.0)
    assert not _revise(hands, study, second)  # it goes by the file that is not there any more
    now = records.study(hands.engine, "study")
    assert (now.spec, now.state) == (first, StudyState.RUNNING)
    assert _revise(hands, now, second)
    kept = revisions.read(hands.engine, study.id)
    assert [each.spec for each in kept] == [study.spec, first]
    assert study.created_at < kept[0].created_at < kept[1].created_at
    orders.delete(hands.engine, "study")
    assert revisions.read(hands.engine, study.id) == []


def test_who_goes_by_an_older_file_adds_no_trial_and_ends_nothing(hands: Any) -> None:
    study = hands.study()
    trial = [NewTrial(0, {"seed": 0}, {"seed": 0}, "a", 5)]
    after = {**study.spec, "rate": 1e-05, "weights": [0.1, 1e300]}
    assert _revise(hands, study, after)
    assert not queue.enqueue(hands.engine, study.id, trial, drawn_by=study.spec)
    ends = (study.id, StudyState.COMPLETE, "all have ended")
    assert not orders.end(hands.engine, *ends, seen=study.spec)
    assert records.trials(hands.engine, study.id) == []
    now = records.study(hands.engine, "study")
    assert now.state is StudyState.RUNNING
    assert queue.enqueue(hands.engine, study.id, trial, drawn_by=now.spec)
    assert orders.end(hands.engine, *ends, seen=now.spec)


@pytest.mark.parametrize(
    ("budget", "left", "state"),
    [
        ({"trials": 1}, {"trials": 1}, StudyState.COMPLETE),
        ({"trials": 2}, {"trials": 2}, StudyState.RUNNING),
        ({"epochs": 6}, {"trials": None}, StudyState.RUNNING),
        ({"epochs": 5}, {"trials": None}, StudyState.COMPLETE),
        ({"epochs": 5, "trials": 2}, {"trials": 2}, StudyState.COMPLETE),
        ({"trials": 1}, {"trials": 1, "promotes": True}, StudyState.RUNNING),
    ],
)
def test_a_complete_study_goes_on_when_it_has_something_left_and_no_budget_is_spent(
    hands: Any, budget: dict[str, float], left: dict[str, Any], state: StudyState
) -> None:
    study = hands.study(rungs=(5,), budget={"trials": 1, "hours": 9})
    hands.enqueue(study, [0])
    (claim,) = hands.claim(1)
    for epoch in range(1, 6):
        hands.report(claim, epoch)
    orders.end(hands.engine, study.id, StudyState.COMPLETE, "all 1 trials have ended")
    assert _revise(hands, study, {**study.spec, "budget": budget}, **left)
    now = records.study(hands.engine, "study")
    reason = None if state is StudyState.RUNNING else "all 1 trials have ended"
    assert (now.state, now.state_reason, now.finished_at is None) == (state, reason, not reason)


@pytest.mark.parametrize("state", [StudyState.PAUSED, StudyState.STOPPED, StudyState.FAILED])
def test_a_study_in_any_other_state_stays_there(hands: Any, state: StudyState) -> None:
    study = hands.study()
    orders.end(hands.engine, study.id, state, "so it is")
    assert _revise(hands, study, {**study.spec, "budget": {"trials": 2}})
    now = records.study(hands.engine, "study")
    assert (now.state, now.state_reason) == (state, "so it is")
