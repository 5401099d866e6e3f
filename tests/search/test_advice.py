"""What a person is told of a study before it runs."""

from typing import Any

import pytest

from cubeopt.search import advice, study

RANGES = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 0.0, "high": 1.0},
}
COUNTS = {"lattice_steps": {"low": 2, "high": 4}, "state_size": {"choices": [8, 16]}}


def _notes(sampler: dict[str, Any], trials: int = 20, **changes: Any) -> list[str]:
    content = {"name": "s", "search": RANGES, "sampler": sampler, "budget": {"trials": trials}}
    return advice.notes(study.parse({**content, **changes}, "s.yaml"))


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes"])
def test_a_study_without_limits_has_no_notes(name: str) -> None:
    assert _notes({"name": name}) == []


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        (5, ["only 5 of them are tried, in an order that the seed decides"]),
        (6, []),
        (7, ["the grid has 6 points, budget.trials is 7: the study ends with the grid"]),
    ],
)
def test_a_grid_and_a_budget_that_differ_are_told(trials: int, said: list[str]) -> None:
    notes = _notes({"name": "grid"}, trials, search=COUNTS)
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_a_space_smaller_than_the_budget_is_told() -> None:
    said = "the space has 6 points, budget.trials is 20: when all were tried, points are repeated"
    assert _notes({"name": "random"}, search=COUNTS) == [said]


def test_choices_that_cmaes_has_no_model_for_are_told() -> None:
    search = {**RANGES, **COUNTS}
    said = "cmaes models numbers that every trial has; drawn at random: state_size (choices)"
    assert _notes({"name": "cmaes"}, search=search) == [said]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tpe", []),
        (
            "cmaes",
            [
                "cmaes models numbers that every trial has; drawn at random: halting (choices), "
                "halting_threshold (when)"
            ],
        ),
        (
            "gp",
            ["gp models values that every trial has; drawn at random: halting_threshold (when)"],
        ),
    ],
)
def test_values_with_a_condition_that_a_sampler_does_not_model_are_told(
    name: str, said: list[str]
) -> None:
    threshold = {"low": 0.1, "high": 1.0, "when": {"halting": ["threshold"]}}
    halting = {"choices": ["fixed", "threshold"]}
    search = {**RANGES, "halting": halting, "halting_threshold": threshold}
    assert _notes({"name": name}, search=search, rungs={"rule": "none"}) == said


@pytest.mark.parametrize("name", ["tpe", "cmaes", "mfgp"])
def test_a_budget_that_ends_before_the_sampler_begins_is_told(name: str) -> None:
    (note,) = _notes({"name": name, "startup_trials": 20})
    assert note == "sampler.startup_trials is 20, budget.trials is 20: all trials are random"


def test_a_generation_as_large_as_the_budget_is_told() -> None:
    (note,) = _notes({"name": "nsgaii"}, rungs={"rule": "none"})
    assert "until 50 trials are complete, budget.trials is 20: all trials are random" in note


@pytest.mark.parametrize(
    "sampler",
    [{"name": "gp"}, {"name": "nsgaii", "population": 5}, {"name": "cmaes", "pruned": False}],
)
def test_who_learns_nothing_from_pruned_trials_says_so(sampler: dict[str, Any]) -> None:
    (note,) = _notes(sampler)
    name = sampler["name"]
    assert note.startswith(f"{name} learns only from trials that reach epoch 5, not from those")
    assert _notes(sampler, rungs={"rule": "none"}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {"hours": 1.0}}, "promotion.top waits for the end of all trials, and without"),
        ({"budget": {"hours": 1.0}, "promotion": {"top": 0}}, None),
        ({"budget": {"hours": 1.0}, "promotion": {"reduction_factor": 4}}, None),
        (
            {"budget": {"trials": 3}, "promotion": {"reduction_factor": 4}},
            "promotion.reduction_factor is 4, but there are only 3 trials: none is promoted",
        ),
        (
            {"budget": {"epochs": 49}, "promotion": {"reduction_factor": 4}},
            "budget.epochs is 49, but one trial needs 50 to the end of its full run: none gets",
        ),
        ({"budget": {"trials": 20, "epochs": 50}}, None),
    ],
)
def test_a_promotion_that_comes_to_nothing_is_told(changes: Any, said: str | None) -> None:
    notes = _notes({"name": "random"}, **changes)
    assert len(notes) == (said is not None)
    assert said is None or notes[0].startswith(said)


def test_a_small_space_without_a_budget_of_trials_is_told() -> None:
    changes = {"budget": {"epochs": 500}, "promotion": {"top": 0}, "search": COUNTS}
    (note,) = _notes({"name": "random"}, **changes)
    assert note.startswith("the space has 6 points, and there is no budget.trials: when all were")
    assert _notes({"name": "grid"}, **changes) == []


def test_what_tpe_does_not_see_of_two_objectives_is_told() -> None:
    both = {"objective": {"metrics": ["fvu", "parameters"]}, "promotion": {"top": 3}}
    (note,) = _notes({"name": "tpe"}, **both)
    assert note == (
        "tpe with two objectives takes all trials that are pruned for equally bad; "
        "rungs.rule: none prunes nobody"
    )
    assert _notes({"name": "tpe"}, **both, rungs={"rule": "none"}) == []


@pytest.mark.parametrize("name", ["cmaes", "mfgp"])
def test_a_sampler_that_learns_but_not_from_constraints_is_told(name: str) -> None:
    bounds = {"constraints": ["usage_min >= 0.05"]}
    (note,) = _notes({"name": name}, **bounds)
    assert note == (
        f"{name} does not look at constraints: it learns from a trial that breaks one as from any "
        "other; tpe, gp and nsgaii keep away"
    )
    assert _notes({"name": "tpe"}, **bounds) == _notes({"name": "random"}, **bounds) == []


def test_that_one_end_of_a_front_is_promoted_is_told() -> None:
    both = {"objective": {"metrics": ["fvu", "parameters"]}, "rungs": {"rule": "none"}}
    (note,) = _notes({"name": "tpe"}, **both)
    assert note == (
        "promotion.top is 1: of the front of two objectives one end is carried on; let it be as "
        "many as the front shall have"
    )
    assert _notes({"name": "tpe"}, **both, promotion={"top": 0}) == []
