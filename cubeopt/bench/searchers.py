"""Ways to search that a replay compares: ours, and Optuna's as its users run them.

All choose among the rows of one table, each once. A sampler proposes a point of the whole space and
gets the nearest row that is left, whose own point it is then told; a random search draws its rows.
"""

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from cubeopt.bench.curves import Curves
from cubeopt.bench.replaying import Work
from cubeopt.search import proposals, rungs
from cubeopt.search.samplers import Mfgp, Tpe
from cubeopt.search.study import Promotion, Rungs, StudySpec

AHEAD = 4  # waiting trials that the coordinator keeps ready at least


class _Rows:
    """The rows of a table that are left."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self._left = list(range(len(curves.rows)))

    def __bool__(self) -> bool:
        return bool(self._left)

    def nearest(self, point: Mapping[str, Any]) -> int:
        row = self._curves.nearest(point, self._left)
        self._left.remove(row)
        return row

    def drawn(self, source: random.Random) -> int:
        return self._left.pop(source.randrange(len(self._left)))


class OptunaSearcher:
    """`ask`, `report`, `should_prune`, `tell`, trial after trial to the last epoch."""

    def __init__(self, curves: Curves, sampler: BaseSampler, pruner: BasePruner, seed: int) -> None:
        self._curves, self._rows = curves, _Rows(curves)
        self._source = random.Random(seed)
        self._study = optuna.create_study(
            # Hyperband deals its brackets out by the study's name.
            study_name=f"replay {seed}",
            direction=curves.spec.objective.direction,
            sampler=sampler,
            pruner=pruner,
        )
        self._trials: dict[int, Trial] = {}

    def work(self) -> Work | None:
        if not self._rows:
            return None
        trial = self._study.ask(self._curves.kinds)
        if isinstance(self._study.sampler, RandomSampler):
            row = self._rows.drawn(self._source)
        else:
            row = self._rows.nearest(trial.params)
        _write(self._study, trial._trial_id, self._curves, row)
        self._trials[row] = trial
        return Work(row)

    def ended(self, row: int, epoch: int, value: float) -> bool:
        trial = self._trials[row]
        if math.isnan(value):
            self._study.tell(trial, state=TrialState.FAIL)
            return False
        trial.report(value, epoch)
        if trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
            return False
        if epoch == self._curves.epochs:
            self._study.tell(trial, value)
        return epoch < self._curves.epochs


def _write(study: optuna.Study, trial_id: int, curves: Curves, row: int) -> None:
    """Tell Optuna the point that is tried in the place of its own."""
    for name, kind in curves.kinds.items():
        inner = kind.to_internal_repr(curves.rows[row].point[name])
        study._storage.set_trial_param(trial_id, name, inner, kind)


class CubeoptSearcher:
    """Our service: points asked ahead, rungs, and promotion that continues from a checkpoint.

    The points are those of `search.proposals`, the verdicts those of `search.rungs`. Of n complete
    short runs the best n / reduction_factor are promoted as they come (Li et al. 2018, algorithm
    2). As in the service a full run goes before a short one, and is not told to Optuna.
    """

    def __init__(self, curves: Curves, spec: StudySpec) -> None:
        self._curves, self._spec, self._rows = curves, spec, _Rows(curves)
        self._study = optuna.create_study(
            direction=spec.objective.direction, sampler=RandomSampler()
        )
        self._numbers: dict[int, int] = {}  # by row, of its trial
        self._waiting: list[int] = []  # rows
        self._short: set[int] = set()  # rows that are in their short run
        self._values: dict[int, dict[int, float]] = {}  # by epoch and row
        self._complete: dict[int, float] = {}  # by row, of the short runs
        self._promoted: list[int] = []

    def work(self) -> Work | None:
        self._ask()
        chosen = self._promotable()
        if chosen is not None:
            self._promoted.append(chosen)
            return Work(chosen, self._spec.short_epochs)
        if not self._waiting:
            return None
        row = self._waiting.pop(0)
        self._short.add(row)
        self._ask()
        return Work(row)

    def _promotable(self) -> int | None:
        """The best complete short run that may have a full run and has none yet."""
        top = int(len(self._complete) / self._spec.rungs.reduction_factor)
        chosen = rungs.promote(self._complete, Promotion(top=top), self._spec.objective.direction)
        return next((row for row in chosen if row not in self._promoted), None)

    def _ask(self) -> None:
        wanted = max(AHEAD, len(self._short)) - len(self._waiting)
        for _ in range(wanted):
            if not self._rows:
                return
            trial = self._study.ask()
            frozen = self._study._storage.get_trial(trial._trial_id)
            point = proposals.propose(self._study, frozen, self._spec, trial.number, set(), None)
            row = self._rows.nearest(point)
            _write(self._study, trial._trial_id, self._curves, row)
            self._numbers[row] = trial.number
            self._waiting.append(row)

    def ended(self, row: int, epoch: int, value: float) -> bool:
        if row not in self._short:
            return True
        number = self._numbers[row]
        if math.isnan(value):
            return self._end(row, TrialState.PRUNED, None)
        self._study._storage.set_trial_intermediate_value(self._id(number), epoch, value)
        others = list(self._values.setdefault(epoch, {}).values())
        self._values[epoch][row] = value
        rules = self._spec.rungs
        if rungs.prune(rules, epoch, value, others, self._spec.objective.direction):
            return self._end(row, TrialState.PRUNED, value)
        if epoch == self._spec.short_epochs:
            self._complete[row] = value
            return self._end(row, TrialState.COMPLETE, value)
        return True

    def _end(self, row: int, state: TrialState, value: float | None) -> bool:
        self._short.remove(row)
        values = None if value is None else [value]
        self._study._storage.set_trial_state_values(self._id(self._numbers[row]), state, values)
        return False

    def _id(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(
            self._study._study_id, number
        )


def _ours(sampler: type[Tpe] | type[Mfgp]) -> Any:
    def make(curves: Curves, seed: int) -> CubeoptSearcher:
        changes = {"sampler": sampler(seed=seed), "rungs": Rungs()}
        return CubeoptSearcher(curves, curves.spec.model_copy(update=changes))

    return make


def _optuna(sampler: Callable[[int], BaseSampler], pruner: Callable[[Curves], BasePruner]) -> Any:
    return lambda curves, seed: OptunaSearcher(curves, sampler(seed), pruner(curves), seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


OURS = "cubeopt, mfgp"  # that the goal is for
METHODS = {
    OURS: _ours(Mfgp),
    "cubeopt, tpe (the default)": _ours(Tpe),
    "TPE": _optuna(_tpe, lambda curves: NopPruner()),
    "TPE, MedianPruner": _optuna(_tpe, lambda curves: MedianPruner()),
    "TPE, SuccessiveHalving auto/4": _optuna(_tpe, lambda curves: SuccessiveHalvingPruner()),
    "TPE, SuccessiveHalving 1/3": _optuna(_tpe, lambda curves: SuccessiveHalvingPruner(1, 3)),
    "TPE, Hyperband": _optuna(_tpe, lambda curves: HyperbandPruner(1, curves.epochs, 3)),
    "random": _optuna(_random, lambda curves: NopPruner()),
    "random, SuccessiveHalving auto/4": _optuna(_random, lambda curves: SuccessiveHalvingPruner()),
    "random, SuccessiveHalving 1/3": _optuna(_random, lambda curves: SuccessiveHalvingPruner(1, 3)),
}
