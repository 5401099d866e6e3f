"""What a study is after, read strictly; and how far a result is beyond its bounds."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cubeopt.data import dataset
from cubeopt.errors import StudyError
from cubeopt.search import objective, study
from cubeopt.search.objective import Constraint, Goal, Objective, goal_of
from cubeopt.search.study import StudySpec
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun

BOTH = {"metrics": ["fvu", "parameters"]}


@pytest.fixture
def read(tiny_study: dict[str, Any]) -> Any:
    def parsed(**changes: Any) -> StudySpec:
        return study.parse({**tiny_study, **changes}, "tiny.yaml")

    return parsed


def test_one_objective_is_as_it_was(read: Any) -> None:
    spec = read(objective={"metric": "cosine"})
    assert spec.objective.names == ("cosine",)
    assert (spec.objective.direction, spec.objective.second) == ("maximize", None)
    assert read().goal == Goal(Objective(metric="fvu"))
    assert read().goal.keys == ()


def test_two_objectives_have_a_first_and_their_own_directions(read: Any) -> None:
    spec = read(objective={"metrics": ["effective_rank", "parameters"]})
    assert spec.objective.metric == "effective_rank"
    assert spec.objective.directions == ("maximize", "minimize")
    assert spec.goal.keys == ("validation/effective_rank", "parameters")
    assert spec.goal.losses({"validation/effective_rank": 3.0, "parameters": 70}) == (-3.0, 70.0)
    assert spec.goal.losses({"validation/effective_rank": None, "parameters": 70}) is None


def test_what_stands_in_the_storage_reads_back_as_the_same_study(read: Any) -> None:
    spec = read(objective=BOTH, constraints=["usage_min>=0.05", "parameters <= 200000"])
    stored = spec.model_dump(mode="json", exclude_none=True)
    assert stored["constraints"] == ["usage_min >= 0.05", "parameters <= 200000"]
    assert study.parse(stored, "storage") == spec
    assert goal_of(stored) == spec.goal
    assert goal_of({"name": "older"}) == Goal(Objective())


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"metrics": ["fvu", "paramters"]},
            "objective: no metric is called 'paramters'; did you mean 'parameters'?; there are "
            "fvu, cosine, top1, mrr, effective_rank, specialisation, parameters",
        ),
        ({"metrics": ["fvu"]}, "objective: metrics are two, as in [fvu, parameters], got ['fvu']"),
        ({"metrics": "fvu"}, "objective: metrics are two, as in [fvu, parameters], got 'fvu'"),
        (
            {"metrics": ["fvu", "fvu"]},
            "objective: metrics names fvu twice; for one, write metric: fvu",
        ),
        (
            {"metrics": ["parameters", "fvu"]},
            "objective: the first of two metrics is one of fvu, cosine, top1, mrr, effective_rank, "
            "specialisation; parameters can be the second",
        ),
        (
            {"metric": "cosine", "metrics": ["fvu", "parameters"]},
            "objective: give metric or metrics, not both",
        ),
    ],
)
def test_a_mistake_in_the_objective_is_one_line(
    read: Any, section: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError) as raised:
        read(objective=section)
    assert str(raised.value) == f"tiny.yaml: {said}"


FORM = "a constraint is a metric, >= or <=, and a number, as in 'usage_min >= 0.05', got"


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        (["usage_min > 0.05"], f"constraints.0: {FORM} 'usage_min > 0.05'"),
        (["fvu <= 1", "0.05 <= usage_min"], f"constraints.1: {FORM} '0.05 <= usage_min'"),
        (["usage_min >= nan"], f"constraints.0: {FORM} 'usage_min >= nan'"),
        (["usage_min >= 1e999"], f"constraints.0: {FORM} 'usage_min >= 1e999'"),
        (["usage_min >= 1.2.3"], f"constraints.0: {FORM} 'usage_min >= 1.2.3'"),
        ([0.05], f"constraints.0: {FORM} 0.05"),
        (
            ["usage_mim >= 0.05"],
            "constraints: no metric is called 'usage_mim'; did you mean 'usage_min'?",
        ),
        (
            ["zzz >= 0.05"],
            "constraints: no metric is called 'zzz'; there are cosine, effective_rank, fvu, "
            "gate_entropy, loss/diversity, loss/emergence, loss/lattice, loss/ponder, "
            "loss/reconstruction, loss/similarity, loss/spatial, mrr, parameters, specialisation, "
            "specialisation/cell, steps, top1, usage/distant, usage/functional, usage/local, "
            "usage_min",
        ),
        (
            ["fvu/nli <= 0.5"],  # this study has one task
            "constraints: no metric is called 'fvu/nli'; did you mean 'fvu'?",
        ),
        (
            ["steps >= 2", "steps >= 3"],
            "constraints: 'steps >= 2' and 'steps >= 3' are two bounds of one kind; give one",
        ),
        (
            ["parameters <= 10", "parameters >= 20"],
            "constraints: no trial can meet both 'parameters >= 20' and 'parameters <= 10'",
        ),
    ],
)
def test_a_mistake_in_a_constraint_is_one_line(
    read: Any, constraints: list[Any], said: str
) -> None:
    with pytest.raises(StudyError) as raised:
        read(constraints=constraints)
    assert str(raised.value) == f"tiny.yaml: {said}"


def test_cmaes_refuses_two_objectives(read: Any) -> None:
    with pytest.raises(StudyError) as raised:
        read(objective=BOTH, sampler={"name": "cmaes"})
    assert str(raised.value) == (
        "tiny.yaml: sampler cmaes takes one objective, not two (fvu and parameters); "
        "take tpe, gp or nsgaii"
    )


def test_excess_is_in_shares_of_the_bound_and_nothing_at_the_bound() -> None:
    low, high = Constraint("usage_min", True, 0.05), Constraint("parameters", False, 200.0)
    assert low.excess({"validation/usage_min": 0.04}) == pytest.approx(0.2)
    assert low.excess({"validation/usage_min": 0.05}) == 0.0
    assert low.excess({"validation/usage_min": 0.1}) == pytest.approx(-1.0)
    assert high.excess({"parameters": 300.0}) == 0.5
    assert Constraint("steps", False, 0.0).excess({"validation/steps": 2.0}) == 2.0
    assert low.excess({}) == low.excess({"validation/usage_min": None}) == 10.0


def test_a_violation_adds_up_only_what_is_beyond_and_is_said_in_words() -> None:
    goal = goal_of({"constraints": ["usage_min >= 0.05", "parameters <= 200", "steps <= 4"]})
    metrics = {"validation/usage_min": 0.04, "parameters": 300, "validation/steps": 1.0}
    assert goal.violation(metrics) == pytest.approx(0.7)
    assert not goal.feasible(metrics)
    assert goal.broken(metrics) == "usage_min >= 0.05 (0.04), parameters <= 200 (300)"
    assert goal.broken({**metrics, "parameters": None}).endswith("parameters <= 200 (none)")
    assert goal.feasible({**metrics, "validation/usage_min": 0.3, "parameters": 200})
    assert not goal.affordable(metrics)
    assert goal.affordable({"parameters": 200})  # whatever the gates do


@pytest.mark.parametrize("tasks", ["dialogue", ["reconstruct", "dialogue"]])
def test_a_constraint_may_name_what_an_epoch_reports_and_nothing_else(
    read: Any, tiny_study: dict[str, Any], tiny_dataset: Path, tasks: Any
) -> None:
    spec = read(base={**tiny_study["base"], "task": tasks})
    base = spec.base_trial
    feed = Feed(dataset.load(tiny_dataset), base.plan.task, torch.device("cpu"))
    run = PackRun(base.shape, 1, feed)
    run.fill(0, run.fresh(base))
    ends: list[Any] = []
    while not ends:
        ends = run.step()
    names = {name.removeprefix("validation/") for name in ends[0].metrics}
    known = objective.reported(base, spec.search)
    assert known <= names
    validation = {n for n in ends[0].metrics if n.startswith("validation/")}
    assert {objective.key(name) for name in known} == validation | {"parameters"}
    weights = sum(math.prod(each.shape) for each in run.cube.layout.parameters)
    assert ends[0].metrics["parameters"] == weights
