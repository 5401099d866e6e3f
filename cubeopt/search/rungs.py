"""Who goes on: prune below the cut of a rung, promote the best of the completed.

The default rule is asynchronous successive halving (Li et al. 2018, "A System for Massively
Parallel Hyperparameter Tuning", arXiv 1810.05934) in its stopping form: a trial is judged once,
when it arrives at a rung, against whoever arrived there before it, and nobody waits. Its promotion
form decides who is carried on to a full run.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cubeopt.search.study import Promotion, Rungs, better


@dataclass(frozen=True)
class Standing:
    """A trial at one rung."""

    value: float
    others: Sequence[float]  # of the other trials at that rung


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
    kept = max(1, math.floor(results / rungs.reduction_factor))
    return sum(better(other, value, direction) for other in others) >= kept


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
    count = promotion.top
    if promotion.reduction_factor is not None:
        count = math.floor(len(ranked) / promotion.reduction_factor)
    return [number for _, number in ranked[:count]]


def _median(values: Sequence[float], direction: str) -> float:
    worst = math.inf if direction == "minimize" else -math.inf
    return statistics.median(worst if math.isnan(value) else value for value in values)
