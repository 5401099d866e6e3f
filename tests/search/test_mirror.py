"""What Optuna's tables are shown, over a real database."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine

from cubeopt.db.engine import optuna_url
from cubeopt.db.outcomes import Outcome
from cubeopt.db.tables import RunState
from cubeopt.errors import StudyError
from cubeopt.search import memory, mirror
from cubeopt.search.mirror import Mirror

from .conftest import MOMENT, Search


@pytest.fixture
def storage(engine: Engine) -> Iterator[RDBStorage]:
    opened = mirror.open_storage(optuna_url(engine))
    yield opened
    opened.engine.dispose()


def test_all_who_open_a_fresh_database_at_once_find_the_same_tables(engine: Engine) -> None:
    start = threading.Barrier(4)

    def opened(_: int) -> list[optuna.study.StudySummary]:
        start.wait()
        storage = mirror.open_storage(optuna_url(engine))
        try:
            return list(storage.get_all_studies())
        finally:
            storage.engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(opened, range(4))) == [[], [], [], []]


SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "lattice_steps": {"low": 2, "high": 9},
    "state_size": {"choices": [8, 16]},
    "gate": {"choices": ["learned", "frozen"]},
    "halting": {"choices": ["fixed", "threshold"]},
    "halting_threshold": {"low": 0.1, "high": 1.0, "when": {"halting": ["threshold"]}},
}


@pytest.fixture
def search() -> Search:
    """A study of eight trials."""
    search = Search({"search": SPACE, "sampler": {"name": "random", "seed": 5}})
    search.ask(8)
    return search


def shown(storage: RDBStorage) -> list[FrozenTrial]:
    return optuna.load_study(study_name="s", storage=storage).trials


def ended(outcome: Outcome, state: RunState, *values: float) -> Outcome:
    """*outcome* with *values* at its epochs; the last one is its own."""
    by_epoch = dict(enumerate(values, start=1))
    last = values[-1] if values else None
    return replace(outcome, state=state, epoch=len(values), value=last, values=by_epoch)


def test_what_was_asked_stands_there_to_the_bit(storage: RDBStorage, search: Search) -> None:
    Mirror(storage, search.spec).show(search.outcomes)
    assert {len(each.params) for each in search.outcomes} == {5, 6}
    for ours, theirs in zip(search.outcomes, shown(storage), strict=True):
        assert (theirs.number, theirs.params) == (ours.number, ours.params)
        assert (theirs.state, theirs.system_attrs) == (TrialState.RUNNING, {})


@pytest.mark.parametrize("seen_before", [False, True], ids=["at once", "bit by bit"])
def test_ends_are_shown_with_their_epochs_and_twice_is_once(
    storage: RDBStorage, search: Search, seen_before: bool
) -> None:
    counterpart = Mirror(storage, search.spec)
    if seen_before:
        counterpart.show(search.outcomes)
        begun = replace(search.outcomes[0], state=RunState.RUNNING, epoch=1, values={1: 0.9})
        counterpart.show([begun])
        assert shown(storage)[0].intermediate_values == {1: 0.9}
    search.outcomes[:4] = [
        ended(search.outcomes[0], RunState.COMPLETE, 0.9, 0.8),
        ended(search.outcomes[1], RunState.PRUNED, 0.95),
        ended(search.outcomes[2], RunState.FAILED, 0.7),
        replace(ended(search.outcomes[3], RunState.PRUNED, 0.6), value=None),  # it diverged
    ]
    for _ in range(2):  # as after a crash between showing and writing that down
        counterpart.show(search.outcomes)
        counterpart = Mirror(storage, search.spec)
        assert counterpart.count == 8
    trials = shown(storage)
    assert [each.state for each in trials] == [
        *(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.PRUNED),
        *[TrialState.RUNNING] * 4,
    ]
    assert [each.values for each in trials[:4]] == [[0.8], [0.95], None, None]
    assert [each.intermediate_values for each in trials[:4]] == [
        *({1: 0.9, 2: 0.8}, {1: 0.95}, {1: 0.7}, {1: 0.6}),
    ]


def test_what_is_written_reads_back_as_what_optuna_would_have_written(
    storage: RDBStorage, search: Search
) -> None:
    later = replace(search.outcomes[0], finished_at=MOMENT + timedelta(seconds=90))
    search.outcomes[0] = ended(later, RunState.COMPLETE, 0.1 + 0.2, 1e-300)
    search.outcomes[1] = ended(later, RunState.PRUNED, 0.95)
    search.outcomes[1] = replace(search.outcomes[1], number=1)
    Mirror(storage, search.spec).show(search.outcomes)
    spaces = memory.distributions(search.spec)
    theirs = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "theirs")
    for outcome in search.outcomes:
        storage.create_new_trial(theirs, memory.frozen(outcome, spaces, search.spec.goal))
    for one, other in zip(shown(storage), storage.get_all_trials(theirs), strict=True):
        assert one.datetime_start == MOMENT.astimezone().replace(tzinfo=None)
        one._trial_id = other._trial_id
        assert one == other
        assert list(one.params) == list(other.params)


@pytest.mark.parametrize("count", range(8))
def test_trials_are_counted_however_many_there_are(
    storage: RDBStorage, search: Search, count: int
) -> None:
    Mirror(storage, search.spec).show(search.outcomes[:count])
    assert Mirror(storage, search.spec).count == count


def test_numbers_that_we_lack_are_those_of_trials_that_failed(
    storage: RDBStorage, search: Search
) -> None:
    Mirror(storage, search.spec).show([search.outcomes[each] for each in (1, 4)])
    assert [(each.number, each.state) for each in shown(storage)] == [
        (number, TrialState.RUNNING if number in (1, 4) else TrialState.FAIL) for number in range(5)
    ]


def test_trials_that_are_not_ours_do_not_wait_for_ever(storage: RDBStorage, search: Search) -> None:
    counterpart = Mirror(storage, search.spec)
    counterpart.show(search.outcomes[:2])
    study = optuna.load_study(study_name="s", storage=storage)
    study.ask()
    study.enqueue_trial({"gate": "frozen"})
    counterpart = Mirror(storage, search.spec)
    counterpart.abandon({0, 1})
    assert [each.state for each in shown(storage)] == [
        *[TrialState.RUNNING] * 2,
        *[TrialState.FAIL] * 2,
    ]


def test_a_name_that_optuna_has_already_is_refused(engine: Engine, storage: RDBStorage) -> None:
    optuna.create_study(storage=storage, study_name="taken")
    with pytest.raises(StudyError, match="already hold a study 'taken'"):
        mirror.check_free(optuna_url(engine), "taken")
    mirror.check_free(optuna_url(engine), "free")


def test_two_objectives_and_bounds_are_shown_as_optuna_has_them(storage: RDBStorage) -> None:
    bounds = {"constraints": ["usage_min >= 0.05", "parameters <= 200"]}
    both = {"objective": {"metrics": ["fvu", "parameters"]}, **bounds}
    search = Search({"search": SPACE, "sampler": {"name": "random"}, **both})
    search.ask(3)
    measured = {"validation__fvu": 0.5, "validation__usage_min": 0.04, "parameters": 100.0}
    search.end(0, 0.5, **measured)
    search.end(1, None, RunState.PRUNED, **measured)
    counterpart = Mirror(storage, search.spec)
    for _ in range(2):  # again after a crash
        counterpart.show(search.outcomes)
    made = optuna.load_study(study_name="s", storage=storage)
    assert [each.name for each in made.directions] == ["MINIMIZE", "MINIMIZE"]
    assert made.metric_names == ["fvu", "parameters"]
    first, second, third = made.trials
    assert (first.state, first.values) == (TrialState.COMPLETE, [0.5, 100.0])
    assert first.constraints == pytest.approx({"0": 0.2, "1": -0.5})
    assert (second.state, second.values) == (TrialState.PRUNED, None)
    assert second.constraints == {"0": 10.0, "1": 10.0}
    assert third.state is TrialState.RUNNING
    assert all(each.intermediate_values == {} for each in made.trials)
