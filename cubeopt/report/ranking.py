"""What of a study is best: one run, or with two objectives the front of those none dominates.

A trial counts by its newest complete run: its full run, or else its short one. One that breaks a
constraint at that run's last epoch does not count.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cubeopt.db.records import RunRecord, TrialRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.search import fronts, rungs
from cubeopt.search.objective import Goal, finite, key

Measured = Mapping[int, Mapping[str, Any]]  # by run id: metrics of its last validated epoch


@dataclass(frozen=True)
class Best:
    """The run that a study would export; validation decides, the test value stands beside it."""

    trial: int
    kind: str
    epochs: int
    value: float
    test_value: float | None
    params: dict[str, Any]


@dataclass(frozen=True)
class FrontRun(Best):
    """A run on the front of a study with two objectives."""

    second_value: float
    second_test_value: float | None  # of a cost: the same as its value


def best(
    goal: Goal,
    trials: Sequence[TrialRecord],
    runs: Iterable[RunRecord],
    measured: Measured,
) -> Best | None:
    """The best full run, else the best short run; of equals the earlier trial."""
    counting = {
        number: run for number, run in _newest(runs).items() if _feasible(goal, run, measured)
    }
    sign = 1.0 if goal.objective.direction == "minimize" else -1.0
    for kind in (RunKind.FULL, RunKind.SHORT):
        values = {
            number: sign * value
            for number, run in counting.items()
            if run.kind == kind and (value := finite(run.value)) is not None
        }
        if values:
            chosen = counting[min(values, key=lambda number: (values[number], number))]
            return _best(chosen, trials)
    return None


def front(
    goal: Goal,
    trials: Sequence[TrialRecord],
    runs: Iterable[RunRecord],
    measured: Measured,
) -> list[FrontRun]:
    """With two objectives, the runs that no other dominates, from the best first value on."""
    if goal.objective.second is None:
        return []
    counting = {
        number: run for number, run in _newest(runs).items() if _feasible(goal, run, measured)
    }
    points = {
        number: losses
        for number, run in counting.items()
        if (losses := goal.losses(reached(run, measured))) is not None
    }
    found = []
    for number in fronts.first_front(points):
        run = counting[number]
        metrics = reached(run, measured)
        one = _best(run, trials)
        second = second_value(goal, metrics)
        assert second is not None
        tested = key(goal.objective.second).replace("validation/", "test/")
        tested_value = finite(metrics.get(tested))
        found.append(FrontRun(**vars(one), second_value=second, second_test_value=tested_value))
    return found


def of_trial(trials: Sequence[TrialRecord], runs: Iterable[RunRecord], number: int) -> Best | None:
    """The newest complete run of trial *number*, feasible or not."""
    run = _newest(runs).get(number)
    return None if run is None or finite(run.value) is None else _best(run, trials)


def nearest(goal: Goal, runs: Iterable[RunRecord], measured: Measured) -> str | None:
    """Which trial breaks the constraints least, where all that are complete break some."""
    results = {number: (run.value, reached(run, measured)) for number, run in _newest(runs).items()}
    return rungs.nearest(goal, results)


def infeasible(goal: Goal, runs: Iterable[RunRecord], measured: Measured) -> list[int]:
    """The trials whose newest complete run breaks a constraint."""
    return sorted(n for n, run in _newest(runs).items() if not _feasible(goal, run, measured))


def reached(run: RunRecord, measured: Measured) -> Mapping[str, Any]:
    """The metrics that *run* is judged by; none where it has no result, as after it diverged."""
    return measured.get(run.id, {}) if finite(run.value) is not None else {}


def second_value(goal: Goal, metrics: Mapping[str, Any]) -> float | None:
    return finite(metrics.get(key(goal.objective.second))) if goal.objective.second else None


def _newest(runs: Iterable[RunRecord]) -> dict[int, RunRecord]:
    """By trial, in order: the complete run that it counts by."""
    complete = [run for run in runs if run.state == RunState.COMPLETE]
    order = sorted(complete, key=lambda run: (run.trial_number, run.kind == RunKind.FULL))
    return {run.trial_number: run for run in order}


def _feasible(goal: Goal, run: RunRecord, measured: Measured) -> bool:
    return goal.feasible(reached(run, measured))


def _best(run: RunRecord, trials: Iterable[TrialRecord]) -> Best:
    assert run.value is not None
    (params,) = [trial.params for trial in trials if trial.number == run.trial_number]
    return Best(
        run.trial_number, str(run.kind), run.epoch, run.value, finite(run.test_value), params
    )
