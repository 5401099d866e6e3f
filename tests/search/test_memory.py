"""What a sampler knows: the trials of the tables, and what it wrote beside them."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cubeopt.db.outcomes import Wish
from cubeopt.db.tables import RunState
from cubeopt.search import memory
from cubeopt.search.space import Point

from .conftest import MOMENT, Search, prior

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


def _point(number: int) -> Point:
    return {
        "learning_rate": 1e-4 * (1 + number),
        "similarity_weight": number / 20,
        "state_size": 8 if number % 2 else 16,
    }


LEARNING = [
    {"name": "tpe", "startup_trials": 5},
    {"name": "gp", "startup_trials": 5, "deterministic": True},
    {"name": "mfgp", "startup_trials": 5},
    {"name": "nsgaii", "population": 4},
]
learning = pytest.mark.parametrize("sampler", LEARNING, ids=lambda sampler: sampler["name"])


def _taught(sampler: dict[str, Any]) -> Search:
    search = _search(**sampler)
    search.teach(
        *(prior(each, search.spec, 0.5 + each / 20, **_point(each)) for each in range(7)),
        prior(7, search.spec, None, **_point(7)),
        prior(8, search.spec, 0.0, learning_rate=0.5, similarity_weight=0.5),  # outside
    )
    return search


def test_priors_come_before_the_trials_of_the_study_which_keep_their_numbers() -> None:
    search = _taught({"name": "tpe"})
    asked = search.ask(3)
    assert [number for number, _ in asked] == [0, 1, 2]
    assert (search.memory.asked, search.memory.open) == (3, {0, 1, 2})
    search.end(1, 0.25)
    for _ in range(2):
        trials = _trials(search)
        states = [TrialState.COMPLETE] * 7 + [TrialState.PRUNED, TrialState.FAIL]
        assert [each.state for each in trials] == [
            *states,
            *(TrialState.RUNNING, TrialState.COMPLETE, TrialState.RUNNING),
        ]
        assert [each.params for each in trials[:8]] == [_point(each) for each in range(8)]
        assert [each.value for each in trials[:8]] == [
            *(pytest.approx(0.5 + each / 20) for each in range(7)),
            None,
        ]
        assert (trials[8].params, trials[10].value) == ({}, 0.25)
        assert (trials[10].params, trials[10].intermediate_values) == (asked[1][1], {1: 0.25})
        search.restart()


@learning
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_sampler_that_was_taught_proposes_at_once_and_the_same_after_a_restart(
    sampler: dict[str, Any],
) -> None:
    """The first point differs from what it would be at random: priors count for the startup."""

    def searched(restart: bool, search: Search) -> list[tuple[int, Point]]:
        asked = search.ask(2)
        search.end(0, 0.25)
        if restart:
            search.restart()
        return asked + search.ask(2)

    taught = searched(False, _taught(sampler))
    assert taught == searched(True, _taught(sampler))
    assert taught[0] != searched(False, _search(**sampler))[0]


def test_a_taught_tpe_begins_near_the_best_of_its_priors() -> None:
    """The loss is the distance from .8; without priors the first points are drawn anywhere."""

    def near(*numbers: int) -> float:
        search = Search(
            {
                "search": {"similarity_weight": {"low": 0.0, "high": 1.0}},
                "sampler": {"name": "tpe", "startup_trials": 10},
            }
        )
        values = [each / 40 for each in numbers]
        search.teach(
            *(
                prior(number, search.spec, abs(value - 0.8), similarity_weight=value)
                for number, value in enumerate(values)
            )
        )
        found = [point["similarity_weight"] for _, point in search.ask(8)]
        return sum(abs(each - 0.8) < 0.15 for each in found) / len(found)

    assert near(*range(40)) > 0.6 > near()


def test_a_point_that_only_a_prior_tried_is_still_to_be_had() -> None:
    search = Search(
        {"search": {"state_size": {"choices": [8, 16]}}, "sampler": {"name": "tpe"}},
    )
    search.teach(*(prior(each, search.spec, 0.5, state_size=(8, 16)[each]) for each in range(2)))
    assert sorted(point["state_size"] for _, point in search.ask(2)) == [8, 16]


NARROW = {
    "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
    "state_size": {"choices": [16, 32]},
}


def test_after_a_revision_only_what_fits_teaches_and_all_keep_their_numbers() -> None:
    search = _search(name="tpe", startup_trials=1)
    base = {"similarity_weight": 0.5}  # the default
    values = [
        {"learning_rate": 2e-3, "state_size": 16, **base},
        {"learning_rate": 2e-4, "state_size": 16, **base},  # outside
        {"learning_rate": 2e-3, "state_size": 8, **base},  # outside
        {"learning_rate": 3e-3, "state_size": 16, "similarity_weight": 0.25},  # another base
        {"learning_rate": 4e-3, "state_size": 16, **base},
    ]
    granted = search.ask(5, *(Wish(number, each) for number, each in enumerate(values)))
    assert [point for _, point in granted] == values
    search.end(0, 0.5)
    search.revise(search=NARROW)
    assert (search.memory.asked, search.memory.open) == (5, {1, 2, 3, 4})
    search.end(1, 0.1)
    search.end(4, 0.4)
    for _ in range(2):
        assert search.memory.open == {2, 3}
        first, *others, last = _trials(search)
        assert (first.state, first.params) == (
            TrialState.COMPLETE,
            {"learning_rate": 2e-3, "state_size": 16},
        )
        assert [(each.state, each.params) for each in others] == [(TrialState.FAIL, {})] * 3
        assert (last.value, last.params) == (0.4, {"learning_rate": 4e-3, "state_size": 16})
        search.restart()
    asked = search.ask(20)
    assert [number for number, _ in asked] == list(range(5, 25))
    assert all(set(point) == set(NARROW) for _, point in asked)
    assert {point["state_size"] for _, point in asked} == {16, 32}
    assert all(1e-3 <= point["learning_rate"] <= 1e-2 for _, point in asked)


@pytest.mark.parametrize(
    "sampler",
    [*LEARNING, {"name": "cmaes", "startup_trials": 1}, {"name": "random"}, {"name": "qmc"}],
    ids=lambda sampler: sampler["name"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_revised_memory_made_again_goes_on_as_the_one_before(sampler: dict[str, Any]) -> None:
    """Wider by a value, narrower in another; a first wish was made before and lies outside."""
    space = {
        "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
        "similarity_weight": SPACE["similarity_weight"],
        "dropout": {"low": 0.0, "high": 0.5},
        "state_size": {"choices": [8, 16, 32]},
    }

    def searched(restart: bool) -> tuple[list[tuple[int, Point]], list[Any]]:
        search = _search(**sampler)
        for number, _ in search.ask(12):
            search.end(number, 1.0 / (1 + number))
        search.ask(2)
        search.revise(search=space)
        wishes = (Wish(14, {"learning_rate": 1e-4}), Wish(15, {"dropout": 0.25}))
        asked = search.ask(4, *wishes)
        search.end(13, 0.75)
        search.end(14, 0.01)
        search.end(16, 0.02)
        if restart:
            search.restart()
        asked += search.ask(4)
        return asked, [(each.state, each.params, each.system_attrs) for each in _trials(search)]

    once, again = searched(False), searched(True)
    assert once[0] == again[0]
    fixed = [(state, params) for state, params, _ in again[1]]
    assert [(state, params) for state, params, _ in once[1]] == fixed
    assert again[0][0] == (14, {"learning_rate": 1e-4})
    assert again[0][1][1]["dropout"] == 0.25
    assert fixed[14] == (TrialState.FAIL, {})


def test_generations_begin_anew_with_the_trials_that_fit_a_revised_space() -> None:
    search = _search(name="nsgaii", population=4, seed=3)
    for number, _ in search.ask(6):
        search.end(number, 1.0 - 0.1 * number)
    search.ask(1)
    search.revise(search={**SPACE, "similarity_weight": {"low": 0.0, "high": 2.0}})
    search.ask(1)
    study = search.memory._study
    (parents,) = study._storage.get_study_system_attrs(study._study_id).values()
    assert sorted(parents) == [2, 3, 4, 5]
