"""The rungs of a study as rows: who arrived at each, who stayed, who was cut, and by what bar."""

import bisect
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cubeopt.db.records import RunRecord
from cubeopt.db.tables import EndClass, RunState
from cubeopt.report.material import Material
from cubeopt.search import rungs
from cubeopt.search.objective import finite


class Verdict(StrEnum):
    """What became of a trial at a rung."""

    STAYED = "stayed"  # it went on, or at the last rung it was complete
    CUT = "cut"  # the rung ended it
    DIVERGED = "diverged"  # its value was not finite
    ENDED = "ended by a person"
    FAILED = "failed"
    HERE = "still here"  # its next epoch is not recorded yet


@dataclass(frozen=True)
class Arrival:
    """A trial at a rung."""

    trial: int
    value: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Rung:
    """One rung; of the trials that are there by now."""

    epoch: int
    last: bool  # it ends trials by itself, and cuts nobody
    arrived: int
    stayed: int
    cut: int
    diverged: int
    failed: int
    ended: int  # by a person
    here: int
    lost: int  # had stayed at the rung before, but ended (diverged, failed, ...) before this one
    worst_stayed: float | None
    best_cut: float | None
    bar: float | None  # what the next to arrive must at least equal; None: it cuts nobody yet
    arrivals: list[Arrival]  # by trial number

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ladder(found: Material) -> list[Rung]:
    """One row for each rung of the study, the first first."""
    people = {trial.number for trial in found.trials if (trial.reason or {}).get("by")}
    before = 0
    rows = []
    for epoch in found.rungs.epochs:
        arrivals = [
            Arrival(run.trial_number, value, _verdict(run, epoch, people, found))
            for run in found.short
            for value in _there(found, run, epoch)
        ]
        ended = [
            run
            for run in found.short
            if before < run.epoch < epoch and run.state in (RunState.PRUNED, RunState.FAILED)
        ]
        rows.append(_rung(found, epoch, arrivals, len(ended)))
        before = epoch
    return rows


def _there(found: Material, run: RunRecord, epoch: int) -> list[float | None]:
    """The value of *run* at *epoch*, in a list; empty when it did not come so far."""
    course = found.courses.get(run.id, [])
    place = bisect.bisect_left(course, epoch, key=lambda pair: pair[0])
    there = place < len(course) and course[place][0] == epoch
    return [finite(course[place][1])] if there else []


def _verdict(run: RunRecord, epoch: int, people: set[int], found: Material) -> Verdict:
    last = epoch == found.rungs.epochs[-1]
    if run.epoch > epoch or (last and run.state == RunState.COMPLETE):
        return Verdict.STAYED
    if run.state == RunState.FAILED:
        return Verdict.FAILED
    if run.state != RunState.PRUNED:
        return Verdict.HERE
    if run.end_class == EndClass.DIVERGED:
        return Verdict.DIVERGED
    return Verdict.ENDED if run.trial_number in people else Verdict.CUT


def _rung(found: Material, epoch: int, arrivals: list[Arrival], lost: int) -> Rung:
    def count(verdict: Verdict) -> int:
        return sum(each.verdict == verdict for each in arrivals)

    def values(verdict: Verdict) -> list[float]:
        # By the best first.
        some = [e.value for e in arrivals if e.verdict == verdict and e.value is not None]
        return sorted(some, reverse=found.study.direction == "maximize")

    stayed, cut = values(Verdict.STAYED), values(Verdict.CUT)
    return Rung(
        epoch=epoch,
        last=epoch == found.rungs.epochs[-1],
        arrived=len(arrivals),
        stayed=count(Verdict.STAYED),
        cut=count(Verdict.CUT),
        diverged=count(Verdict.DIVERGED),
        failed=count(Verdict.FAILED),
        ended=count(Verdict.ENDED),
        here=count(Verdict.HERE),
        lost=lost,
        worst_stayed=stayed[-1] if stayed else None,
        best_cut=cut[0] if cut else None,
        bar=_bar(found, epoch, arrivals),
        arrivals=arrivals,
    )


def _bar(found: Material, epoch: int, arrivals: list[Arrival]) -> float | None:
    """None also with two objectives, or where a cost decides first: there is no one number."""
    if found.ended or found.goal.objective.second is not None or found.goal.costs:
        return None
    values = [each.value for each in arrivals if each.value is not None]
    return rungs.bar(found.rungs, epoch, values, found.study.direction)
