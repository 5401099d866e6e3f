"""What a study will ask for: its epochs, with and without pruning, and the shapes of its trials."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cubeopt.search import rungs, space
from cubeopt.search.objective import Goal, key
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec
from cubeopt.trial import CubeShape

_ORDERS = 50  # in which the trials may come to the rungs
_SIMULATED = 1000  # trials at most: beyond, the shares hardly change
_SIMULATED_FRONTS = 100  # with two objectives, whose order is dearer
_DRAWN = 256  # points of a large space


@dataclass(frozen=True)
class Epochs:
    """All epochs of a study, in expectation."""

    reaching: tuple[float, ...]  # trials that come to each rung
    unpruned: int  # if every trial went through all rungs
    pruned: float
    full: int  # of the promoted, from where their short runs ended


@dataclass(frozen=True)
class Share:
    """A shape of the cube, and which part of the trials has it."""

    shape: CubeShape
    share: float


def epochs(spec: StudySpec) -> Epochs:
    """By sending trials through the study's own rule, in many orders.

    A trial that is better at one rung is taken to be better at all; the sampler is taken not to
    learn. One that proposes better and better trials prunes fewer. Two objectives are taken not to
    depend on each other, and constraints to be met: what breaks one on a cost ends sooner.
    """
    trials = spec.trials()
    count = min(trials, _SIMULATED if spec.objective.second is None else _SIMULATED_FRONTS)
    sums = [0] * len(spec.rungs.epochs)
    for order in range(_ORDERS):
        for rung, came in enumerate(_came(spec, count, random.Random(order))):
            sums[rung] += came
    scale = trials / (count * _ORDERS)
    reaching = tuple(came * scale for came in sums)
    ends = spec.rungs.epochs
    legs = [end - start for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    promoted = min(spec.promotion.top, trials)
    return Epochs(
        reaching=reaching,
        unpruned=trials * spec.short_epochs,
        pruned=sum(came * leg for came, leg in zip(reaching, legs, strict=True)),
        full=promoted * (spec.full_epochs - spec.short_epochs),
    )


def shapes(spec: StudySpec) -> list[Share]:
    """The shapes in the space with their shares, the most frequent first.

    Of all points that the study has, if it has few; else of some drawn at random.
    """
    named = set(CubeShape.model_fields)
    if not named & set(spec.search):
        return [Share(spec.base_trial.shape, 1.0)]
    points = spec.points()
    if points is None or len(points) > _DRAWN:
        points = _drawn(spec)
    found = Counter(spec.trial(point, number).shape for number, point in enumerate(points))
    return [Share(shape, times / len(points)) for shape, times in found.most_common()]


def _drawn(spec: StudySpec) -> list[Point]:
    source = random.Random(spec.sampler.seed)
    distributions = spec.distributions().items()
    return [
        space.kept(
            spec.search, {name: space.at(each, source.random()) for name, each in distributions}
        )
        for _ in range(_DRAWN)
    ]


def _came(spec: StudySpec, count: int, source: random.Random) -> list[int]:
    """How many of *count* trials, one after the other, come to each rung."""
    at: list[list[tuple[float, Mapping[str, float]]]] = [[] for _ in spec.rungs.epochs]
    goal = Goal(spec.objective)
    names = [key(name) for name in spec.objective.names]
    for _ in range(count):
        metrics = {name: source.random() for name in names}
        value = metrics[names[0]]
        for rung, epoch in enumerate(spec.rungs.epochs):
            ended = rungs.ends(spec.rungs, goal, epoch, value, metrics, at[rung])
            at[rung].append((value, metrics))
            if ended:
                break
    return [len(values) for values in at]
