"""What paired differences show: an interval for their mean, a p-value, and Holm's correction.

A difference is a second value minus a first, both from trainings that share their seeds.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05  # a p below it shows a difference
CONFIDENCE = 0.95
EXACT_MOST = 20  # pairs whose sign flips are all looked at: a million
DRAWS = 99_999  # random sign flips for more pairs
_DRAWS_AT_ONCE = 11_111
_TIE = 1e-9  # of the sum of sizes: sums that differ by less are rounding


@dataclass(frozen=True)
class Evidence:
    """What n paired differences say of their mean."""

    pairs: int
    mean: float
    deviation: float
    low: float  # end of the interval for the mean
    high: float
    p: float  # two-sided, by sign flips
    flips: int  # that p is taken from
    exact: bool  # they are all there are


def paired(differences: Sequence[float]) -> Evidence:
    """The evidence of two or more finite *differences*."""
    low, high = t_interval(differences)
    exact = len(differences) <= EXACT_MOST
    return Evidence(
        pairs=len(differences),
        mean=statistics.fmean(differences),
        deviation=statistics.stdev(differences),
        low=low,
        high=high,
        p=sign_flip_p(differences),
        flips=2 ** len(differences) if exact else DRAWS,
        exact=exact,
    )


def t_interval(differences: Sequence[float]) -> tuple[float, float]:
    """Student's interval for the mean of two or more *differences*.

    It takes them for independent and normally distributed.
    """
    mean, count = statistics.fmean(differences), len(differences)
    half = t_bound(CONFIDENCE, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return mean - half, mean + half


def t_bound(confidence: float, freedom: int) -> float:
    """The number that abs(t) stays below with probability *confidence*; *freedom* is 1 or more.

    By bisection over the angle atan(t / sqrt(freedom)), to the last bits.
    """
    assert freedom >= 1
    assert 0.0 < confidence < 1.0
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        if _probability_within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(freedom)


def _probability_within(angle: float, freedom: int) -> float:
    """That abs(t) is below tan(*angle*) sqrt(*freedom*): a finite sum for whole degrees of freedom.

    Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    cosine, odd = math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(1, (freedom - odd) // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * step - 1 + odd) / (2 * step + odd)
    if odd:
        return 2.0 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def sign_flip_p(differences: Sequence[float]) -> float:
    """How often a mean at least as far from 0 comes about when each sign is a toss of a coin.

    Two-sided. It takes the differences for independent and, where there is nothing to find, as
    likely negative as positive. All 2^n flips are looked at up to EXACT_MOST pairs; else DRAWS
    random ones from a fixed seed, with the flip that was seen counted among them.
    """
    seen = abs(math.fsum(differences))
    least = seen - _TIE * math.fsum(map(abs, differences))
    if len(differences) > EXACT_MOST:
        return (1 + _drawn_beyond(differences, least)) / (1 + DRAWS)
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= least))


def _drawn_beyond(differences: Sequence[float], least: float) -> int:
    """How many of DRAWS random flips have a sum of size *least* or more."""
    generator, row = np.random.default_rng(0), np.asarray(differences)
    beyond = 0
    for _ in range(DRAWS // _DRAWS_AT_ONCE):
        signs = generator.integers(0, 2, (_DRAWS_AT_ONCE, len(row))) * 2.0 - 1.0
        beyond += int(np.sum(np.abs(signs @ row) >= least))
    return beyond


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction of several p-*values*, in their order.

    Whoever calls those below ALPHA differences errs anywhere among them at most so often.
    """
    corrected, reached = [0.0] * len(values), 0.0
    ascending = sorted(range(len(values)), key=values.__getitem__)
    for rank, place in enumerate(ascending):
        reached = max(reached, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = reached
    return corrected


def least_p(pairs: int, comparisons: int = 1) -> float:
    """The smallest p that so many *pairs* can reach, corrected for *comparisons*.

    Of several comparisons, Holm multiplies the smallest p by their number.
    """
    alone = 2.0 / 2**pairs if pairs <= EXACT_MOST else 1.0 / (1 + DRAWS)
    return min(1.0, comparisons * alone)


def pairs_needed(comparisons: int = 1) -> int:
    """The fewest pairs that can show a difference in any of so many *comparisons*."""
    pairs = 2
    while least_p(pairs, comparisons) >= ALPHA:
        pairs += 1
    return pairs
