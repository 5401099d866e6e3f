"""Who goes on: prune below the cut of a rung, promote the best of the completed.

The default rule is asynchronous successive halving (Li et al. 2018, "A System for Massively
Parallel Hyperparameter Tuning", arXiv 1810.05934) in its stopping form: a trial is judged once,
when it arrives at a rung, against whoever arrived there before it, and nobody waits.
"""

import itertools
import math
import operator
import statistics
from collections.abc import Mapping, Sequence

from cubeopt.search.study import Promotion, Rungs, better


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
    kept = max(1, math.floor(results / rungs.reduction_factor))
    beats = operator.lt if direction == "minimize" else operator.gt  # never true of a NaN
    return bool(sum(map(beats, others, itertools.repeat(value))) >= kept)


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


def _median(values: Sequence[float], direction: str) -> float:
    worst = math.inf if direction == "minimize" else -math.inf
    return statistics.median(worst if math.isnan(value) else value for value in values)
