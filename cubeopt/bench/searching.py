"""How soon a search comes near the best of a table of learning curves: ours beside Optuna's."""

import math
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna

from cubeopt.bench.curves import Curves
from cubeopt.bench.replaying import Searcher, Seen, replay
from cubeopt.bench.searchers import METHODS, OURS

NEAR = 0.01  # of the best: "come near" means so much worse at most, as a share of the best
GOAL = 0.5  # of the time of the best of the other methods
_SHARES = (1 / 128, 1 / 64, 1 / 32)  # of the time to train the whole table: looks at regret

Make = Callable[[Curves, int], Searcher]


@dataclass(frozen=True)
class Outcome:
    """One method over all seeds. A time that was never reached is None, and counts as infinite."""

    method: str
    seconds: float | None  # until a value at the last epoch was near the best: the median
    low: float | None  # quartile
    high: float | None
    missed: float  # share of the seeds that never got there
    any_epoch: float | None  # until a value at any epoch was near the best: the median
    regret: tuple[float | None, ...]  # median excess of the best value so far, at `Report.looks`
    epochs: float  # that were trained until then, or until there was nothing left: the median

    @property
    def time(self) -> float:
        return math.inf if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Report:
    """What came out, of what."""

    outcomes: Sequence[Outcome]
    best_other: str  # method
    ratio: float | None  # our time as a share of that of the best of the others
    goal: float  # the most that it may be
    met: bool
    looks: tuple[float, ...]  # seconds
    table: Mapping[str, Any]
    seeds: int
    workers: int

    def ratio_of(self, outcome: Outcome) -> float | None:
        """The time of *outcome* as a share of that of the best of the others."""
        other = next(each for each in self.outcomes if each.method == self.best_other)
        if outcome.seconds is None or other.seconds is None:
            return None
        return outcome.seconds / other.seconds

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    curves: Curves,
    seeds: int,
    workers: int,
    stop: threading.Event,
    tell: Callable[[int, int], None],
    methods: Mapping[str, Make] | None = None,
) -> Report | None:
    """Replay every method with each seed; None when *stop* ended it early.

    *tell* hears how many replays of how many are done.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chosen = METHODS if methods is None else methods
    looks = tuple(curves.seconds / workers * share for share in _SHARES)
    outcomes, done = [], 0
    for name, make in chosen.items():
        runs = []
        for seed in range(seeds):
            if stop.is_set():
                return None
            tell(done, len(chosen) * seeds)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                runs.append(_until_near(curves, replay(curves, make(curves, seed), workers), looks))
            done += 1
        outcomes.append(_outcome(name, curves, runs, looks))
    tell(done, done)
    return _report(curves, outcomes, looks, seeds, workers)


def _until_near(curves: Curves, epochs: Iterable[Seen], looks: Sequence[float]) -> list[Seen]:
    """What is seen until a last epoch is near the best, and at least until the last look."""
    seen, found = [], False
    for one in epochs:
        if found and one.time > looks[-1]:
            break
        seen.append(one)
        found = found or (one.epoch == curves.epochs and near(curves, one.value))
    return seen


def reached(curves: Curves, seen: Sequence[Seen], last_only: bool) -> float:
    """The time of the first value near the best, of a last epoch or of any; infinity if none."""
    for one in seen:
        if (one.epoch == curves.epochs or not last_only) and near(curves, one.value):
            return one.time
    return math.inf


def near(curves: Curves, value: float) -> bool:
    return curves.shortfall(value) <= NEAR  # False of a NaN


def regret(curves: Curves, seen: Sequence[Seen], time: float) -> float:
    """How much worse than the best of the table the best value until *time* is, as a share."""
    found = [curves.shortfall(one.value) for one in seen if one.time <= time]
    return max(0.0, min((each for each in found if not math.isnan(each)), default=math.inf))


def _outcome(
    name: str, curves: Curves, runs: Sequence[Sequence[Seen]], looks: Sequence[float]
) -> Outcome:
    times = [reached(curves, seen, last_only=True) for seen in runs]
    early = [reached(curves, seen, last_only=False) for seen in runs]
    low, middle, high = (_quantile(times, share) for share in (0.25, 0.5, 0.75))
    return Outcome(
        method=name,
        seconds=middle,
        low=low,
        high=high,
        missed=sum(map(math.isinf, times)) / len(times),
        any_epoch=_quantile(early, 0.5),
        regret=tuple(
            _quantile([regret(curves, seen, time) for seen in runs], 0.5) for time in looks
        ),
        epochs=float(
            np.median(
                [
                    sum(one.time <= time for one in seen)
                    for seen, time in zip(runs, times, strict=True)
                ]
            )
        ),
    )


def _quantile(values: Sequence[float], share: float) -> float | None:
    """One of *values*, without a mean of two, of which one may be infinite; None for infinity."""
    found = float(np.quantile(values, share, method="inverted_cdf"))
    return found if math.isfinite(found) else None


def _report(
    curves: Curves, outcomes: Sequence[Outcome], looks: tuple[float, ...], seeds: int, workers: int
) -> Report:
    ours = next(each for each in outcomes if each.method == OURS)
    others = [each for each in outcomes if not each.method.startswith("cubeopt")]
    other = min(others, key=lambda each: each.time)
    known = ours.seconds is not None and other.seconds is not None
    return Report(
        outcomes=outcomes,
        best_other=other.method,
        ratio=ours.time / other.time if known else None,
        goal=GOAL,
        met=ours.seconds is not None and ours.time <= GOAL * other.time,
        looks=looks,
        table={
            **curves.facts,
            "configurations": len(curves.rows),
            "epochs": curves.epochs,
            "best": curves.best,
            "within 1 % of the best": sum(near(curves, row.values[-1]) for row in curves.rows),
            "seconds to train all": curves.seconds,
        },
        seeds=seeds,
        workers=workers,
    )
