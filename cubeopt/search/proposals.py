"""The next point of a study, drawn whole before any of it is written.

A point depends on the study file, on how many were asked before and on what is known of the other
trials; on nothing that a process alone remembers. So a coordinator that starts again goes on with
the points that the last one would have drawn.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from cubeopt.search import multifidelity, samplers, space
from cubeopt.search.samplers import Cmaes, Gp, Grid, Mfgp, Nsgaii, Qmc, Tpe
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec

_TRIES = 8  # proposals of a sampler that may repeat a point, before others are looked for
_DEAR_TRIES = 2  # of a Gaussian process, which takes a second for one and hardly changes its mind

Taken = Set[frozenset[tuple[str, Any]]]  # identities of the points that were asked before


def untried(spec: StudySpec, points: Sequence[Point], taken: Taken) -> Point | None:
    """The next point of a grid, in an order that the seed decides; None when all were asked."""
    order = list(points)
    random.Random(spec.sampler.seed).shuffle(order)
    return next((each for each in order if space.identity(each) not in taken), None)


def propose(
    study: Study,
    trial: FrozenTrial,
    spec: StudySpec,
    asked: int,
    taken: Taken,
    points: Sequence[Point] | None,
) -> Point:
    """A point for *trial*, before which *asked* were asked: a new one as long as there is one.

    *points* are all that there are, or None if they cannot be counted. *trial* is new and empty,
    the latest of *study*.
    """
    found = candidates(study, trial, spec, asked)
    left = None if points is None else _left(points, taken)
    if left == []:
        return next(found)
    tries = _DEAR_TRIES if isinstance(spec.sampler, Gp) else _TRIES
    for each in itertools.islice(found, tries):
        if space.identity(each) not in taken:
            return each
    drawn = samplers.seed(spec.sampler, asked)
    if left is not None:
        return random.Random(drawn).choice(left)
    others = _sampled(study, trial, spec, RandomSampler(seed=drawn), {})
    return next(each for each in others if space.identity(each) not in taken)


def _left(points: Sequence[Point], taken: Taken) -> list[Point]:
    return [each for each in points if space.identity(each) not in taken]


def candidates(study: Study, trial: FrozenTrial, spec: StudySpec, asked: int) -> Iterator[Point]:
    """What the sampler proposes for *trial*, without end; the first is what it likes best."""
    chosen = spec.sampler
    assert not isinstance(chosen, Grid)
    if isinstance(chosen, Qmc):
        return _sequence(spec, chosen, asked)
    if isinstance(chosen, Mfgp):
        return multifidelity.points(study, trial, spec, chosen, asked)
    sampler = samplers.build(chosen, asked, spec.conditional)
    return _sampled(study, trial, spec, sampler, _together(study, trial, spec, sampler))


def modelled(spec: StudySpec) -> dict[str, BaseDistribution]:
    """What CMA-ES, a Gaussian process or NSGA-II sees as one space: what every trial has.

    Optuna would take what the trials so far have in common.
    """
    if not isinstance(spec.sampler, Cmaes | Gp | Nsgaii):
        return {}
    numbers_only = isinstance(spec.sampler, Cmaes)
    return {
        name: distribution
        for name, distribution in sorted(spec.distributions().items())
        if not spec.search[name].when
        and not (numbers_only and isinstance(distribution, CategoricalDistribution))
    }


def granted(
    study: Study, trial: FrozenTrial, spec: StudySpec, asked: int, wish: Mapping[str, Any]
) -> Point:
    """A point with the values of *wish*; what it leaves open is drawn by the sampler.

    A grid, a sequence and mfgp have no say in it: there the rest is drawn at random.
    """
    chosen = spec.sampler
    if isinstance(chosen, Grid | Qmc | Mfgp):
        sampler: BaseSampler = RandomSampler(seed=samplers.seed(chosen, asked))
        return next(_sampled(study, trial, spec, sampler, {}, wish))
    sampler = samplers.build(chosen, asked, spec.conditional)
    return next(_sampled(study, trial, spec, sampler, _together(study, trial, spec, sampler), wish))


def _together(
    study: Study, trial: FrozenTrial, spec: StudySpec, sampler: BaseSampler
) -> dict[str, BaseDistribution]:
    """The values that *sampler* draws as one."""
    if isinstance(spec.sampler, Tpe):
        return sampler.infer_relative_search_space(study, trial)
    return modelled(spec)


def _sampled(
    study: Study,
    trial: FrozenTrial,
    spec: StudySpec,
    sampler: BaseSampler,
    together: dict[str, BaseDistribution],
    wish: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Point]:
    """Points of an Optuna sampler: the values of *together* as one, each other one by itself.

    All have the values of *wish*.
    """
    distributions, names = spec.distributions(), space.ordered(spec.search)
    while True:
        joint = sampler.sample_relative(study, trial, together)
        point: Point = {}
        for name in names:
            distribution = distributions[name]
            if not space.active(spec.search[name], point):
                continue
            if name in wish:
                value = wish[name]
            elif name in joint:
                value = joint[name]
            else:
                value = sampler.sample_independent(study, trial, name, distribution)
            point[name] = distribution.to_external_repr(distribution.to_internal_repr(value))
        yield point


def _sequence(spec: StudySpec, chosen: Qmc, asked: int) -> Iterator[Point]:
    """The points of a quasi-random sequence, from the one at place *asked* on."""
    from scipy.stats import qmc  # only those who use it have to have it

    distributions = sorted(spec.distributions().items())
    kind = qmc.Sobol if chosen.sequence == "sobol" else qmc.Halton
    generator = np.random.default_rng(chosen.seed)
    sequence = kind(len(distributions), scramble=chosen.scramble, rng=generator)
    if asked:
        sequence.fast_forward(asked)
    while True:
        (shares,) = sequence.random(1)
        values = {
            name: space.at(distribution, float(share))
            for (name, distribution), share in zip(distributions, shares, strict=True)
        }
        yield space.kept(spec.search, values)
