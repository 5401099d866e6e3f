"""What a study will ask for, against counts made by hand."""

import math
from typing import Any

import pytest

from cubeopt.search import forecast, study


def spec(tiny_study: dict[str, Any], **values: Any) -> study.StudySpec:
    return study.parse({**tiny_study, **values}, "the test's file")


def test_without_a_rule_every_trial_goes_through_all_rungs(tiny_study: dict[str, Any]) -> None:
    given = {"rungs": {"epochs": [1, 2, 4], "rule": "none"}, "budget": {"trials": 7}}
    found = forecast.epochs(spec(tiny_study, **given, promotion={"top": 2}))
    assert found.reaching == (7.0, 7.0, 7.0)
    assert (found.unpruned, found.pruned) == (28, 28.0)
    assert found.full == 2 * (6 - 4)


def test_one_in_three_of_many_goes_on(tiny_study: dict[str, Any]) -> None:
    rungs = {"epochs": [1, 2, 4], "rule": "asha", "reduction_factor": 3.0}
    found = forecast.epochs(spec(tiny_study, rungs=rungs, budget={"trials": 1000}))
    first, second, third = found.reaching
    assert first == 1000
    # A trial is judged when it comes, by those that came before.
    assert second == pytest.approx(1000 / 3, rel=0.03)
    assert third == pytest.approx(second / 3, rel=0.05)
    assert found.pruned == pytest.approx(first + second + 2 * third)
    assert found.unpruned == 4000


def test_two_objectives_let_some_more_go_on_since_both_ends_of_a_front_are_equally_good(
    tiny_study: dict[str, Any],
) -> None:
    rungs = {"epochs": [1, 2, 4], "rule": "asha", "reduction_factor": 3.0}
    given = {"rungs": rungs, "budget": {"trials": 200}}
    one = forecast.epochs(spec(tiny_study, **given))
    both = {"metrics": ["fvu", "parameters"]}
    two = forecast.epochs(spec(tiny_study, **given, objective=both, constraints=["fvu <= 0.5"]))
    assert two.reaching[0] == 200
    assert one.reaching[1] < two.reaching[1] < 1.2 * one.reaching[1]
    assert one.reaching[2] < two.reaching[2]
    assert two.unpruned == 800


def test_nobody_is_cut_before_enough_have_come(tiny_study: dict[str, Any]) -> None:
    rungs = {"epochs": [1, 3], "rule": "asha", "reduction_factor": 2.0, "min_trials": 5}
    found = forecast.epochs(spec(tiny_study, rungs=rungs, budget={"trials": 4}))
    assert found.reaching == (4.0, 4.0)


