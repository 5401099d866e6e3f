"""What a process keeps of a rung is what stands in the tables."""

import random
from array import array
from typing import Any

import pytest

from cubeopt.db import engine as engines
from cubeopt.db import leases, standings
from cubeopt.db.batch import batch
from cubeopt.db.leases import EpochReport, RungQuestion, Verdict


def _asked(hands: Any, claim: Any, value: float, engine: Any = None) -> tuple[float, ...]:
    """The others that a report of *value* at epoch 1 is compared with."""
    seen: list[tuple[float, ...]] = []
    report = EpochReport(claim.run_id, claim.token, 1, value, {})

    def decide(question: RungQuestion) -> bool:
        seen.append(question.others)
        return False

    leases.report(engine or hands.engine, [report], decide)
    return seen[0]


def test_two_processes_see_the_same_however_they_take_turns(hands: Any) -> None:
    hands.enqueue(hands.study(), range(8))
    other = engines.create(hands.engine.url.render_as_string(hide_password=False))
    claims, values = hands.claim(8), [0.5, 0.25, 0.5, 0.75, 0.125, 0.5, 0.0, 1.0]
    for place, (claim, value) in enumerate(zip(claims, values, strict=True)):
        engine = other if place in (1, 2, 5) else hands.engine
        assert _asked(hands, claim, value, engine) == tuple(sorted(values[:place]))
    other.dispose()


def test_only_what_is_new_is_read(hands: Any) -> None:
    study = hands.study()
    hands.enqueue(study, range(4))
    for place, claim in enumerate(hands.claim(4)):
        _asked(hands, claim, place / 8)
    kept = standings._kept[hands.engine][study.id, 1]
    with hands.engine.begin() as connection:
        with batch(connection) as send:
            answer = standings.ask(send, hands.engine, (study.id, 1), [])
        rows = connection.execute(
            standings._READ,
            {"study_id": study.id, "epoch": 1, "seen": kept.seen, "run_ids": []},
        ).all()
    assert (list(answer().values), rows) == ([0.0, 0.125, 0.25, 0.375], [])


def test_what_was_not_committed_is_forgotten(hands: Any) -> None:
    hands.enqueue(hands.study(), range(3))
    first, second, third = hands.claim(3)
    _asked(hands, first, 0.5)

    def broken(question: RungQuestion) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hands.report(second, 1, 0.25, decide=broken)
    assert _asked(hands, third, 0.75) == (0.5,)
    assert _asked(hands, second, 0.375) == (0.5, 0.75)


def test_an_epoch_trained_again_is_not_compared_with_itself(hands: Any) -> None:
    hands.enqueue(hands.study(), range(2))
    first, second = hands.claim(2)
    _asked(hands, first, 0.5)
    _asked(hands, second, 0.25)
    assert _asked(hands, first, 0.125) == (0.25,)  # what it had at first counts for others
    assert hands.report(second, 2, 0.25) == {second.run_id: Verdict.GO_ON}


def test_a_rung_without_one_of_its_values_is_the_rung_without_it() -> None:
    generator = random.Random(0)
    for _ in range(200):
        values = sorted(generator.randrange(6) / 4 for _ in range(generator.randrange(1, 9)))
        one = generator.choice(values)
        expected = values.copy()
        expected.remove(one)
        rising = standings.Rising(array("d", values), one)
        assert (len(rising), list(rising), list(rising[1:])) == (
            len(expected),
            expected,
            expected[1:],
        )
        assert rising == tuple(expected)
        assert rising != tuple(values)
        assert all(rising[-place] == expected[-place] for place in range(1, len(expected) + 1))


def test_many_new_values_at_once_find_their_places() -> None:
    rows = [(number, number, (7 * number) % 50 / 8) for number in range(1, 50)]
    few, many = rows[:3], rows[3:]
    base = standings._together(standings.Values(), few)
    grown = standings._together(base, [*many, (None, 12, 0.5)])
    assert list(grown.values) == sorted(value for _, _, value in rows)
    assert list(base.values) == sorted(value for _, _, value in few)
    assert (grown.seen, grown.own) == (49, {12: 0.5})
