"""The points of the sampler mfgp: a Gaussian process that learns from every rung of every trial."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from cubeopt.search import samplers, space
from cubeopt.search.samplers import Mfgp
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec
from cubeopt.search.surrogate import Observed, Surrogate

_KEPT = 500  # observations at most: the time of a proposal grows with their cube
_AROUND = 5  # of the trials that are expected to be the best, whose neighbourhoods are looked at
_LOCAL = 0.5  # share of the candidates that lie in these
_STEP = 0.1  # deviation from them, as a share of an interval
_CHANGED = 0.2  # share of the choices that are drawn anew there

Kinds = Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class _Known:
    """What trials tell: their rungs, and which points have not come to one yet."""

    points: list[Point]  # one for each value
    epochs: list[int]
    values: list[float]
    running: list[Point]
    trials: int  # that came to a rung, or diverged before


def points(
    study: Study, trial: FrozenTrial, spec: StudySpec, chosen: Mfgp, asked: int
) -> Iterator[Point]:
    """Points for *trial*, without end: those expected to improve the last rung most come first."""
    source = np.random.default_rng(samplers.seed(chosen, asked))
    kinds = dict(sorted(spec.distributions().items()))
    known = _known(study, trial, spec)
    if known.trials >= max(1, chosen.startup_trials):
        yield from _ranked(spec, kinds, known, chosen, source)
    while True:
        yield _point(spec, kinds, source.random(len(kinds)))


def _known(study: Study, trial: FrozenTrial, spec: StudySpec) -> _Known:
    found: list[tuple[Point, int, float]] = []
    running, trials = [], 0
    sign = 1.0 if spec.objective.direction == "minimize" else -1.0
    for each in study.get_trials(deepcopy=False):
        if each.number == trial.number or each.state in (TrialState.FAIL, TrialState.WAITING):
            continue
        reached = {
            epoch: sign * each.intermediate_values[epoch]
            for epoch in spec.rungs.epochs
            if epoch in each.intermediate_values
        }
        if not reached and each.state == TrialState.RUNNING:
            running.append(each.params)
            continue
        trials += 1
        if not reached:  # it diverged before its first rung
            reached = {spec.rungs.epochs[0]: math.nan}
        found += [(each.params, epoch, value) for epoch, value in reached.items()]
    kept = found[-_KEPT:]
    return _Known(
        [point for point, _, _ in kept],
        [epoch for _, epoch, _ in kept],
        [value for _, _, value in kept],
        running,
        trials,
    )


def _ranked(
    spec: StudySpec, kinds: Kinds, known: _Known, chosen: Mfgp, source: np.random.Generator
) -> Iterator[Point]:
    full = math.log(max(2, spec.full_epochs))
    last = math.log(spec.short_epochs) / full
    places = np.array([space.place(kinds, each) for each in known.points])
    epochs = np.log(known.epochs) / full
    model = Surrogate(Observed(places, epochs, np.array(known.values)))
    best = np.argsort(model.expected(places, last), kind="stable")
    around = [known.points[place] for place in best[: _AROUND * len(spec.rungs.epochs)]]
    if known.running:
        running = np.array([space.place(kinds, each) for each in known.running])
        model.believe(running, last)
    shares = _candidates(kinds, around, chosen.candidates, source)
    if spec.conditional:
        found = np.array([space.place(kinds, _point(spec, kinds, each)) for each in shares])
    else:
        found = _places(kinds, shares)
    gains = model.improvement(found, last)
    for place in np.argsort(-gains, kind="stable"):
        yield _point(spec, kinds, shares[place])


def _candidates(
    kinds: Kinds, around: Sequence[Point], count: int, source: np.random.Generator
) -> np.ndarray:
    """Points as shares (count, values) of each value: some anywhere, the others near *around*."""
    shares = source.random((count, len(kinds)))
    local = int(count * _LOCAL)
    chosen = source.integers(len(around), size=local)
    for column, (name, kind) in enumerate(kinds.items()):
        at = np.array(
            [space.share(kind, each[name]) if name in each else np.nan for each in around]
        )
        near = at[chosen]
        if isinstance(kind, CategoricalDistribution):
            near = np.where(source.random(local) < _CHANGED, np.nan, near)
        else:
            near = np.clip(near + source.normal(0.0, _STEP, local), 0.0, 1.0)
        shares[:local, column] = np.where(np.isnan(near), shares[:local, column], near)
    return shares


def _places(kinds: Kinds, shares: np.ndarray) -> np.ndarray:
    """`space.place` of all rows at once, where each point has every value."""
    columns: list[np.ndarray] = []
    for column, kind in enumerate(kinds.values()):
        if isinstance(kind, CategoricalDistribution):
            count = len(kind.choices)
            chosen = np.minimum((shares[:, column] * count).astype(int), count - 1)
            columns += [np.sqrt(0.5) * (chosen == each) for each in range(count)]
        else:
            columns.append(shares[:, column])
    return np.stack(columns, axis=1)


def _point(spec: StudySpec, kinds: Kinds, shares: np.ndarray) -> Point:
    values = {
        name: space.at(kind, float(share))
        for (name, kind), share in zip(kinds.items(), shares, strict=True)
    }
    return space.kept(spec.search, values) if spec.conditional else values
