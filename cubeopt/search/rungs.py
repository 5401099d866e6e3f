"""Who goes on: prune below the cut of a rung, promote the best of the completed.

The default rule is asynchronous successive halving (Li et al. 2018, "A System for Massively
Parallel Hyperparameter Tuning", arXiv 1810.05934) in its stopping form: a trial is judged once,
when it arrives at a rung, against whoever arrived there before it, and nobody waits. With two
objectives results are compared by their place among the fronts (see `fronts`). Its promotion form
decides who is carried on to a full run.

Constraints: a rung does not ask for those on metrics, which may still be met later. One on a cost
no training mends, so who breaks it ends at the first rung, and nobody is compared with it.
A promotion takes only who meets all of them at the last rung.
"""

import itertools
import math
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cubeopt.search import fronts
from cubeopt.search.fronts import Losses
from cubeopt.search.objective import Goal
from cubeopt.search.study import Promotion, Rungs, better

Reached = tuple[float | None, Mapping[str, Any]]  # a value, and what the goal's keys name


@dataclass(frozen=True)
class Met:
    """A trial at one rung, and those it met there."""

    value: float
    metrics: Mapping[str, Any]  # what the goal's keys name
    others: Sequence[float]
    others_metrics: Sequence[Mapping[str, Any]]  # of the same; of use only if the goal has keys


@dataclass(frozen=True)
class Standing:
    """A trial at one rung, by one objective."""

    value: float
    others: Sequence[float]  # of the other trials at that rung


@dataclass(frozen=True)
class Place:
    """A trial at one rung, by two objectives."""

    point: Losses | None  # None: a result without both numbers
    others: Sequence[Losses]


def ends(rungs: Rungs, goal: Goal, epoch: int, here: Met, before: Sequence[Met] = ()) -> bool:
    """Whether a trial that reached *epoch* ends *here*; *before* as `prune` has it."""
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return False
    if not goal.affordable(here.metrics):
        return True
    mine, *earlier = [_among_affordable(goal, each) for each in (here, *before)]
    if goal.objective.second is None:
        past = [Standing(each.value, each.others) for each in earlier]
        return prune(rungs, epoch, mine.value, mine.others, goal.objective.direction, past)
    place, *places = [_place(goal, each) for each in (mine, *earlier)]
    return prune_between(rungs, epoch, place.point, place.others, places)


def _among_affordable(goal: Goal, met: Met) -> Met:
    if not goal.costs:  # there may be thousands of others
        return met
    kept = [
        (value, metrics)
        for value, metrics in zip(met.others, met.others_metrics, strict=True)
        if goal.affordable(metrics)
    ]
    values, metrics = [value for value, _ in kept], [metrics for _, metrics in kept]
    return Met(met.value, met.metrics, values, metrics)


def _place(goal: Goal, met: Met) -> Place:
    points = [point for each in met.others_metrics if (point := goal.losses(each)) is not None]
    return Place(goal.losses(met.metrics), points)


def promoted(goal: Goal, promotion: Promotion, reached: Mapping[int, Reached]) -> list[int]:
    """The numbers of the completed trials to carry on; *reached* is trial number -> result."""
    kept = {number: each for number, each in reached.items() if goal.feasible(each[1])}
    if goal.objective.second is None:
        values = {number: value for number, (value, _) in kept.items()}
        return promote(values, promotion, goal.objective.direction)
    points = {
        number: point
        for number, (_, metrics) in kept.items()
        if (point := goal.losses(metrics)) is not None
    }
    return promote_fronts(points, promotion)


def nearest(goal: Goal, reached: Mapping[int, Reached]) -> str | None:
    """Which completed trial breaks the constraints least; None when one keeps them all."""
    broken = {number: goal.violation(metrics) for number, (_, metrics) in reached.items()}
    if not broken or min(broken.values()) == 0.0:
        return None
    number = min(broken, key=lambda each: (broken[each], each))
    said = goal.broken(reached[number][1])
    return f"no trial meets the constraints; trial {number} comes nearest: it breaks {said}"


