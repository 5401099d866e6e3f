"""Which trials teach a study that did not ask for them: one rule, by hand."""

from typing import Any

import pytest

from cubeopt.db.priors import Earlier, Prior
from cubeopt.db.tables import RunState
from cubeopt.search import inheritance, study
from cubeopt.search.inheritance import Misfit, Room
from cubeopt.search.study import StudySpec

SEARCH = {
    "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "lattice_steps": {"low": 2, "high": 6},
    "halting": {"choices": ["fixed", "threshold"]},
    "halting_threshold": {"low": 0.01, "high": 1.0, "when": {"halting": ["threshold"]}},
}
BASE = {"dropout": 0.25, "dataset": "here"}
POINT = {"learning_rate": 0.01, "lattice_steps": 3, "halting": "fixed"}


def spec(**changes: Any) -> StudySpec:
    return study.parse({"name": "s", "base": BASE, "search": SEARCH, **changes}, "s.yaml")


def place(**changes: Any) -> Any:
    """Of a trial with the values of BASE and POINT but for *changes*."""
    room = Room(spec())
    return room.place({**room.values(POINT, 7), **changes})


def test_a_trial_within_the_space_over_an_equal_base_is_a_point() -> None:
    assert place() == POINT
    assert place(learning_rate=1e-3, lattice_steps=6) == {
        **POINT,
        **{"learning_rate": 1e-3, "lattice_steps": 6},
    }


