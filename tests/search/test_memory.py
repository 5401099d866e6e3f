"""What a sampler knows: the trials of the tables, and what it wrote beside them."""

from optuna.trial import TrialState

from cubeopt.db.outcomes import Wish
from cubeopt.db.tables import RunState
from cubeopt.search import memory
from cubeopt.search.space import Point

from .conftest import MOMENT, Search

SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "similarity_weight": {"low": 0.0, "high": 1.0},
    "state_size": {"choices": [8, 16]},
}


def _search(**sampler: object) -> Search:
    return Search({"search": SPACE, "sampler": sampler or {"name": "random"}})


def _trials(search: Search) -> list[object]:
    return search.memory._study.get_trials()


def test_a_memory_made_again_is_the_one_before() -> None:
    search = _search(name="tpe", startup_trials=2)
    asked = search.ask(6)
    search.end(3, 0.5)
    search.end(1, None, RunState.FAILED)
    search.end(0, 0.25, RunState.PRUNED)
    search.end(4, float("nan"), RunState.PRUNED)
    asked += search.ask(1)
    before, asked_for, unended = _trials(search), search.memory.asked, set(search.memory.open)
    search.restart()
    assert (search.memory.asked, search.memory.open) == (asked_for, unended) == (7, {2, 5, 6})
    for one, other in zip(before, _trials(search), strict=True):
        for name in ("number", "state", "values", "params", "distributions", "system_attrs"):
            assert getattr(one, name) == getattr(other, name), name
    states = [each.state for each in _trials(search)]  # type: ignore[attr-defined]
    assert states == [
        *(TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE),
        *(TrialState.PRUNED, TrialState.RUNNING, TrialState.RUNNING),
    ]


def test_an_outcome_is_frozen_to_the_bit() -> None:
    search = _search()
    ((_, point),) = search.ask(1)
    search.end(0, 0.1 + 0.2)
    frozen = memory.frozen(search.outcomes[0], memory.distributions(search.spec), {"a": 1})
    assert (frozen.params, frozen.value, frozen.intermediate_values) == (
        *(point, 0.1 + 0.2, {1: 0.1 + 0.2}),
    )
    assert (frozen.state, frozen.system_attrs) == (TrialState.COMPLETE, {"a": 1})
    assert frozen.datetime_start == MOMENT.astimezone().replace(tzinfo=None)


def test_numbers_that_are_not_ours_belong_to_trials_that_failed() -> None:
    search = _search()
    made = memory.Memory(search.spec, [], numbered=2)
    assert [each.number for each in made.ask(2)] == [2, 3]
    states = [each.state for each in made._study.get_trials()]
    assert states == [TrialState.FAIL] * 2 + [TrialState.RUNNING] * 2


def test_generations_keep_the_parents_they_were_bred_from_also_after_a_restart() -> None:
    """A trial of the first generation that ends late, and is better, changes no parents."""

    def searched(restart: bool) -> list[tuple[int, Point]]:
        search = _search(name="nsgaii", population=4, seed=3)
        for number, _ in search.ask(5)[:4]:
            search.end(number, 1.0 - 0.1 * number)
        search.ask(1)
        search.end(4, 0.0)
        if restart:
            search.restart()
        study = search.memory._study
        (parents,) = study._storage.get_study_system_attrs(study._study_id).values()
        assert sorted(parents) == [0, 1, 2, 3]
        return search.ask(8)

    assert searched(restart=True) == searched(restart=False)


def test_wishes_come_first_with_their_values_and_numbers() -> None:
    search = _search()
    search.ask(1)
    wishes = (Wish(1, {"similarity_weight": 0.625}), Wish(2, {"state_size": 16}))
    granted = search.ask(3, *wishes)
    assert [number for number, _ in granted] == [1, 2, 3]
    assert granted[0][1]["similarity_weight"] == 0.625
    assert granted[1][1]["state_size"] == 16
    assert all(set(point) == set(SPACE) for _, point in granted)
    again = _search()
    again.ask(1)
    again.restart()
    assert [*again.ask(1, *wishes), *again.ask(1, wishes[1]), *again.ask(1)] == granted
