"""What a sampler knows: the trials of the tables, and what it wrote beside them."""

from typing import Any

import optuna
import pytest
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


def _trials(search: Search) -> list[Any]:
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
    states = [each.state for each in _trials(search)]
    assert states == [
        *(TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE),
        *(TrialState.PRUNED, TrialState.RUNNING, TrialState.RUNNING),
    ]


def test_an_outcome_is_frozen_to_the_bit() -> None:
    search = _search()
    ((_, point),) = search.ask(1)
    search.end(0, 0.1 + 0.2)
    frozen = memory.frozen(
        search.outcomes[0], memory.distributions(search.spec), search.spec.goal, {"a": 1}
    )
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


def _both(sampler: dict[str, Any], **changes: Any) -> Search:
    search = {"similarity_weight": {"low": 0.0, "high": 1.0}, "dropout": {"low": 0.0, "high": 0.9}}
    return Search({"search": search, "sampler": sampler, **changes})


BOTH = {"objective": {"metrics": ["fvu", "parameters"]}}


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "tpe", "startup_trials": 4},
        {"name": "gp", "startup_trials": 4},
        {"name": "nsgaii", "population": 4},
        {"name": "random"},
        {"name": "qmc"},
    ],
    ids=lambda sampler: sampler["name"],
)
def test_two_objectives_are_told_as_two_values_and_every_sampler_goes_on(
    sampler: dict[str, Any],
) -> None:
    search = _both(sampler, **BOTH)
    for _ in range(4):
        for number, point in search.ask(3):
            fvu = point["dropout"]
            if number % 3 == 2:
                search.end(number, 0.9, RunState.PRUNED, validation__fvu=0.9, parameters=50.0)
            elif number == 4:
                search.end(number, None, RunState.PRUNED, validation__fvu=0.9, parameters=50.0)
            else:
                search.end(number, fvu, validation__fvu=fvu, parameters=100.0 * number)
    first, _, pruned, _, diverged = _trials(search)[:5]
    assert (first.state, first.values) == (TrialState.COMPLETE, [first.params["dropout"], 0.0])
    assert (pruned.state, pruned.values) == (TrialState.PRUNED, [0.9, 50.0])
    assert (diverged.state, diverged.values) == (TrialState.PRUNED, None)
    assert all(each.intermediate_values == {} for each in _trials(search))
    assert first.number in {each.number for each in search.memory._study.best_trials}


def test_optunas_tpe_takes_no_intermediate_values_beside_two_objectives() -> None:
    """Why `curve` has none; if this fails, it may."""
    made = optuna.create_study(
        directions=["minimize"] * 2, sampler=optuna.samplers.TPESampler(n_startup_trials=1)
    )
    space = {"x": optuna.distributions.FloatDistribution(0.0, 1.0)}
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        trial = made.ask(space)
        made._storage.set_trial_intermediate_value(trial._trial_id, 1, 0.5)
        made._storage.set_trial_state_values(trial._trial_id, state, [0.5, 0.5])
    with pytest.raises(RuntimeError, match="single direction cannot be retrieved"):
        made.ask(space)


@pytest.mark.parametrize(
    ("sampler", "asked"),
    [
        ({"name": "tpe", "startup_trials": 10}, 40),
        ({"name": "gp", "startup_trials": 10, "deterministic": True}, 16),
        ({"name": "nsgaii", "population": 10}, 60),
    ],
    ids=lambda given: given["name"] if isinstance(given, dict) else "",
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("objective", [{"metric": "fvu"}, {"metrics": ["fvu", "parameters"]}])
def test_proposals_move_out_of_the_region_that_breaks_a_constraint(
    sampler: dict[str, Any], asked: int, objective: dict[str, Any]
) -> None:
    """fvu falls with the dropout, but from .5 on the constraint is broken, if there is one.

    With two objectives the second rises as the first falls, so that nothing else speaks against it.
    """

    def last(**constraints: Any) -> float:
        search, found = _both(sampler, objective=objective, **constraints), []
        for _ in range(asked):
            ((number, point),) = search.ask(1)
            usage = 1.0 - point["dropout"]
            measured = {"validation__fvu": usage, "parameters": 100.0 - usage}
            search.end(number, usage, validation__usage_min=usage, **measured)
            found.append(point["dropout"] <= 0.5)
        newest = found[-asked // 3 :]
        return sum(newest) / len(newest)

    feasible, regardless = last(constraints=["usage_min >= 0.5"]), last()
    assert feasible >= 0.5
    assert feasible - regardless > 0.15


def test_a_memory_has_how_far_a_trial_is_beyond_each_bound_also_when_made_again() -> None:
    bounds = ["usage_min >= 0.05", "parameters <= 200"]
    search = _both({"name": "random"}, constraints=bounds)
    search.ask(3)
    search.end(0, 0.5, validation__usage_min=0.04, parameters=100.0)
    search.end(1, None, RunState.PRUNED, validation__usage_min=0.5, parameters=100.0)
    for _ in range(2):
        first, second, third = _trials(search)
        assert first.system_attrs["constraints"] == pytest.approx([0.2, -0.5])
        assert first.constraints == pytest.approx({"0": 0.2, "1": -0.5})
        assert second.constraints == {"0": 10.0, "1": 10.0}  # it diverged: nothing is known of it
        assert "constraints" not in third.system_attrs
        search.restart()
