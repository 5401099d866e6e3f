"""What of a study is best: one trial, or with two objectives the front of those none dominates.

A trial counts by its full runs that have a result, over several seeds by their mean, or else by its
complete short run. One of which such a run breaks a constraint at its last epoch does not count.
"""

import heapq
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cubeopt.db.records import RunRecord, TrialRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.report import replicates
from cubeopt.report.replicates import Replicates
from cubeopt.search import fronts, rungs
from cubeopt.search.fronts import Losses
from cubeopt.search.objective import Goal, finite, key

Measured = Mapping[int, Mapping[str, Any]]  # by run id: metrics of its last validated epoch


@dataclass(frozen=True)
class Best:
    """The trial that a study would export; validation decides, the test value stands beside it."""

    trial: int
    kind: str
    epochs: int
    value: float  # over several seeds the mean, and so is the test value
    spread: float | None  # standard deviation over the seeds
    seeds: int  # with a result
    test_value: float | None
    params: dict[str, Any]


@dataclass(frozen=True)
class FrontRun(Best):
    """A trial on the front of a study with two objectives."""

    second_value: float  # over several seeds the mean, and so is its test value
    second_test_value: float | None  # of a cost: the same as its value


def best(
    goal: Goal,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    measured: Measured,
) -> Best | None:
    """The best promoted trial, else the best completed short run; of equals the earlier."""
    first = top(goal, trials, runs, measured, 1)
    return first[0] if first else None


def top(
    goal: Goal,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    measured: Measured,
    count: int,
) -> list[Best]:
    """The first *count* trials in the order that `best` goes by, of the first objective."""
    sign = 1.0 if goal.objective.direction == "minimize" else -1.0
    ranked = [
        ((each.rank, sign * each.value, number), each)
        for number, each in _feasible(goal, runs, measured).items()
        if each.value is not None
    ]
    first = heapq.nsmallest(count, ranked, key=lambda pair: pair[0])
    return [_best(trials, each) for _, each in first]


def front(
    goal: Goal,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    measured: Measured,
) -> list[FrontRun]:
    """With two objectives, the trials that no other dominates, from the best first value on.

    Of the promoted only those of the first rank: one that is not whole would stand there by luck.
    """
    if goal.objective.second is None:
        return []
    counting = _feasible(goal, runs, measured)
    points = {
        number: point
        for number, each in counting.items()
        if (point := _point(goal, each, measured)) is not None
    }
    first = min((counting[number].rank for number in points if counting[number].over), default=None)
    points = {
        number: point
        for number, point in points.items()
        if counting[number].over is None or counting[number].rank == first
    }
    found = []
    for number in fronts.first_front(points):
        one = _best(trials, counting[number])
        second, tested = _second(goal.objective.second, counting[number], measured)
        assert second is not None
        found.append(FrontRun(**vars(one), second_value=second, second_test_value=tested))
    return found


def of_trial(trials: Sequence[TrialRecord], runs: Sequence[RunRecord], number: int) -> Best | None:
    """What trial *number* counts by, feasible or not; None without a result."""
    each = _counting(runs).get(number)
    return None if each is None or each.value is None else _best(trials, each)


def nearest(goal: Goal, runs: Sequence[RunRecord], measured: Measured) -> str | None:
    """Which trial breaks the constraints least, where all that are complete break some.

    Of several seeds the one counts that breaks them most.
    """
    if not goal.constraints:
        return None
    results = {
        number: (each.value, _worst(goal, each, measured))
        for number, each in _counting(runs).items()
    }
    return rungs.nearest(goal, results)


def infeasible(goal: Goal, runs: Sequence[RunRecord], measured: Measured) -> list[int]:
    """The trials of which a run that they count by breaks a constraint."""
    if not goal.constraints:
        return []
    counting = _counting(runs)
    return [n for n, each in counting.items() if not goal.feasible(_worst(goal, each, measured))]


def reached(run: RunRecord, measured: Measured) -> Mapping[str, Any]:
    """The metrics that *run* is judged by; none where it has no result, as after it diverged."""
    return measured.get(run.id, {}) if finite(run.value) is not None else {}


def second_value(goal: Goal, metrics: Mapping[str, Any]) -> float | None:
    return finite(metrics.get(key(goal.objective.second))) if goal.objective.second else None


@dataclass(frozen=True)
class _Counted:
    """What a trial counts by."""

    runs: list[RunRecord]  # its full runs with a result, by replicate, or else its short run
    over: Replicates | None  # what the full runs are together

    @property
    def value(self) -> float | None:
        return self.over.value if self.over else finite(self.runs[0].value)

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Who is promoted comes first, then who is whole.

        A mean without the seed that diverged is one over lucky seeds, a mean of fewer one of luck.
        """
        if self.over is None:
            return True, False, False
        return False, bool(self.over.diverged), not self.over.whole


def _counting(runs: Sequence[RunRecord]) -> dict[int, _Counted]:
    """What each trial counts by, by trial number; without those that have nothing yet."""
    found = {
        run.trial_number: _Counted([run], None)
        for run in runs
        if run.kind == RunKind.SHORT and run.state == RunState.COMPLETE
    }
    for number, full in replicates.by_trial(runs).items():
        if done := replicates.complete(full, number):
            (over,) = replicates.replicates(full)
            found[number] = _Counted(done, over)
    return dict(sorted(found.items()))


def _feasible(goal: Goal, runs: Sequence[RunRecord], measured: Measured) -> dict[int, _Counted]:
    return {
        number: each
        for number, each in _counting(runs).items()
        if goal.feasible(_worst(goal, each, measured))
    }


def _best(trials: Iterable[TrialRecord], each: _Counted) -> Best:
    run, over, value = each.runs[0], each.over, each.value
    assert value is not None
    (params,) = [trial.params for trial in trials if trial.number == run.trial_number]
    return Best(
        trial=run.trial_number,
        kind=str(run.kind),
        epochs=over.epochs if over else run.epoch,
        value=value,
        spread=over.spread if over else None,
        seeds=len(each.runs),
        test_value=over.test_value if over else finite(run.test_value),
        params=params,
    )


def _worst(goal: Goal, each: _Counted, measured: Measured) -> Mapping[str, Any]:
    """The metrics of the run that breaks the constraints most."""
    return max((reached(run, measured) for run in each.runs), key=goal.violation)


def _point(goal: Goal, each: _Counted, measured: Measured) -> Losses | None:
    """The mean of both objectives such that less is better; None unless each run has both."""
    points = [goal.losses(reached(run, measured)) for run in each.runs]
    known = [point for point in points if point is not None]
    if len(known) < len(points):
        return None
    first, second = (statistics.fmean(losses) for losses in zip(*known, strict=True))
    return first, second


def _second(name: str, each: _Counted, measured: Measured) -> tuple[float | None, float | None]:
    """The mean of the metric *name* over the runs, on the validation and on the test split."""
    names = key(name), key(name).replace("validation/", "test/")
    metrics = [reached(run, measured) for run in each.runs]
    value, tested = (_mean([finite(found.get(name)) for found in metrics]) for name in names)
    return value, tested


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all are known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
