"""Simulated time, by tables small enough to be replayed by hand."""

import math
from typing import Any

import pytest

from cubeopt.bench import searching
from cubeopt.bench.curves import Curve, Curves
from cubeopt.bench.replaying import Seen, Work, replay
from cubeopt.search import rungs, study
from cubeopt.search.study import Rungs

STUDY: dict[str, Any] = {
    "name": "hand",
    "base": {"epochs": 3},
    "search": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
    "rungs": {"epochs": [3], "rule": "none"},
}
NAN = math.nan


def made(*rows: tuple[float, tuple[float, ...]]) -> Curves:
    """A table of rows (seconds of an epoch, values), of rising learning rate."""
    return Curves(
        study.parse(STUDY, "hand"),
        tuple(
            Curve({"learning_rate": 1e-4 * 2**number}, values, seconds)
            for number, (seconds, values) in enumerate(rows)
        ),
        {},
    )


class InOrder:
    """Row after row, each judged at its first epoch by the project's own rule."""

    def __init__(self, rows: int, rules: Rungs) -> None:
        self._waiting, self._rules = list(range(rows)), rules
        self._values: list[float] = []

    def work(self) -> Work | None:
        return Work(self._waiting.pop(0)) if self._waiting else None

    def ended(self, row: int, epoch: int, value: float) -> bool:
        others = list(self._values)
        if epoch == 1:
            self._values.append(value)
        return not rungs.prune(self._rules, epoch, value, others, "minimize")


# The first is fast and middling, the second slow and best, the third ends at its first epoch.
THREE = made((1.0, (0.9, 0.8, 0.7)), (2.0, (0.5, 0.4, 0.3)), (1.5, (0.95, 0.2, 0.1)))
HALVES = Rungs(epochs=(1, 3), reduction_factor=2.0)


def test_two_workers_take_three_rows_and_one_is_cut_at_the_first_rung() -> None:
    found = list(replay(THREE, InOrder(3, HALVES), 2))
    assert [(one.time, one.worker, one.row, one.epoch) for one in found] == [
        (1.0, 0, 0, 1),  # the first at the rung
        (2.0, 0, 0, 2),  # both end at 2.0: the first worker's counts first
        (2.0, 1, 1, 1),  # the better of two
        (3.0, 0, 0, 3),
        (4.0, 1, 1, 2),
        (4.5, 0, 2, 1),  # .95 after .9 and .5: cut, so its .1 is never seen
        (6.0, 1, 1, 3),
    ]
    assert [one.value for one in found] == [0.9, 0.8, 0.5, 0.7, 0.4, 0.95, 0.3]


def test_a_replay_ends_where_a_last_epoch_is_near_the_best_but_not_before_the_last_look() -> None:
    epochs = made((1.0, (0.9, 0.3, 0.3)), (2.0, (0.5, 0.4, 0.4)), (1.0, (0.9, 0.9, 0.9)))
    for last, count in ((1.0, 4), (5.0, 7), (50.0, 9)):
        one = replay(epochs, InOrder(3, Rungs(rule="none")), 2)
        assert len(searching._until_near(epochs, one, [last])) == count


def test_without_rungs_the_third_row_ends_its_last_epoch() -> None:
    found = list(replay(THREE, InOrder(3, Rungs(rule="none")), 2))
    assert found[-1] == Seen(7.5, 0, 2, 3, 0.1)
    assert len(found) == 9


def test_one_that_diverged_is_not_gone_on_with() -> None:
    table = made((1.0, (0.9, NAN, NAN)), (1.0, (0.5, 0.4, 0.3)))
    found = list(replay(table, InOrder(2, Rungs(rule="none")), 1))
    assert [(one.time, one.row, one.epoch) for one in found] == [
        *((1.0, 0, 1), (2.0, 0, 2)),
        *((3.0, 1, 1), (4.0, 1, 2), (5.0, 1, 3)),
    ]


class Later:
    """Trains row 0 for one epoch; goes on with it when row 1 has been through its first."""

    def __init__(self) -> None:
        self._works = [Work(0), Work(1)]

    def work(self) -> Work | None:
        return self._works.pop(0) if self._works else None

    def ended(self, row: int, epoch: int, value: float) -> bool:
        if (row, epoch) == (1, 1):
            self._works.append(Work(0, 1))
        return row == 1 or epoch > 1


def test_a_worker_that_found_nothing_asks_again_and_goes_on_from_the_epoch_it_is_given() -> None:
    found = list(replay(THREE, Later(), 2))
    assert [(one.time, one.worker, one.row, one.epoch) for one in found] == [
        (1.0, 0, 0, 1),  # then there is nothing for worker 0 ...
        (2.0, 1, 1, 1),
        (3.0, 0, 0, 2),  # ... until now: the second epoch takes one second
        (4.0, 0, 0, 3),
        (4.0, 1, 1, 2),
        (6.0, 1, 1, 3),
    ]


def test_the_time_counts_to_a_last_epoch_within_one_percent_or_to_any_epoch() -> None:
    table = made((1.0, (0.9, 0.302, 0.31)), (2.0, (0.5, 0.4, 0.3)), (1.5, (0.95, 0.9, 0.9)))
    found = list(replay(table, InOrder(3, Rungs(rule="none")), 2))
    assert table.best == 0.3
    assert searching.reached(table, found, last_only=True) == 6.0
    assert searching.reached(table, found, last_only=False) == 2.0
    assert searching.reached(table, found[:-2], last_only=True) == math.inf


def test_the_regret_is_that_of_the_best_value_so_far() -> None:
    found = list(replay(THREE, InOrder(3, HALVES), 2))
    assert THREE.best == 0.1
    assert searching.regret(THREE, found, 0.5) == math.inf
    assert searching.regret(THREE, found, 1.0) == pytest.approx(8.0)
    assert searching.regret(THREE, found, 5.0) == pytest.approx(3.0)


def test_more_is_better_where_the_study_maximizes() -> None:
    spec = study.parse({**STUDY, "objective": {"metric": "cosine"}}, "hand")
    table = Curves(spec, made((1.0, (0.1, 0.2, NAN)), (1.0, (0.1, 0.5, 0.8))).rows, {})
    assert table.best == 0.8
    assert table.shortfall(0.6) == pytest.approx(0.25)
    assert searching.near(table, 0.793)
    assert not searching.near(table, 0.791)
    assert not searching.near(table, NAN)
