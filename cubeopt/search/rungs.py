"""Who goes on: prune below the cut of a rung, promote the best of the completed.

The default rule is asynchronous successive halving (Li et al. 2018, "A System for Massively
Parallel Hyperparameter Tuning", arXiv 1810.05934) in its stopping form: a trial is judged once,
when it arrives at a rung, against whoever arrived there before it, and nobody waits. With two
objectives results are compared by their place among the fronts (see `fronts`).

Constraints: a rung does not ask for those on metrics, which may still be met later. One on a cost
no training mends, so who breaks it ends at the first rung, and nobody is compared with it.
A promotion takes only who meets all of them at the last rung.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cubeopt.search import fronts
from cubeopt.search.fronts import Losses
from cubeopt.search.objective import Goal
from cubeopt.search.study import Promotion, Rungs, better

Reached = tuple[float | None, Mapping[str, Any]]  # a value, and what the goal's keys name


def ends(
    rungs: Rungs,
    goal: Goal,
    epoch: int,
    value: float,
    metrics: Mapping[str, Any],
    others: Sequence[tuple[float, Mapping[str, Any]]],
) -> bool:
    """Whether a trial that reached *epoch* with *value* and *metrics* ends there.

    *others* are the values and metrics of the other trials at that epoch.
    """
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return False
    if not goal.affordable(metrics):
        return True
    others = [other for other in others if goal.affordable(other[1])]
    if goal.objective.second is None:
        values = [value for value, _ in others]
        return prune(rungs, epoch, value, values, goal.objective.direction)
    points = [point for _, each in others if (point := goal.losses(each)) is not None]
    return prune_between(rungs, epoch, goal.losses(metrics), points)


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


def prune(rungs: Rungs, epoch: int, value: float, others: Sequence[float], direction: str) -> bool:
    """Whether a trial that reached *epoch* with *value* ends there.

    *others* are the values of the other trials at that epoch. The last rung ends a trial by itself
    and prunes nobody; a NaN is never among the best.
    """
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return False
    if math.isnan(value):
        return True
    results = len(others) + 1
    if results < rungs.min_trials:
        return False
    if rungs.rule == "median":
        return bool(others) and better(_median(others, direction), value, direction)
    return sum(better(other, value, direction) for other in others) >= _kept(rungs, results)


def prune_between(rungs: Rungs, epoch: int, point: Losses | None, others: Sequence[Losses]) -> bool:
    """`prune` with two objectives; None is a result without both numbers.

    By median a trial ends when more than half of the others stand before it.
    """
    if epoch not in rungs.epochs[:-1] or rungs.rule == "none":
        return False
    if point is None:
        return True
    results = len(others) + 1
    if results < rungs.min_trials:
        return False
    ahead = fronts.ahead(point, others)
    if rungs.rule == "median":
        return 2 * ahead > len(others)
    return ahead >= _kept(rungs, results)


def promote(results: Mapping[int, float | None], promotion: Promotion, direction: str) -> list[int]:
    """The numbers of the best completed trials, best first; *results* is trial number -> value.

    A value of None (not completed) or NaN is never promoted; of equal values the lower number wins.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    ranked = sorted(
        (sign * value, number)
        for number, value in results.items()
        if value is not None and not math.isnan(value)
    )
    return [number for _, number in ranked[: promotion.top]]


def promote_fronts(results: Mapping[int, Losses], promotion: Promotion) -> list[int]:
    """`promote` with two objectives: front by front, and of a front the widest apart first."""
    return fronts.ranked(results)[: promotion.top]


def _kept(rungs: Rungs, results: int) -> int:
    """How many of so many *results* go on by asha."""
    return max(1, math.floor(results / rungs.reduction_factor))


def _median(values: Sequence[float], direction: str) -> float:
    worst = math.inf if direction == "minimize" else -math.inf
    return statistics.median(worst if math.isnan(value) else value for value in values)
