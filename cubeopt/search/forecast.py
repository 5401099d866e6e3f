"""What a study will ask for: its epochs, with and without pruning, and the shapes of its trials."""

import random
from collections import Counter
from dataclasses import dataclass

import optuna

from cubeopt.search import rungs
from cubeopt.search.study import StudySpec
from cubeopt.trial import CubeShape

_ORDERS = 50  # in which the trials may come to the rungs
_SIMULATED = 1000  # trials at most: beyond, the shares hardly change
_DRAWN = 256  # points of the space at most


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
    learn. One that proposes better and better trials prunes fewer.
    """
    count = min(spec.budget.trials, _SIMULATED)
    sums = [0] * len(spec.rungs.epochs)
    for order in range(_ORDERS):
        for rung, came in enumerate(_came(spec, count, random.Random(order))):
            sums[rung] += came
    scale = spec.budget.trials / (count * _ORDERS)
    reaching = tuple(came * scale for came in sums)
    ends = spec.rungs.epochs
    legs = [end - start for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    promoted = min(spec.promotion.top, spec.budget.trials)
    return Epochs(
        reaching=reaching,
        unpruned=spec.budget.trials * spec.short_epochs,
        pruned=sum(came * leg for came, leg in zip(reaching, legs, strict=True)),
        full=promoted * (spec.full_epochs - spec.short_epochs),
    )


def shapes(spec: StudySpec) -> list[Share]:
    """The shapes among points drawn at random from the space, the most frequent first."""
    named = set(CubeShape.model_fields)
    if not named & set(spec.search):
        return [Share(spec.base_trial.shape, 1.0)]
    count = min(spec.budget.trials, _DRAWN)
    sampler = optuna.samplers.RandomSampler(seed=spec.sampler.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawing = optuna.create_study(sampler=sampler)
    distributions = spec.distributions()
    points = [drawing.ask(distributions).params for _ in range(count)]
    found = Counter(spec.trial(point, number).shape for number, point in enumerate(points))
    return [Share(shape, times / count) for shape, times in found.most_common()]


def _came(spec: StudySpec, count: int, source: random.Random) -> list[int]:
    """How many of *count* trials, one after the other, come to each rung."""
    at: list[list[float]] = [[] for _ in spec.rungs.epochs]
    direction = spec.objective.direction
    for _ in range(count):
        value = source.random()
        for rung, epoch in enumerate(spec.rungs.epochs):
            others = at[rung]
            ends = rungs.prune(spec.rungs, epoch, value, others, direction)
            others.append(value)
            if ends:
                break
    return [len(values) for values in at]
