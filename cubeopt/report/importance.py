"""Which searched values decide, as rows.

PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255; of values that only some trials have: arXiv
2601.20800) as Optuna computes it: how far the distribution of a value among the best trials is
from that among all. Optuna's dashboard uses it, too. It asks only who is better, so trials that
were cut count as well: behind all that are complete, and the later they were cut the better, which
is how Optuna's TPE orders them.
"""

import math
import random
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from cubeopt.db.records import RunRecord
from cubeopt.db.tables import RunState
from cubeopt.report import ranking
from cubeopt.report.material import Material
from cubeopt.search import fronts, space, study
from cubeopt.search.objective import finite

FEWEST = 10  # trials; of fewer the best are hardly five
_BEST, _AT_LEAST = 0.1, 5  # the best tenth, but no less than Optuna asks for
_MOST = 500  # trials: more make the same picture, slower
_SHUFFLES = 20
_EXCEEDED_BY = 1  # of those: so 19 of 20 stay below


@dataclass(frozen=True)
class Importance:
    """One searched value; both numbers in shares of the sum over all values."""

    name: str
    share: float
    chance: float  # what 19 of 20 shuffles of the results stay below: no more is no evidence

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Importances:
    """Of *trials* that have ended, what tells the *best* of them from the rest."""

    trials: int  # in the space as it is now
    used: int  # of them, evenly chosen
    best: int
    rows: list[Importance]  # the most important first; none of too few trials


def importances(found: Material) -> Importances:
    order = _ranked(found)
    params = {trial.number: trial.params for trial in found.trials}
    distributions = study.stored(found.study.spec).distributions()
    inside = [
        number
        for number in order
        if all(
            name in distributions and space.holds(distributions[name], value)
            for name, value in params[number].items()
        )
    ]
    step = math.ceil(len(inside) / _MOST) if inside else 1
    used = inside[::step]
    best = min(len(used), max(math.ceil(_BEST * len(used)), _AT_LEAST))
    if len(used) < FEWEST:
        return Importances(len(inside), len(used), best, [])
    trials = [
        optuna.trial.create_trial(
            params=params[number],
            distributions={name: distributions[name] for name in params[number]},
            value=float(place),
        )
        for place, number in enumerate(used)
    ]
    return Importances(len(inside), len(used), best, _rows(trials, best))


def _rows(trials: list[FrozenTrial], best: int) -> list[Importance]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sample = optuna.create_study(storage=InMemoryStorage())
    sample.add_trials(trials)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best / len(trials))
    kept = sample.get_trials(deepcopy=False)
    found = _evaluate(evaluator, sample)
    total = math.fsum(found.values())
    if not total:
        return []
    generator, places = random.Random(0), [float(place) for place in range(len(kept))]
    shuffled: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(_SHUFFLES):
        generator.shuffle(places)
        for trial, place in zip(kept, places, strict=True):
            trial.value = place
        for name, value in _evaluate(evaluator, sample).items():
            shuffled[name].append(value)
    rows = [
        Importance(name, value / total, sorted(shuffled[name])[-1 - _EXCEEDED_BY] / total)
        for name, value in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.share, row.name))


def _evaluate(evaluator: PedAnovaImportanceEvaluator, sample: optuna.Study) -> dict[str, float]:
    with warnings.catch_warnings():  # of values that one trial alone has: they count nothing
        warnings.simplefilter("ignore")
        return evaluator.evaluate(sample)


def _ranked(found: Material) -> list[int]:
    """The trials that have ended with a value, the best first; those that diverged at the end."""
    complete = [run for run in found.short if run.state == RunState.COMPLETE]
    cut = [run for run in found.short if run.state == RunState.PRUNED]
    sign = 1.0 if found.study.direction == "minimize" else -1.0

    def worth(run: RunRecord) -> tuple[float, int]:
        value = finite(run.value)
        return math.inf if value is None else sign * value, run.trial_number

    if found.goal.objective.second is None:
        first = [run.trial_number for run in sorted(complete, key=worth)]
    else:
        points = {
            run.trial_number: point
            for run in complete
            if (point := found.goal.losses(ranking.reached(run, found.measured))) is not None
        }
        first = fronts.ranked(points)
    by_value = [run for run in cut if finite(run.value) is not None]
    diverged = sorted(run.trial_number for run in cut if finite(run.value) is None)
    later = sorted(by_value, key=lambda run: (-run.epoch, *worth(run)))
    return [*first, *(run.trial_number for run in later), *diverged]