def prune(
    rungs: Rungs,
    epoch: int,
    value: float,
    others: Sequence[float],
    direction: str,
    before: Sequence[Standing] = (),
) -> bool:
    """Whether a trial that reached *epoch* with *value* ends there.

    *others* are the values of the other trials at that epoch. *before* is where the trial stood at
    earlier rungs, the latest first, among all who are there by now: with patience it must have
    failed there, too. The last rung ends a trial by itself and prunes nobody; a NaN is never among
    the best, and no patience helps it.
    """
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return False
    if math.isnan(value):
        return True
    tests = [Standing(value, others), *before[: rungs.patience]]
    if len(tests) <= rungs.patience:
        return False
    return all(_fails(rungs, each.value, each.others, direction) for each in tests)


def _fails(rungs: Rungs, value: float, others: Sequence[float], direction: str) -> bool:
    """The rule's test at one rung."""
    results = len(others) + 1
    if results < rungs.min_trials:
        return False
    if rungs.rule == "median":
        return bool(others) and better(_median(others, direction), value, direction)
    beats = operator.lt if direction == "minimize" else operator.gt  # never true of a NaN
    return bool(sum(map(beats, others, itertools.repeat(value))) >= _kept(rungs, results))


def bar(rungs: Rungs, epoch: int, values: Sequence[float], direction: str) -> float | None:
    """What the next to arrive at *epoch* must at least equal there, after *values*; patience apart.

    None where the rung cuts nobody: the last, one by the rule 'none', or with too few results.
    """
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return None
    if not values or len(values) + 1 < rungs.min_trials:
        return None
    if rungs.rule == "median":
        return _median(values, direction)
    kept = _kept(rungs, len(values) + 1)
    ranked = sorted((v for v in values if not math.isnan(v)), reverse=direction == "maximize")
    return ranked[kept - 1] if kept <= len(ranked) else None


def prune_between(
    rungs: Rungs,
    epoch: int,
    point: Losses | None,
    others: Sequence[Losses],
    before: Sequence[Place] = (),
) -> bool:
    """`prune` with two objectives; None is a result without both numbers.

    By median a trial ends when more than half of the others stand before it.
    """
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return False
    if point is None:
        return True
    tests = [Place(point, others), *before[: rungs.patience]]
    if len(tests) <= rungs.patience:
        return False
    return all(_falls_behind(rungs, each) for each in tests)


def _falls_behind(rungs: Rungs, place: Place) -> bool:
    """The rule's test at one rung."""
    results = len(place.others) + 1
    if results < rungs.min_trials:
        return False
    if place.point is None:
        return True
    ahead = fronts.ahead(place.point, place.others)
    if rungs.rule == "median":
        return 2 * ahead > len(place.others)
    return ahead >= _kept(rungs, results)


def promote(results: Mapping[int, float | None], promotion: Promotion, direction: str) -> list[int]:
    """The numbers of the trials that promotion is for by now, best first, those it had included.

    *results* is trial number -> value at the end of the short run. A value of None (not completed)
    or NaN is never promoted; of equal values the lower number wins.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    ranked = sorted(
        (sign * value, number)
        for number, value in results.items()
        if value is not None and not math.isnan(value)
    )
    return [number for _, number in ranked[: _due(promotion, len(ranked))]]


def promote_fronts(results: Mapping[int, Losses], promotion: Promotion) -> list[int]:
    """`promote` with two objectives: front by front, and of a front the widest apart first."""
    return fronts.ranked(results)[: _due(promotion, len(results))]


def _due(promotion: Promotion, results: int) -> int | None:
    """How many of so many *results* are to be carried on; None: no rule says."""
    if promotion.reduction_factor is not None:
        return math.floor(results / promotion.reduction_factor)
    return promotion.top


def _kept(rungs: Rungs, results: int) -> int:
    """How many of so many *results* go on by asha."""
    return max(1, math.floor(results / rungs.reduction_factor))


def _median(values: Sequence[float], direction: str) -> float:
    worst = math.inf if direction == "minimize" else -math.inf
    return statistics.median(worst if math.isnan(value) else value for value in values)