@pytest.mark.parametrize(
    ("changes", "base", "outside"),
    [
        ({"learning_rate": 0.2}, (), ("learning_rate",)),
        ({"learning_rate": 0.0009}, (), ("learning_rate",)),
        ({"lattice_steps": 7}, (), ("lattice_steps",)),
        ({"lattice_steps": 1, "learning_rate": 1.0}, (), ("lattice_steps", "learning_rate")),
        ({"dropout": 0.5}, ("dropout",), ()),
        ({"task": "dialogue"}, ("task",), ()),
        ({"lattice_size": [4, 4, 4], "lattice_steps": 9}, ("lattice_size",), ("lattice_steps",)),
        ({"validation_interval": 2}, ("validation_interval",), ()),
        # Not active with "fixed", so it is one of the base: .1.
        ({"halting_threshold": 0.5}, ("halting_threshold",), ()),
        # Nobody knows whether it would be active.
        ({"halting": "learned", "halting_threshold": 0.5}, (), ("halting",)),
    ],
)
def test_any_other_value_makes_it_none_and_is_named(
    changes: dict[str, Any], base: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    found = place(**changes)
    assert isinstance(found, Misfit)
    assert (found.base, tuple(sorted(found.outside))) == (base, outside)


def test_a_value_that_an_older_version_did_not_have_is_the_default() -> None:
    room = Room(spec())
    values = room.values(POINT, 7)
    del values["input_noise"]
    assert room.place(values) == POINT
    del values["dropout"]  # the default is 0, the base's .25
    assert room.place(values) == Misfit(("dropout",), ())


def test_a_misfit_is_told_by_its_base_or_else_by_its_place() -> None:
    assert str(Misfit(("dropout", "task"), ("seed",))) == "other base values (dropout, task)"
    assert str(Misfit((), ("seed",))) == "outside the space (seed)"


@pytest.mark.parametrize(
    "changes",
    [{"dataset": "there"}, {"save_checkpoint_every": 1}, {"log_interval": 1}, {"seed": 9}],
)
def test_what_decides_nothing_about_a_result_does_not_count(changes: dict[str, Any]) -> None:
    assert place(**changes) == POINT


def test_a_seed_counts_where_it_is_searched() -> None:
    room = Room(spec(search={"seed": {"low": 0, "high": 5}}))
    values = room.values({}, 3)
    assert (values["seed"], room.point(values)) == (3, {"seed": 3})
    assert room.point(room.values({}, 6)) is None


def test_an_active_condition_takes_the_value_and_checks_it() -> None:
    chosen = {**POINT, "halting": "threshold"}
    assert place(halting="threshold", halting_threshold=0.5) == {**chosen, "halting_threshold": 0.5}
    assert place(halting="threshold") == {**chosen, "halting_threshold": 0.1}  # that of the base
    assert place(halting="threshold", halting_threshold=2.0) == Misfit((), ("halting_threshold",))


def test_names_may_have_been_searched_there_and_be_fixed_here_and_the_reverse() -> None:
    wide = Room(spec(search={**SEARCH, "dropout": {"low": 0.0, "high": 0.5}}))
    narrow = Room(spec(search={"learning_rate": SEARCH["learning_rate"]}, base=BASE))
    values = wide.values({**POINT, "dropout": 0.25, "lattice_steps": 5}, 0)  # 5: the default
    assert narrow.point(values) == {"learning_rate": 0.01}
    assert narrow.point({**values, "lattice_steps": 4}) is None
    assert wide.point(narrow.values({"learning_rate": 0.01}, 0)) == {
        **{"learning_rate": 0.01, "lattice_steps": 5, "halting": "fixed", "dropout": 0.25},
    }


def earlier(state: RunState, *values: float, first: int = 1, diverged: bool = False) -> Earlier:
    by_epoch = dict(enumerate(values, first))
    metrics = {epoch: {"parameters": 10.0 * epoch} for epoch in by_epoch}
    return Earlier(4, {"seed": 0}, state, diverged, by_epoch, metrics)


def told(
    state: RunState, value: float | None, values: dict[int, float], metrics: dict[str, Any]
) -> Prior:
    return Prior("old", 4, {"seed": 0}, state, value, values, metrics)


COMPLETE, PRUNED = RunState.COMPLETE, RunState.PRUNED


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Three epochs are asked for.
        (
            earlier(COMPLETE, 0.9, 0.8, 0.7),
            told(COMPLETE, 0.7, {1: 0.9, 2: 0.8, 3: 0.7}, {"parameters": 30.0}),
        ),
        (
            earlier(COMPLETE, 0.9, 0.8, 0.7, 0.6),
            told(COMPLETE, 0.7, {1: 0.9, 2: 0.8, 3: 0.7}, {"parameters": 30.0}),
        ),
        (
            earlier(RunState.RUNNING, 0.9, 0.8, 0.7, 0.6),
            told(COMPLETE, 0.7, {1: 0.9, 2: 0.8, 3: 0.7}, {"parameters": 30.0}),
        ),
        (
            earlier(PRUNED, 0.9, 0.8, 0.7, 0.6, diverged=True),
            told(COMPLETE, 0.7, {1: 0.9, 2: 0.8, 3: 0.7}, {"parameters": 30.0}),
        ),
        (earlier(PRUNED, 0.9, 0.8), told(PRUNED, 0.8, {1: 0.9, 2: 0.8}, {"parameters": 20.0})),
        (earlier(COMPLETE, 0.9), told(PRUNED, 0.9, {1: 0.9}, {"parameters": 10.0})),
        (earlier(PRUNED, 0.9, diverged=True), told(PRUNED, None, {1: 0.9}, {})),
        (earlier(PRUNED, diverged=True), told(PRUNED, None, {}, {})),
        (earlier(RunState.FAILED, 0.9), "failed"),
        (earlier(RunState.RUNNING, 0.9, 0.8), "not at epoch 3"),
        (earlier(RunState.WAITING), "not at epoch 3"),
        (earlier(PRUNED), "not at epoch 3"),
        (earlier(COMPLETE, 0.6, 0.5, first=4), "not at epoch 3"),
    ],
)
def test_a_trial_is_told_by_what_it_was_at_the_epoch_that_is_asked_for(
    given: Earlier, expected: Prior | str
) -> None:
    assert inheritance.prior("old", given, 3) == expected
