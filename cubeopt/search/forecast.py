"""What a study will ask for: its epochs, with and without pruning, and the shapes of its trials."""

import bisect
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cubeopt.search import rungs, space
from cubeopt.search.objective import Goal, key
from cubeopt.search.rungs import Met
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

    trials: float
    reaching: tuple[float, ...]  # trials that come to each rung
    unpruned: float  # if every trial went through all rungs
    pruned: float
    full: float  # of the promoted, from where their short runs ended, and of their further seeds
    ends: str  # the budget that is spent first


@dataclass(frozen=True)
class Share:
    """A shape of the cube, and which part of the trials has it."""

    shape: CubeShape
    share: float


def epochs(spec: StudySpec, limits: Mapping[str, float] | None = None) -> Epochs:
    """By sending trials through the study's own rules, one after the other, in many orders.

    A trial that is better at one rung is taken to be better at all; the sampler is taken not to
    learn. One that proposes better and better trials prunes fewer. Two objectives are taken not to
    depend on each other, and constraints to be met: what breaks one on a cost ends sooner.
    *limits* are the epochs that other budgets than that of epochs have room for, by name.
    """
    limits = dict(limits or {})
    if spec.budget.epochs is not None:
        limits["epochs"] = spec.budget.epochs
    tightest = min(limits, key=lambda name: limits[name], default="trials")
    limit, trials = limits.get(tightest, math.inf), spec.trials()
    most = _SIMULATED if spec.objective.second is None else _SIMULATED_FRONTS
    count = most if trials is None else min(trials, most)
    orders = [_Course(spec, count, limit, random.Random(order)) for order in range(_ORDERS)]
    spent = _mean([each.spent for each in orders])
    scale = limit / spent if trials is None else min(trials / count, limit / spent)
    scale = max(1.0, scale)
    tried = scale * _mean([len(each.at[0]) for each in orders])
    full = scale * _mean([each.full for each in orders])
    pruned = scale * spent - full
    wanted = spec.promotion.top or 0
    if trials is not None and tried >= trials and wanted:
        wanted = min(wanted, trials) * _full(spec)
        full = min(wanted, limit - pruned)
    return Epochs(
        trials=tried,
        reaching=tuple(scale * _mean([len(e.at[rung]) for e in orders]) for rung in _rungs(spec)),
        unpruned=min(tried * spec.short_epochs, limit),
        pruned=pruned,
        full=full,
        ends="trials" if tried == trials and full >= wanted else tightest,
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


class _Course:
    """*count* trials, one after the other, until *limit* epochs are spent."""

    def __init__(self, spec: StudySpec, count: int, limit: float, source: random.Random) -> None:
        self._spec, self._limit = spec, limit
        # The metrics of those that came there.
        self.at: list[list[Mapping[str, float]]] = [[] for _ in _rungs(spec)]
        self._goal = Goal(spec.objective)
        self._names = [key(name) for name in spec.objective.names]
        self.spent, self.full = 0.0, 0.0  # epochs, and those of full runs among them
        self._completed: list[float] = []  # the best first
        self._promoted: set[float] = set()
        for _ in range(count):
            if self.spent >= limit:
                break
            self._try({name: source.random() for name in self._names})

    def _try(self, metrics: Mapping[str, float]) -> None:
        """A trial that has these *metrics* at every epoch; promotions go by the first of them."""
        ends, patience = self._spec.rungs.epochs, self._spec.rungs.patience
        for rung, (start, epoch) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
            self._spend(epoch - start)
            here, *before = [
                self._met(metrics, [each for each in self.at[earlier] if each is not metrics])
                for earlier in range(rung, max(-1, rung - 1 - patience), -1)
            ]
            cut = rungs.ends(self._spec.rungs, self._goal, epoch, here, before)
            self.at[rung].append(metrics)
            if cut:
                return
        value = metrics[self._names[0]]
        downward = self._goal.objective.direction == "minimize"
        bisect.insort(self._completed, value if downward else -value)
        self._promote()

    def _met(self, metrics: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> Met:
        first = self._names[0]
        return Met(metrics[first], metrics, [each[first] for each in others], others)

    def _promote(self) -> None:
        factor = self._spec.promotion.reduction_factor
        if factor is None:
            return
        due = set(self._completed[: math.floor(len(self._completed) / factor)])
        for _ in due - self._promoted:
            self.full += self._spend(_full(self._spec))
        self._promoted |= due

    def _spend(self, epochs: float) -> float:
        had = min(epochs, self._limit - self.spent)
        self.spent += had
        return had


def _full(spec: StudySpec) -> int:
    """Epochs of a promoted trial beyond its short run."""
    return spec.full_epochs * spec.promotion.seeds - spec.short_epochs


def _rungs(spec: StudySpec) -> range:
    return range(len(spec.rungs.epochs))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
