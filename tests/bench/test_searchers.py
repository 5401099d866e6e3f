"""Every method over one table: whole curves, no row twice, and the seed decides all of it."""

import random
from collections.abc import Sequence
from itertools import pairwise

import optuna
import pytest

from cubeopt.bench.curves import Curve, Curves
from cubeopt.bench.replaying import Seen, replay
from cubeopt.bench.searchers import METHODS, OURS
from cubeopt.search import study

WORKERS, EPOCHS = 3, 6
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def table() -> Curves:
    """Thirty rows whose order at each epoch is that of their last, but for one that diverges."""
    spec = study.parse(
        {
            "name": "thirty",
            "base": {"epochs": EPOCHS},
            "search": {
                "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "state_size": {"choices": [16, 32]},
            },
            "rungs": {"epochs": [EPOCHS], "rule": "none"},
        },
        "thirty",
    )
    source = random.Random(0)
    rows = []
    for number in range(30):
        rate = 10 ** source.uniform(-4, -2)
        point = {"learning_rate": rate, "state_size": 16 + 16 * (number % 2)}
        values = [1.0 + rate - 0.1 * epoch for epoch in range(EPOCHS)]
        if number == 7:
            values[1:] = [float("nan")] * (EPOCHS - 1)
        rows.append(Curve(point, tuple(values), 1.0 + number % 2))
    return Curves(spec, tuple(rows), {})


def by_row(seen: Sequence[Seen]) -> dict[int, list[Seen]]:
    rows: dict[int, list[Seen]] = {}
    for one in seen:
        rows.setdefault(one.row, []).append(one)
    return rows


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_trained_epoch_by_epoch_and_once(method: str) -> None:
    curves = table()
    seen = list(replay(curves, METHODS[method](curves, 0), WORKERS))
    assert [one.time for one in seen] == sorted(one.time for one in seen)
    for row, epochs in by_row(seen).items():
        assert [one.epoch for one in epochs] == list(range(1, len(epochs) + 1))
        seconds = curves.rows[row].epoch_seconds
        assert all(later.time - one.time >= seconds for one, later in pairwise(epochs))
    assert len(by_row(seen)[7]) <= 2  # it diverged in its second epoch


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_a_replay(method: str) -> None:
    curves = table()
    runs = [list(replay(curves, METHODS[method](curves, seed), WORKERS)) for seed in (0, 0, 1)]
    assert repr(runs[0]) == repr(runs[1])  # NaN is not equal to itself
    assert repr(runs[0]) != repr(runs[2])


@pytest.mark.parametrize("method", ["TPE", "random"])
def test_without_a_pruner_every_row_comes_to_its_last_epoch(method: str) -> None:
    curves = table()
    rows = by_row(list(replay(curves, METHODS[method](curves, 0), WORKERS)))
    assert {row: len(epochs) for row, epochs in rows.items() if row != 7} == {
        row: EPOCHS for row in range(30) if row != 7
    }


@pytest.mark.parametrize("method", [OURS, "cubeopt, tpe (the default)"])
def test_ours_cuts_at_rungs_and_promotes_one_in_three_of_those_that_came_through(
    method: str,
) -> None:
    curves = table()
    rows = by_row(list(replay(curves, METHODS[method](curves, 0), WORKERS)))
    assert len(rows) == 30
    ends = [epochs[-1].epoch for row, epochs in rows.items() if row != 7]
    assert set(ends) <= {1, 2, 5, 6}  # the rungs, and the full run
    complete = sum(end >= 5 for end in ends)
    # One in three of those at any time; who is overtaken later keeps the place.
    assert complete // 3 <= ends.count(6) <= complete
    full, short = (
        [curves.rows[row].values[4] for row, epochs in rows.items() if epochs[-1].epoch == end]
        for end in (6, 5)
    )
    assert bool(full) is (complete >= 3)
    assert not full or min(full) <= min(short, default=1.0)
