"""Do short runs tell which full runs are good? Pruning and promotion rest on it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind, RunState

FEWEST = 4  # pairs: of three, one in six orders agrees wholly by chance
LOW = 0.5


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
    known = {run.id: run.value for run in runs} if values is None else values
    short, full = (_values(runs, known, kind) for kind in (RunKind.SHORT, RunKind.FULL))
    both = sorted(set(short) & set(full))
    return Agreement(
        len(both), _spearman([short[each] for each in both], [full[each] for each in both])
    )


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
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2.0
        for value in values
    ]
