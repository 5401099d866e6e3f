"""Arms trained over the same seeds and the same batches, and what their differences show.

The trainings of a seed are a pair (of three arms, a triple): the same weights to begin with where
shapes agree, and the same batches in the same order.
"""

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.errors import InputError
from cubeopt.search.objective import DIRECTIONS, Metric
from cubeopt.service import arms as all_arms
from cubeopt.service import packs, verdict
from cubeopt.service.arms import Arm
from cubeopt.service.packs import Pack, Place, Progress, Trained
from cubeopt.service.verdict import Comparison, Outcome
from cubeopt.training.loop import EpochEnd
from cubeopt.trial import CubeShape

_SEEDS_MOST = 16  # in a pack: each walks through the dataset in an order of its own

_Member = tuple[str, int]  # an arm's name and a seed


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    arms: Sequence[Arm]  # the others are compared with the first
    seeds: Sequence[int]
    metric: Metric
    fingerprint: str  # of the dataset
    place: Place


@dataclass(frozen=True)
class Report:
    """All arms over the same seeds."""

    metric: str
    direction: str
    epochs: int
    seeds: Sequence[int]
    dataset: str  # its fingerprint
    differing: Mapping[str, Sequence[Any]]  # values that are not the same in all arms, by arm
    arms: Sequence[Outcome]
    comparisons: Sequence[Comparison]
    notes: Sequence[str]  # what a reader must know of these results
    method: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def answered(self) -> bool:
        """Whether some comparison has two whole pairs."""
        return any(each.evidence is not None for each in self.comparisons)


def metric_named(name: str) -> Metric:
    """The metric *name* that trainings are judged by; InputError if there is none."""
    for metric in DIRECTIONS:
        if metric == name:
            return metric
    raise InputError(f"--metric {name!r}: expected one of {', '.join(DIRECTIONS)}")


def run(request: Request, stop: threading.Event, tell: Callable[[Progress], None]) -> Report | None:
    """Train every arm with every seed; None when *stop* ended it early."""
    shared = shares(request.arms, request.seeds, request.place.jobs)
    done = packs.train([pack for pack, _ in shared], request.place, stop, tell)
    if done is None:
        return None
    ends: dict[_Member, EpochEnd] = {}
    weights: dict[str, int] = {}
    for trained, (_, members) in zip(done, shared, strict=True):
        ends |= zip(members, trained.ends, strict=True)
        weights |= _weights(trained, members)
    outcomes = [_outcome(request, arm, ends, weights[arm.name]) for arm in request.arms]
    return _report(request, outcomes)


def shares(
    arms: Sequence[Arm], seeds: Sequence[int], jobs: int
) -> list[tuple[Pack, list[_Member]]]:
    """Packs for all *arms* and *seeds*, and who stands in each, in the order of its trials.

    Arms of one shape ride together where that leaves no job idle, and few arms share their seeds
    out among many jobs.
    """
    groups = _by_shape(arms)
    if len(groups) < jobs:
        groups = [[arm] for arm in arms]
    size = min(_SEEDS_MOST, -(-len(seeds) * len(groups) // jobs), len(seeds))
    chunks = [seeds[first : first + size] for first in range(0, len(seeds), size)]
    found = []
    for chunk in chunks:
        for group in groups:
            name = ", ".join(arm.name for arm in group)
            if len(chunks) > 1:
                name += f", seeds {chunk[0]} to {chunk[-1]}"
            trials = [arm.trial(seed) for arm in group for seed in chunk]
            members = [(arm.name, seed) for arm in group for seed in chunk]
            found.append((Pack(name, trials), members))
    return found


def _by_shape(arms: Sequence[Arm]) -> list[list[Arm]]:
    groups: dict[CubeShape, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.spec.shape, []).append(arm)
    return list(groups.values())


def _weights(trained: Trained, members: Sequence[_Member]) -> dict[str, int]:
    return {name: trained.weights for name, _ in members}


def _outcome(request: Request, arm: Arm, ends: Mapping[_Member, EpochEnd], weights: int) -> Outcome:
    own = {seed: ends[arm.name, seed] for seed in request.seeds}
    metrics = [None if end.diverged else end.metrics for end in own.values()]
    values = [None if row is None else row[f"validation/{request.metric}"] for row in metrics]
    whole = [value for value in values if value is not None]
    return Outcome(
        arm=arm.name,
        file=str(arm.file),
        weights=weights,
        mean=statistics.fmean(whole) if whole else None,
        deviation=statistics.stdev(whole) if len(whole) > 1 else None,
        values=values,
        diverged={seed: end.epoch for seed, end in own.items() if end.diverged},
        metrics=metrics,
        configuration=arm.spec.flat(),
    )


def _report(request: Request, outcomes: Sequence[Outcome]) -> Report:
    direction = DIRECTIONS[request.metric]
    compared = verdict.compare(outcomes, request.metric, direction == "minimize")
    return Report(
        metric=request.metric,
        direction=direction,
        epochs=request.arms[0].spec.plan.epochs,
        seeds=tuple(request.seeds),
        dataset=request.fingerprint,
        differing=all_arms.differing(request.arms),
        arms=outcomes,
        comparisons=compared,
        notes=[
            *verdict.diverged(outcomes),
            *_too_few(compared),
            *verdict.no_better_than_mean(outcomes, request.metric),
        ],
        method=verdict.method(compared),
    )


def _too_few(compared: Sequence[Comparison]) -> list[str]:
    """A sentence for each number of whole pairs that cannot show a difference."""
    counts = {each.evidence.pairs for each in compared if each.evidence is not None}
    found = [verdict.too_few(count, len(compared), "pairs") for count in sorted(counts)]
    return [sentence for sentence in found if sentence is not None]
