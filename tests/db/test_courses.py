"""The runs of some trials of a study, what they recorded, and when there is something new."""

import math
from typing import Any

from cubeopt.db import courses, queue
from cubeopt.db.tables import RunKind, RunState


def test_courses_are_those_of_the_trials_that_were_asked_for(hands: Any) -> None:
    study, other = hands.study("one"), hands.study("two")
    hands.enqueue(study, range(3))
    hands.enqueue(other, range(3))
    first, second = hands.claim(2)
    hands.complete(first, 0.25)
    hands.report(second, 1, 0.75)
    queue.promote(hands.engine, study.id, [0], 50)
    found = courses.of_trials(hands.engine, study.id, [0, 1, 7])
    assert [(c.trial, c.kind, c.state, c.epoch, c.target_epochs, c.value) for c in found] == [
        (0, RunKind.SHORT, RunState.COMPLETE, 5, 5, 0.25),
        (0, RunKind.FULL, RunState.WAITING, 5, 50, 0.25),
        (1, RunKind.SHORT, RunState.RUNNING, 1, 5, 0.75),
    ]
    assert [(c.seed, c.worker) for c in found] == [(0, None), (0, None), (1, "host-1")]
    assert courses.of_trials(hands.engine, study.id, []) == []
    (running,) = courses.running(hands.engine, study.id, 5)
    assert running == found[2]


def test_epochs_are_those_of_the_runs_in_their_order(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(2))
    first, second = hands.claim(2)
    hands.report([second, first], 1, metrics={"learning_rate": 0.5, "train/loss/total": None})
    hands.report(first, 2, metrics={"learning_rate": 0.25})
    found = courses.epochs(hands.engine, [second.run_id, first.run_id])
    assert [(each.run_id, each.epoch) for each in found] == [
        (first.run_id, 1),
        (first.run_id, 2),
        (second.run_id, 1),
    ]
    assert found[0].metrics == {"learning_rate": 0.5, "train/loss/total": None}
    assert found[1].metrics == {"learning_rate": 0.25}
    assert courses.epochs(hands.engine, []) == []


def test_a_search_has_the_running_first_and_then_the_best(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(25))
    claims = hands.claim(8)
    for claim, value in zip(claims[:5], [0.5, 0.25, 0.75, math.nan, 0.125], strict=True):
        hands.report(claim, 5, value, diverged=math.isnan(value))
    queue.promote(hands.engine, study.id, [2], 50)
    keys = [(c.trial, str(c.kind)) for c in _search(hands, study, "").courses]
    #        running                                    promoted     by value: trial 3 has none
    assert keys[:3] == [(5, "short"), (6, "short"), (7, "short")]
    assert keys[3:7] == [(2, "full"), (4, "short"), (1, "short"), (0, "short")]
    assert (3, "short") in keys[7:]
    assert len(keys) == 25
    assert (2, "short") not in keys
    found = _search(hands, study, "1", limit=3)
    assert (found.count, [c.trial for c in found.courses]) == (11, [1, 10, 11])
    assert [c.trial for c in _search(hands, study, "2").courses] == [2, 20, 21, 22, 23, 24]
    maximal = _search(hands, study, "", maximize=True).courses
    assert [c.trial for c in maximal[3:7]] == [2, 0, 1, 4]
    nothing = _search(hands, study, "77")
    assert (nothing.count, nothing.courses) == (0, [])


def test_the_mark_moves_when_there_is_something_new_and_not_else(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(3))
    (claim,) = hands.claim(1)

    def marks() -> list[str]:
        return [courses.mark(hands.engine, study.id, each) for each in ([0], [1, 2], None)]

    before = marks()
    assert marks() == before
    hands.report(claim, 1)
    after = marks()
    assert [one != two for one, two in zip(before, after, strict=True)] == [True, False, True]
    hands.claim(1)  # trial 1 begins: those that are trained now are others
    third = marks()
    assert [one != two for one, two in zip(after, third, strict=True)] == [False, True, True]
    hands.complete(claim)
    queue.promote(hands.engine, study.id, [0], 50)
    assert marks()[0] != third[0]


def _search(hands: Any, study: Any, beginning: str, limit: int = 100, maximize: bool = False):
    return courses.search(hands.engine, study.id, beginning, limit, maximize)
