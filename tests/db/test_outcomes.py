"""What the coordinator learns of trials, and what it notes about Optuna's tables."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cubeopt.db import outcomes, queue, records
from cubeopt.db.leases import Verdict
from cubeopt.db.outcomes import Wish
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import RunState


def _missing(hands: Any, study: Any) -> list[tuple[int, int]]:
    return [(one.number, one.epoch) for one in outcomes.unmirrored(hands.engine, study.id)]


def test_a_trial_is_missing_in_the_mirror_from_its_beginning_to_its_end(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(2))
    assert _missing(hands, study) == [(0, 0), (1, 0)]
    outcomes.mark_mirrored(hands.engine, study.id, outcomes.unmirrored(hands.engine, study.id))
    assert _missing(hands, study) == []
    first, second = hands.claim(2)
    for epoch in (1, 2, 3):
        hands.report(first, epoch, epoch / 8)
    hands.report(second, 1, None)
    news = outcomes.unmirrored(hands.engine, study.id)
    assert [(one.epoch, one.mirrored_epoch) for one in news] == [(3, 0), (1, 0)]
    assert [one.values for one in news] == [{1: 0.125, 2: 0.25, 3: 0.375}, {}]
    hands.complete(second, 0.5)
    outcomes.mark_mirrored(hands.engine, study.id, news)  # which say nothing of the end
    assert _missing(hands, study) == [(1, 5)]
    outcomes.mark_mirrored(hands.engine, study.id, outcomes.unmirrored(hands.engine, study.id))
    outcomes.mark_mirrored(hands.engine, study.id, [])
    assert _missing(hands, study) == []


def test_what_a_full_run_reports_changes_nothing(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, [0])
    hands.complete(hands.claim()[0])
    before = outcomes.read(hands.engine, study.id)
    queue.promote(hands.engine, study.id, [0], 50)
    (full,) = hands.claim()
    hands.report(full, 6, 0.125)
    assert outcomes.read(hands.engine, study.id) == before


def test_ends_are_those_of_the_trials_asked_for(hands: Any) -> None:
    study, other = hands.study("one"), hands.study("two")
    hands.enqueue(study, range(4))
    hands.enqueue(other, [0])
    done, cut, broken, going, foreign = hands.claim(5)
    hands.complete(done, 0.25)
    assert hands.report(cut, 1, 0.75, decide=lambda _: True) == {cut.run_id: Verdict.PRUNED}
    hands.report(broken, 1, float("nan"))
    hands.report(going, 1)
    hands.complete(foreign)
    ends = outcomes.ended(hands.engine, study.id, [1, 2, 3])
    assert [(one.number, one.state, one.value, one.values) for one in ends] == [
        (1, RunState.PRUNED, 0.75, {1: 0.75}),
        (2, RunState.PRUNED, None, {}),
    ]
    assert [one.number for one in outcomes.ended(hands.engine, study.id, range(4))] == [0, 1, 2]
    assert outcomes.ended(hands.engine, study.id, []) == []


def test_numbers_come_back_to_the_bit(hands: Any) -> None:
    study = hands.study()
    params = {"rate": 1e-300, "weight": 0.1 + 0.2, "whole": 7, "word": "a", "one": 1.0}
    notes = {"trial": {"cma:0": "80049"}, "study": {"parents": [1, 2]}}
    queue.enqueue(hands.engine, study.id, [NewTrial(0, params, {}, "a", 5, notes)])
    hands.report(hands.claim(), 1, 0.1 + 0.7)
    (one,) = outcomes.read(hands.engine, study.id)
    assert (one.params, one.notes, one.values) == (params, notes, {1: 0.1 + 0.7})
    assert type(one.params["one"]) is float


def test_a_wish_has_the_next_number_and_no_run_until_it_is_granted(hands: Any) -> None:
    study, other = hands.study("one"), hands.study("two")
    assert outcomes.wish(hands.engine, study.id, {"seed": 9}) == 0
    assert outcomes.wish(hands.engine, other.id, {}) == 0
    hands.enqueue(study, [1])
    assert outcomes.wish(hands.engine, study.id, {"rate": 0.5}) == 2
    wished = [Wish(0, {"seed": 9}), Wish(2, {"rate": 0.5})]
    assert outcomes.wishes(hands.engine, study.id) == wished
    assert [one.number for one in outcomes.read(hands.engine, study.id)] == [1]
    granted = NewTrial(0, {"seed": 9, "rate": 0.25}, {}, "a", 5)
    assert queue.enqueue(hands.engine, study.id, [granted])
    assert not queue.enqueue(hands.engine, study.id, [granted])
    assert outcomes.wishes(hands.engine, study.id) == wished[1:]
    trials = records.trials(hands.engine, study.id)
    assert [(one.number, one.params) for one in trials] == [
        (0, {"seed": 9, "rate": 0.25}),
        (1, {"seed": 1}),
    ]


def test_a_point_that_is_not_what_was_wished_for_does_not_take_its_number(hands: Any) -> None:
    study = hands.study()
    outcomes.wish(hands.engine, study.id, {"seed": 9})
    assert not hands.enqueue(study, [0, 1])
    assert outcomes.wishes(hands.engine, study.id) == [Wish(0, {"seed": 9})]
    assert records.runs(hands.engine, study.id) == []


def test_wishes_and_trials_that_come_at_once_have_numbers_of_their_own(hands: Any) -> None:
    study = hands.study()
    start = threading.Barrier(4)

    def wish(_: int) -> list[int]:
        start.wait()
        return [outcomes.wish(hands.engine, study.id, {"seed": -1}) for _ in range(20)]

    def enqueue() -> list[int]:
        start.wait()
        return [number for number in range(80) if hands.enqueue(study, [number])]

    with ThreadPoolExecutor(4) as pool:
        asked = pool.submit(enqueue)
        wished = [number for some in pool.map(wish, range(3)) for number in some]
    assert len({*wished, *asked.result()}) == 60 + len(asked.result())
    assert [one.number for one in outcomes.wishes(hands.engine, study.id)] == sorted(wished)
    assert [one.number for one in outcomes.read(hands.engine, study.id)] == asked.result()
