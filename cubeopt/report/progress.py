"""How a study went on, trial by trial, as rows: results, the best so far, learning curves."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.report.material import Material
from cubeopt.search.objective import finite
from cubeopt.search.study import better

_Some = TypeVar("_Some")


@dataclass(frozen=True)
class Result:
    """The short run of a trial at its last epoch."""

    trial: int
    state: str
    epoch: int
    value: float | None
    best: float | None  # of the complete short runs up to this trial

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Curve:
    """The values of a run by epoch."""

    trial: int
    kind: str
    replicate: int
    state: str
    epochs: list[int]
    values: list[float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def results(found: Material) -> list[Result]:
    """One row for each trial, by number."""
    rows, best = [], None
    for run in found.short:
        value = finite(run.value)
        if run.state == RunState.COMPLETE and value is not None:
            best = value if best is None or better(value, best, found.study.direction) else best
        rows.append(Result(run.trial_number, str(run.state), run.epoch, value, best))
    return rows


def curves(found: Material, most: int) -> list[Curve]:
    """Of at most *most* runs, by trial: half of them those of the best promoted trials.

    Of the others as many as there is room for, evenly chosen, so that each kind has its share.
    """
    runs = [run for run in found.runs if found.courses.get(run.id)]
    if len(runs) > most:
        kept = _promoted(found, runs, most // 2)
        others = [run for run in runs if run.id not in kept and run.kind == RunKind.SHORT]
        kept |= {run.id for run in evenly(others, most - len(kept))}
        runs = [run for run in runs if run.id in kept]
    return [
        Curve(
            run.trial_number,
            str(run.kind),
            run.replicate,
            str(run.state),
            [epoch for epoch, _ in course],
            [value for _, value in course],
        )
        for run in runs
        if (course := known(found, run))
    ]


def _promoted(found: Material, runs: Sequence[RunRecord], most: int) -> set[int]:
    """The ids of at most *most* runs of the promoted trials, the best full runs first."""
    sign = 1.0 if found.study.direction == "minimize" else -1.0
    full = [run for run in runs if run.kind == RunKind.FULL]
    full.sort(key=lambda run: (run.state != RunState.COMPLETE, sign * _value(run, sign)))
    kept: set[int] = set()
    for trial in dict.fromkeys(run.trial_number for run in full):
        its = {run.id for run in runs if run.trial_number == trial}
        if len(kept) + len(its) > most:
            break
        kept |= its
    return kept


def known(found: Material, run: RunRecord) -> list[tuple[int, float]]:
    """Epoch and value of the epochs of *run* that have a finite one."""
    course = found.courses.get(run.id, [])
    return [(epoch, value) for epoch, each in course if (value := finite(each)) is not None]


def evenly(some: Sequence[_Some], most: int) -> list[_Some]:
    """At most *most* of *some*, at equal distances."""
    if len(some) <= most:
        return list(some)
    return [some[place * len(some) // most] for place in range(most)]


def _value(run: RunRecord, sign: float) -> float:
    value = finite(run.value)
    return sign * math.inf if value is None else value