def test_a_study_of_more_trials_than_are_simulated_is_scaled(
    tiny_study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_SIMULATED", 50)
    few, many = (
        forecast.epochs(spec(tiny_study, budget={"trials": trials})) for trials in (50, 500)
    )
    assert many.reaching == tuple(pytest.approx(10 * each) for each in few.reaching)


def test_more_are_promoted_than_there_are_trials(tiny_study: dict[str, Any]) -> None:
    found = forecast.epochs(spec(tiny_study, budget={"trials": 3}, promotion={"top": 9}))
    assert found.full == 3 * (6 - spec(tiny_study).short_epochs)


def test_shapes_have_the_shares_in_which_they_are_drawn(tiny_study: dict[str, Any]) -> None:
    search = {"state_size": {"choices": [4, 8]}, "lattice_steps": {"low": 2, "high": 4}}
    found = forecast.shapes(spec(tiny_study, search=search, budget={"trials": 200}))
    assert len(found) == 6
    assert math.isclose(sum(each.share for each in found), 1.0)
    assert all(0.05 < each.share < 0.3 for each in found)
    assert [each.share for each in found] == sorted((e.share for e in found), reverse=True)
    assert {(e.shape.state_size, e.shape.lattice_steps) for e in found} == {
        (size, steps) for size in (4, 8) for steps in (2, 3, 4)
    }


def test_the_shapes_of_a_grid_are_counted_and_so_are_its_trials(tiny_study: dict[str, Any]) -> None:
    search = {"state_size": {"choices": [4, 8]}, "lattice_steps": {"choices": [2, 3]}}
    grid = spec(tiny_study, search=search, sampler={"name": "grid"}, budget={"trials": 50})
    assert [each.share for each in forecast.shapes(grid)] == [0.25] * 4
    assert forecast.epochs(grid).unpruned == 4 * grid.short_epochs


def test_a_value_that_only_some_trials_have_counts_where_it_is_there(
    tiny_study: dict[str, Any],
) -> None:
    search = {
        "gate": {"choices": ["learned", "frozen"]},
        "state_size": {"choices": [8, 16], "when": {"gate": ["frozen"]}},
        "learning_rate": {"low": 1e-3, "high": 1e-2},
    }
    found = forecast.shapes(spec(tiny_study, search=search))
    shares = {(each.shape.gate, each.shape.state_size): each.share for each in found}
    assert set(shares) == {("learned", 4), ("frozen", 8), ("frozen", 16)}
    assert 0.4 < shares["learned", 4] < 0.6


def test_a_search_without_sizes_has_the_shape_of_its_base(tiny_study: dict[str, Any]) -> None:
    given = spec(tiny_study)
    (found,) = forecast.shapes(given)
    assert (found.shape, found.share) == (given.base_trial.shape, 1.0)


FACTOR = {"promotion": {"reduction_factor": 2.0}, "rungs": {"epochs": [2], "rule": "none"}}


def test_a_budget_of_epochs_ends_the_trials(tiny_study: dict[str, Any]) -> None:
    rungs = {"epochs": [1, 2, 4], "rule": "none"}
    found = forecast.epochs(spec(tiny_study, rungs=rungs, budget={"epochs": 30}))
    assert (found.trials, found.ends) == (8.0, "epochs")  # seven whole ones and one of two epochs
    assert (found.pruned, found.full) == (30.0, 0.0)  # nobody is promoted before all have ended
    within = forecast.epochs(spec(tiny_study, rungs=rungs, budget={"trials": 5, "epochs": 30}))
    assert (within.trials, within.ends, within.pruned, within.full) == (5.0, "trials", 20.0, 2.0)
    tight = forecast.epochs(spec(tiny_study, rungs=rungs, budget={"trials": 5, "epochs": 21}))
    assert (tight.trials, tight.ends, tight.pruned, tight.full) == (5.0, "epochs", 20.0, 1.0)


def test_of_several_limits_the_tightest_ends_it(tiny_study: dict[str, Any]) -> None:
    given = spec(
        tiny_study, rungs={"epochs": [3], "rule": "none"}, budget={"epochs": 30, "hours": 1.0}
    )
    assert forecast.epochs(given, {"hours": 12.0}).ends == "hours"
    assert forecast.epochs(given, {"hours": 12.0}).trials == 4.0
    assert forecast.epochs(given, {"hours": 40.0}).ends == "epochs"


def test_more_epochs_than_are_simulated_are_scaled(
    tiny_study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "_SIMULATED", 50)
    given = spec(tiny_study, rungs={"epochs": [3], "rule": "none"}, budget={"epochs": 3000})
    assert forecast.epochs(given).trials == pytest.approx(1000)


def test_by_a_factor_at_least_one_in_so_many_is_promoted(tiny_study: dict[str, Any]) -> None:
    found = forecast.epochs(spec(tiny_study, **FACTOR, budget={"trials": 100}))
    # As results come, some are promoted who are not among the best in the end.
    assert 50 * (6 - 2) <= found.full <= 100 * (6 - 2)
    assert found.ends == "trials"
    one = forecast.epochs(spec(tiny_study, **FACTOR, budget={"trials": 1}))
    assert one.full == 0.0


def test_each_further_seed_is_a_whole_full_run(tiny_study: dict[str, Any]) -> None:
    rungs = {"epochs": [2], "rule": "none"}
    found = forecast.epochs(spec(tiny_study, rungs=rungs, promotion={"top": 2, "seeds": 3}))
    assert found.full == 2 * ((6 - 2) + 2 * 6)


def test_patience_lets_more_go_on(tiny_study: dict[str, Any]) -> None:
    rungs = {"epochs": [1, 2, 3, 4], "rule": "asha", "reduction_factor": 2.0}
    found = [
        forecast.epochs(spec(tiny_study, rungs={**rungs, "patience": n}, budget={"trials": 60}))
        for n in (0, 1, 2)
    ]
    assert found[1].reaching[1] == 60.0  # the first failure is forgiven
    assert found[2].reaching[:3] == (60.0, 60.0, 60.0)
    assert found[0].pruned < found[1].pruned < found[2].pruned < 240
