"""The full runs of each promoted trial, one for each seed, as one result."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cubeopt.db.records import RunRecord
from cubeopt.db.tables import EndClass, RunKind, RunState


@dataclass(frozen=True)
class Replicates:
    """A promoted trial over its seeds; what did not complete is named, for no mean has it."""

    trial: int
    seeds: int  # full runs that there are
    complete: int
    epochs: int
    value: float | None  # mean over the complete
    spread: float | None  # their standard deviation (n - 1), from two on
    test_value: float | None  # mean over the complete
    diverged: list[int]  # seeds of those that ended so
    failed: list[int]
    ended: list[int]  # by a person

    @property
    def whole(self) -> bool:
        """Whether every seed has a result."""
        return self.complete == self.seeds

    @property
    def missing(self) -> str:
        """What has no part in the mean: "seed 4 diverged, 1 not complete"; empty if it is whole."""
        said = [
            f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} {what}"
            for what, seeds in (
                ("diverged", self.diverged),
                ("failed", self.failed),
                ("ended by a person", self.ended),
            )
            if seeds
        ]
        ended = len(self.diverged) + len(self.failed) + len(self.ended)
        if open_ := self.seeds - self.complete - ended:
            said.append(f"{open_} not complete")
        return ", ".join(said)


def replicates(runs: Sequence[RunRecord]) -> list[Replicates]:
    """One for each promoted trial, by trial number."""
    return [_one(number, full) for number, full in by_trial(runs).items()]


def by_trial(runs: Sequence[RunRecord]) -> dict[int, list[RunRecord]]:
    """The full runs of each promoted trial, by trial number."""
    found: dict[int, list[RunRecord]] = {}
    for run in runs:
        if run.kind == RunKind.FULL:
            found.setdefault(run.trial_number, []).append(run)
    return dict(sorted(found.items()))


def complete(runs: Sequence[RunRecord], trial: int) -> list[RunRecord]:
    """The full runs of a trial that have a result, by replicate."""
    found = [
        run
        for run in runs
        if run.trial_number == trial and run.kind == RunKind.FULL and _result(run) is not None
    ]
    return sorted(found, key=lambda run: run.replicate)


def _one(number: int, full: Sequence[RunRecord]) -> Replicates:
    done = complete(full, number)
    values = [value for run in done if (value := _result(run)) is not None]
    tests = [run.test_value for run in done if run.test_value is not None]
    tests = [value for value in tests if math.isfinite(value)]
    diverged = [run for run in full if run.end_class == EndClass.DIVERGED]
    ended = [run for run in full if run.state == RunState.PRUNED and run not in diverged]
    return Replicates(
        trial=number,
        seeds=len(full),
        complete=len(done),
        epochs=max(run.epoch for run in full),
        value=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        test_value=statistics.fmean(tests) if tests and len(tests) == len(values) else None,
        diverged=_seeds(diverged),
        failed=_seeds([run for run in full if run.state == RunState.FAILED]),
        ended=_seeds(ended),
    )


def _result(run: RunRecord) -> float | None:
    if run.state != RunState.COMPLETE or run.value is None or not math.isfinite(run.value):
        return None
    return run.value


def _seeds(runs: Sequence[RunRecord]) -> list[int]:
    return sorted(run.spec["seed"] for run in runs)
