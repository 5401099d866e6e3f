"""The sampler mfgp: it learns from rungs, spreads a batch, and takes every kind of value."""

import math
import statistics
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from cubeopt.search import proposals, space, study
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec
from cubeopt.search.surrogate import Observed, Surrogate, without_outliers

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def spec_of(search: dict[str, Any], **changes: Any) -> StudySpec:
    sampler = {"name": "mfgp", "startup_trials": 4, "candidates": 200}
    content = {"name": "mf", "search": search, "sampler": sampler, **changes}
    return study.parse(content, "mf.yaml")


RATES: dict[str, Any] = {
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "similarity_weight": {"low": 0.0, "high": 1.0},
}


class Told:
    """Optuna's memory, with trials that were tried by hand."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.study = optuna.create_study(direction=spec.objective.direction)

    def add(self, point: Point, reports: dict[int, float], state: TrialState) -> None:
        kinds = self.spec.distributions()
        self.study.add_trial(
            optuna.trial.create_trial(
                params=point,
                distributions={name: kinds[name] for name in point},
                intermediate_values=reports,
                state=state,
                value=reports[max(reports)] if state == TrialState.COMPLETE else None,
            )
        )

    def next(self, asked: int) -> Point:
        number = self.study.ask().number
        trial = self.study.get_trials(deepcopy=False)[number]
        return proposals.propose(self.study, trial, self.spec, asked, set(), None)


def far(point: Point) -> float:
    """The value of a point at the first rung: best at a rate of 1e-2."""
    return 1.0 + abs(math.log10(point["learning_rate"]) + 2.0)


def cut_at_the_first_rung(spec: StudySpec) -> Told:
    told = Told(spec)
    for number in range(16):
        point = {"learning_rate": 10 ** (-4 + 0.2 * number), "similarity_weight": 0.5}
        sign = 1.0 if spec.objective.direction == "minimize" else -1.0
        told.add(point, {1: sign * far(point)}, TrialState.PRUNED)
    return told


@pytest.mark.parametrize("metric", ["fvu", "cosine"])
def test_it_learns_from_trials_that_all_ended_at_the_first_rung(metric: str) -> None:
    told = cut_at_the_first_rung(spec_of(RATES, objective={"metric": metric}))
    rates = [math.log10(told.next(asked)["learning_rate"]) for asked in range(20, 25)]
    assert abs(statistics.median(rates) + 2.0) < 0.5


def test_until_enough_trials_came_to_a_rung_points_are_those_of_no_model() -> None:
    told = Told(spec_of(RATES))
    fresh = Told(spec_of(RATES))
    point = {"learning_rate": 1e-2, "similarity_weight": 0.5}
    for _ in range(3):
        told.add(point, {1: 0.5}, TrialState.PRUNED)
    assert told.next(7) == fresh.next(7)
    told.add(point, {1: 0.5}, TrialState.PRUNED)
    told.add(point, {1: 0.5}, TrialState.PRUNED)
    assert told.next(7) != fresh.next(7)


def test_the_seed_and_the_results_decide_every_point() -> None:
    first, again = (cut_at_the_first_rung(spec_of(RATES)).next(30) for _ in range(2))
    assert first == again
    other = spec_of(RATES, sampler={"name": "mfgp", "startup_trials": 4, "seed": 1})
    assert cut_at_the_first_rung(other).next(30) != first


def test_choices_counts_and_conditions_are_drawn_and_learned_from() -> None:
    spec = spec_of(
        {
            "state_size": {"choices": [32, 64, 128]},
            "lattice_steps": {"low": 4, "high": 9},
            "halting": {"choices": ["fixed", "threshold"]},
            "halting_threshold": {"low": 0.01, "high": 1.0, "when": {"halting": ["threshold"]}},
        }
    )
    told = Told(spec)
    found = []
    for asked in range(24):
        point = told.next(asked)
        assert space.whole(spec.search, point)
        spec.trial(point, asked)
        found.append(point)
        told.add(point, {1: float(point["state_size"] != 64)}, TrialState.PRUNED)
    assert [point["state_size"] for point in found[-6:]].count(64) >= 4


def test_a_trial_that_diverged_at_once_is_as_bad_as_the_worst() -> None:
    told = Told(spec_of(RATES))
    for number in range(12):
        rate = 10 ** (-4 + 0.25 * number)
        reports = {} if rate > 1e-2 else {1: 1.0 - 0.01 * number}
        told.add({"learning_rate": rate, "similarity_weight": 0.5}, reports, TrialState.PRUNED)
    rates = [told.next(asked)["learning_rate"] for asked in range(20, 25)]
    assert statistics.median(rates) < 3e-2


def line(*places: float) -> np.ndarray:
    return np.array(places)[:, None]


def test_the_model_comes_near_what_it_was_told_and_is_unsure_far_away() -> None:
    places = line(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    values = np.array([3.0, 2.0, 1.0, 1.0, 2.0, 3.0])
    model = Surrogate(Observed(places, np.zeros(6), values))
    assert model.expected(places, 0.0) == pytest.approx(values, abs=0.2)
    _, deviation = model._predict(line(0.2, 3.0), 0.0)
    assert deviation[1] > 3.0 * deviation[0]


def test_later_epochs_follow_the_shared_trend_and_the_order_of_the_first() -> None:
    places = line(0.0, 0.25, 0.5, 0.75, 1.0, 0.0, 0.25)
    epochs = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5])
    values = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 0.5, 0.6])
    model = Surrogate(Observed(places, epochs, values))
    late = model.expected(line(0.0, 0.25, 0.5, 0.75, 1.0), 0.5)
    assert (np.diff(late) > 0).all()
    assert late[-1] < 1.2  # never seen late, but all curves fall


def test_a_point_that_is_being_tried_promises_less() -> None:
    places = line(0.0, 0.3, 1.0)
    model = Surrogate(Observed(places, np.zeros(3), np.array([1.0, 0.5, 1.0])))
    before = model.improvement(line(0.5), 0.0)
    model.believe(line(0.5), 0.0)
    assert model.improvement(line(0.5), 0.0) < 0.5 * before


def test_outliers_and_nan_become_the_worst_that_is_usual() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 1e9, np.nan])
    # Of the finite: median 3.5, quartiles 2.25 and 4.75.
    assert without_outliers(values)[-2:] == pytest.approx([3.5 + 3.0 * 2.5] * 2)
    assert list(without_outliers(np.full(2, np.nan))) == [0.0, 0.0]
