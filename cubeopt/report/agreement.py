"""Do short runs tell which full runs are good? Pruning and promotion rest on it."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind, RunState

FEWEST = 4  # pairs: of three, one in six orders agrees wholly by chance
LOW = 0.5


@dataclass(frozen=True)
class Pair:
    """A trial at the end of its short run, and of the full run that goes on from it."""

    trial: int
    short: float
    full: float


@dataclass(frozen=True)
class Agreement:
    """Of the trials whose short run, and the full run that goes on from it, are complete."""

    pairs: int
    spearman: float | None  # rank correlation, -1 to 1; None: fewer than FEWEST pairs, or all equal


def agreement(
    runs: Sequence[RunRecord], values: Mapping[int, float | None] | None = None
) -> Agreement:
    """Spearman's rank correlation of the values at the end of short and of full runs.

    Of the first objective, or of *values* by run id.
    """
    found = pairs(runs, values)
    spearman = _spearman([each.short for each in found], [each.full for each in found])
    return Agreement(len(found), spearman)


def pairs(
    runs: Sequence[RunRecord], values: Mapping[int, float | None] | None = None
) -> list[Pair]:
    """The trials of which both runs are complete, by number; *values* as `agreement` has them."""
    known = {run.id: run.value for run in runs} if values is None else values
    short, full = (_values(runs, known, kind) for kind in (RunKind.SHORT, RunKind.FULL))
    return [Pair(each, short[each], full[each]) for each in sorted(set(short) & set(full))]


def interval(found: Agreement) -> tuple[float, float] | None:
    """The 95 % interval of the rank correlation; None where it cannot be told.

    Fisher's z with the standard error of Bonett and Wright 2000 (doi 10.1007/BF02294183).
    """
    r = found.spearman
    if r is None or abs(r) == 1.0 or found.pairs < FEWEST:
        return None
    reach = 1.96 * math.sqrt((1.0 + r * r / 2.0) / (found.pairs - 3))
    return math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)


def _values(
    runs: Sequence[RunRecord], known: Mapping[int, float | None], kind: RunKind
) -> dict[int, float]:
    return {
        run.trial_number: value
        for run in runs
        if run.kind == kind and run.replicate == 0 and run.state == RunState.COMPLETE
        if (value := known[run.id]) is not None and math.isfinite(value)
    }


def _spearman(some: Sequence[float], others: Sequence[float]) -> float | None:
    """The correlation of the ranks; equal values share the mean of theirs."""
    if len(some) < FEWEST:
        return None
    left, right = _ranks(some), _ranks(others)
    middle = (len(some) + 1) / 2.0
    spread = [sum((rank - middle) ** 2 for rank in ranks) for ranks in (left, right)]
    if not all(spread):
        return None
    together = sum((a - middle) * (b - middle) for a, b in zip(left, right, strict=True))
    return together / math.sqrt(spread[0] * spread[1])


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [
        (bisect.bisect_left(ordered, value) + bisect.bisect_right(ordered, value) + 1) / 2.0
        for value in values
    ]
