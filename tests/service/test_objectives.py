"""Two objectives and constraints, by a real worker and a real coordinator."""

import json

import optuna
import pytest
import torch
from optuna.trial import TrialState

from cubeopt import trial
from cubeopt.db import records
from cubeopt.db.engine import optuna_url
from cubeopt.db.tables import RunKind, RunState, StudyState
from cubeopt.lattice.cube import Cube
from cubeopt.report import summary
from cubeopt.search import mirror
from cubeopt.search.fronts import dominates

from .conftest import coordinating

SEARCH = {
    "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
    "state_size": {"choices": [4, 8, 16]},
}
NONE = {"epochs": [1, 2], "rule": "none"}


@pytest.fixture
def weights(tiny_study):
    """Of a trial, by its state size."""

    def count(size):
        spec = trial.from_flat({**tiny_study["base"], "state_size": size})
        return Cube(spec.shape, torch.device("cpu")).layout.count

    return {size: count(size) for size in (4, 8, 16)}


@pytest.fixture
def shown(engine):
    """Optuna's trials of the study "tiny"."""

    def trials():
        storage = mirror.open_storage(optuna_url(engine))
        try:
            return optuna.load_study(study_name="tiny", storage=storage).trials
        finally:
            storage.engine.dispose()

    return trials


def summarized(engine):
    found = summary.load(engine, "tiny")
    return found, summary.summarize(found.study, found.trials, found.runs, found.measured)


def test_a_study_with_two_objectives_from_the_rungs_to_the_front(
    engine, create, work, weights, shown
):
    record = create(
        search=SEARCH,
        objective={"metrics": ["fvu", "parameters"]},
        rungs={"epochs": [1, 2], "reduction_factor": 1.5},
        promotion={"top": 2},
        budget={"trials": 9},
    )
    assert (record.metric, record.direction) == ("fvu", "minimize")
    assert record.baselines["second"] == {}
    with coordinating(engine):
        work()
    found, short = summarized(engine)
    assert short.state == StudyState.COMPLETE
    points = {}
    for run in found.runs:
        metrics = found.measured[run.id]
        assert metrics["parameters"] == weights[run.spec["state_size"]]
        if run.state is RunState.COMPLETE:  # the full run, which comes later, counts
            points[run.trial_number] = (run.value, metrics["parameters"])
    front = {n: p for n, p in points.items() if not any(dominates(q, p) for q in points.values())}
    assert {each.trial: (each.value, each.second_value) for each in short.front} == front
    assert [each.value for each in short.front] == sorted(each.value for each in short.front)
    assert short.best is None
    full = [run for run in found.runs if run.kind is RunKind.FULL]
    assert len(full) == 2
    complete = [r for r in found.runs if r.kind is RunKind.SHORT and r.state is RunState.COMPLETE]
    ends = {r.trial_number: (r.value, weights[r.spec["state_size"]]) for r in complete}
    for run in full:  # both from the first front, which has at least two
        own = ends[run.trial_number]
        assert not any(dominates(other, own) for other in ends.values())
    for ours, theirs in zip(records.trials(engine, record.id), shown(), strict=True):
        assert theirs.values == [ours.value, weights[ours.params["state_size"]]]
        assert theirs.state.name.lower() == ours.state
        assert theirs.intermediate_values == {}
    json.dumps(short.as_json(), allow_nan=False)


def test_a_trial_that_breaks_a_constraint_ends_complete_but_never_best(
    engine, create, work, weights, shown
):
    """The large cubes learn faster, so without the constraint one of them would win."""
    bound = weights[8]
    record = create(
        search={**SEARCH, "learning_rate": {"low": 1e-2, "high": 2e-2}},
        constraints=[f"parameters <= {bound}", "usage_min >= 0.01"],
        sampler={"name": "grid", "points": {"learning_rate": 2}},
        rungs=NONE,
        budget={"trials": 6},
    )
    with coordinating(engine):
        work()
    found, short = summarized(engine)
    large = [each.number for each in found.trials if each.params["state_size"] == 16]
    assert len(large) == 2
    assert short.trials["complete"] == 6
    assert short.infeasible == large
    assert f"trials {large[0]} and {large[1]} break a constraint" in short.warnings
    assert short.best is not None
    (full,) = [run for run in found.runs if run.kind is RunKind.FULL]
    values = {each.number: each.value for each in found.trials if each.number not in large}
    assert full.trial_number == short.best.trial == min(values, key=values.get)
    for theirs in shown():
        assert theirs.state is TrialState.COMPLETE
        over, usage = theirs.system_attrs["constraints"]
        assert over == pytest.approx(weights[theirs.params["state_size"]] / bound - 1.0)
        assert usage < 0.0
    assert records.study(engine, record.name).state is StudyState.COMPLETE


def test_a_rung_ends_a_trial_that_costs_too_much_and_says_so_to_optuna(
    engine, create, work, weights, shown
):
    create(
        search={**SEARCH, "state_size": {"choices": [4, 16]}},
        constraints=[f"parameters <= {weights[4]}"],
        sampler={"name": "grid", "points": {"learning_rate": 3}},
        rungs={"epochs": [1, 2], "reduction_factor": 1.001, "min_trials": 6},
        budget={"trials": 6},
    )
    with coordinating(engine):
        work(pack=1)
    found, short = summarized(engine)
    assert {(each.params["state_size"], each.state, each.epoch) for each in found.trials} == {
        *((4, RunState.COMPLETE, 2), (16, RunState.PRUNED, 1)),
    }
    assert short.best is not None
    for theirs in shown():
        (over,) = theirs.system_attrs["constraints"]
        assert (over > 0.0) == (theirs.params["state_size"] == 16)


def test_a_study_without_a_feasible_trial_says_which_came_nearest(engine, create, work, weights):
    record = create(
        search={**SEARCH, "learning_rate": {"low": 1e-2, "high": 2e-2}},
        constraints=["parameters <= 10"],
        sampler={"name": "grid", "points": {"learning_rate": 2}},
        rungs=NONE,
        budget={"trials": 6},
    )
    with coordinating(engine):
        work()
    study, (found, short) = records.study(engine, record.name), summarized(engine)
    small = min(each.number for each in found.trials if each.params["state_size"] == 4)
    nearest = (
        f"no trial meets the constraints; trial {small} comes nearest: it breaks parameters <= 10 "
        f"({weights[4]})"
    )
    assert (study.state, study.state_reason) == (
        StudyState.COMPLETE,
        f"all 6 trials have ended; {nearest}",
    )
    assert all(run.kind is RunKind.SHORT for run in found.runs)
    assert short.best is None
    assert nearest in short.warnings
