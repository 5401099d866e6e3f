"""What the sampler of a study knows: its trials, in Optuna's own memory.

A sampler reads all trials for every point it proposes. It reads them here, where nothing has to be
fetched: a memory is made from our tables, and then told what ended. Everything a sampler writes
beside a trial comes out with the point and goes into the tables with it, so that a memory made
again proposes what the one before would have proposed.

Trials of earlier studies come before its own, and are of no other account. Trials that were asked
before the study was revised teach what they tell of the space as it is now (see `inheritance`).

With two objectives no intermediate values are written: Optuna's TPE asks a study for its one
direction as soon as a pruned trial has some, and its dashboard does not draw them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from cubeopt.db.outcomes import Outcome, Wish
from cubeopt.db.priors import Prior
from cubeopt.db.tables import RunState
from cubeopt.errors import ConfigError
from cubeopt.search import proposals, samplers, space, wish
from cubeopt.search.inheritance import Room
from cubeopt.search.objective import Goal
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec

_WISH = "fixed_params"  # where Optuna keeps the values of an enqueued trial
# Where its samplers and its dashboard look for how far a trial is beyond each bound. Of its two
# forms (a list; "constraints:NAME", which Trial.set_constraint writes) the dashboard knows this.
_CONSTRAINTS = "constraints"
REVISION = "revision"  # among the notes: under which the trial was drawn, unless the first
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Drawn:
    """A new trial."""

    number: int
    params: Point
    notes: dict[str, Any]  # what the sampler wrote, beside the trial and beside the study


class Memory:
    """One study as its sampler sees it."""

    def __init__(
        self,
        spec: StudySpec,
        outcomes: Iterable[Outcome],
        numbered: int = 0,
        priors: Sequence[Prior] = (),
        revision: int = 0,
    ) -> None:
        """*outcomes* are all trials by number; of the numbers below *numbered* none is free.

        *priors* are trials of earlier studies; *revision* is how often space or sampler changed.
        """
        self._spec, self._goal, self._points = spec, spec.goal, spec.points()
        self._distributions = distributions(spec)
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            directions=spec.objective.directions,
            sampler=RandomSampler(),  # asked for nothing: proposals.py draws
        )
        self._taken: set[frozenset[tuple[str, Any]]] = set()
        self._room, self._revision = Room(spec), revision
        self._before = len(priors)  # Optuna's number of our trial 0
        self._count = 0
        self.asked = 0  # trials of ours
        self.open: set[int] = set()  # those whose end is not known here
        self._untold: set[int] = set()  # those that the sampler is told nothing of
        for prior in priors:
            self._create(self._inherited(prior))
        for outcome in outcomes:
            self._skip_to(outcome.number)
            self._recall(outcome)
        self._skip_to(numbered)

    def _recall(self, outcome: Outcome) -> None:
        """A trial that was asked for before this memory was made."""
        number, notes = outcome.number, outcome.notes
        self.asked += 1
        if not outcome.ended:
            self.open.add(number)
        if notes.get(REVISION, 0) != self._revision:
            notes = {"trial": samplers.adopted(self._spec.sampler)}
        point = self._point(outcome.params, number)
        if point is None:
            self._untold.add(number)
            self._add(lost())
            return
        its = replace(outcome, params=point)
        self._add(frozen(its, self._distributions, self._goal, notes.get("trial", {})))
        for key, value in notes.get("study", {}).items():
            self._storage.set_study_system_attr(self._study._study_id, key, value)
        self._taken.add(space.identity(point))

    def _point(self, params: Point, number: int) -> Point | None:
        """What a trial of ours is in the space as it is now."""
        if not self._revision:
            return params
        return self._room.point(self._room.values(params, number))

    def _inherited(self, prior: Prior) -> FrozenTrial:
        point = self._room.point(prior.spec)
        if point is None:
            return lost()
        outcome = Outcome(
            number=prior.number,
            params=point,
            notes={},
            state=prior.state,
            epoch=max(prior.values, default=0),
            value=prior.value,
            values=prior.values,
            metrics=prior.metrics,
            mirrored_epoch=-1,
            begun_at=_LONG_AGO,
            finished_at=_LONG_AGO,
        )
        notes = samplers.adopted(self._spec.sampler)
        return frozen(outcome, self._distributions, self._goal, notes)

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Note how trials ended."""
        for outcome in outcomes:
            self.open.discard(outcome.number)
            if outcome.number in self._untold:
                continue
            trial_id = self._id(outcome.number)
            for epoch, value in curve(outcome, self._goal).items():
                self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            for key, excesses in bounds(outcome, self._goal).items():
                self._storage.set_trial_system_attr(trial_id, key, excesses)
            self._storage.set_trial_state_values(trial_id, *end(outcome, self._goal))

    def ask(self, count: int, wishes: Iterable[Wish] = ()) -> list[Drawn]:
        """At most *count* new trials.

        *wishes*, by number, come first. Fewer come when a grid ends. Each point is drawn for
        itself, with the ones before it known, so that how many are asked at once changes none.
        """
        waiting, drawn = list(wishes), list[Drawn]()
        for _ in range(count):
            one = self._granted(waiting.pop(0)) if waiting else self._drawn()
            if one is None:
                break
            drawn.append(one)
        return drawn

    def _drawn(self) -> Drawn | None:
        point = None
        if self._spec.sampler.name == "grid":
            assert self._points is not None
            point = proposals.untried(self._spec, self._points, self._taken)
            if point is None:
                return None
        before = self._study_notes()
        trial = self._begun()
        if point is None:
            point = proposals.propose(
                self._study, trial, self._spec, self.asked, self._taken, self._points
            )
        return self._kept(trial, point, before)

    def _granted(self, wished: Wish) -> Drawn:
        """The trial that a person wished for, with the values that were left open."""
        self._skip_to(wished.number)
        try:
            wish.checked(self._spec, wished.params)
        except ConfigError:
            return self._regardless(wished)
        before = self._study_notes()
        self._study.enqueue_trial(wished.params)
        trial = self._begun()
        values = {**trial.system_attrs[_WISH], **trial.params}
        point = proposals.granted(self._study, trial, self._spec, self.asked, values)
        return self._kept(trial, point, before)

    def _regardless(self, wished: Wish) -> Drawn:
        """A wish that was checked before the study was revised; the base has the rest."""
        notes = {REVISION: self._revision}
        self._recall(
            Outcome(
                number=wished.number,
                params=wished.params,
                notes=notes,
                state=RunState.WAITING,
                epoch=0,
                value=None,
                values={},
                metrics={},
                mirrored_epoch=-1,
                begun_at=_LONG_AGO,
                finished_at=None,
            )
        )
        return Drawn(wished.number, wished.params, notes)

    def _begun(self) -> FrozenTrial:
        """A trial that has a number and no point yet."""
        number = self._study.ask().number  # the study's own sampler draws nothing
        assert number == self._before + self._count
        self._count += 1
        return self._storage.get_trial(number)

    def _kept(self, trial: FrozenTrial, point: Point, before: Mapping[str, Any]) -> Drawn:
        for name, value in point.items():
            distribution = self._distributions[name]
            inner = distribution.to_internal_repr(value)
            self._storage.set_trial_param(trial._trial_id, name, inner, distribution)
        self._taken.add(space.identity(point))
        number = trial.number - self._before
        self.open.add(number)
        self.asked += 1
        beside = self._study_notes()
        notes: dict[str, Any] = {
            "trial": self._storage.get_trial(trial._trial_id).system_attrs,
            "study": {key: beside[key] for key in beside if beside[key] != before.get(key)},
        }
        notes = {where: some for where, some in notes.items() if some}
        if self._revision:
            notes[REVISION] = self._revision
        return Drawn(number, point, notes)

    def _study_notes(self) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(self._study._study_id)

    def _skip_to(self, number: int) -> None:
        """Numbers that no trial of ours has are those of trials that failed."""
        while self._count < number:
            self._add(lost())

    def _add(self, trial: FrozenTrial) -> None:
        self._create(trial)
        self._count += 1

    def _create(self, trial: FrozenTrial) -> None:
        self._storage.create_new_trial(self._study._study_id, template_trial=trial)

    def _id(self, number: int) -> int:
        """Optuna's id of our trial *number*."""
        return self._storage.get_trial_id_from_study_id_trial_number(
            self._study._study_id, self._before + number
        )


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """Where each value is drawn from, in the order in which they are drawn."""
    found = spec.distributions()
    return {name: found[name] for name in space.ordered(spec.search)}


def frozen(
    outcome: Outcome,
    drawn_from: Mapping[str, BaseDistribution],
    goal: Goal,
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> FrozenTrial:
    """*outcome* as Optuna has it, with *notes* beside it."""
    its = {name: each for name, each in drawn_from.items() if name in outcome.params}
    state, values = end(outcome, goal) if outcome.ended else (TrialState.RUNNING, None)
    moments = [
        None if moment is None else moment.astimezone().replace(tzinfo=None)
        for moment in (outcome.begun_at, outcome.finished_at if outcome.ended else None)
    ]
    return FrozenTrial(
        number=outcome.number,
        trial_id=-1,  # the storage gives one
        state=state,
        value=None,
        values=values,
        datetime_start=moments[0],
        datetime_complete=moments[1],
        params={
            name: each.to_external_repr(each.to_internal_repr(outcome.params[name]))
            for name, each in its.items()
        },
        distributions=its,
        user_attrs={},
        system_attrs={**notes, **(bounds(outcome, goal) if outcome.ended else {})},
        intermediate_values=curve(outcome, goal),
    )


def end(outcome: Outcome, goal: Goal) -> tuple[TrialState, list[float] | None]:
    """How the trial ended, in Optuna's words.

    Pruned without finite values (it diverged), Optuna ranks it behind all that have some.
    """
    if outcome.state == RunState.FAILED:
        return TrialState.FAIL, None
    found = (outcome.value,) if goal.objective.second is None else goal.values(_reached(outcome))
    values = [value for value in found or () if value is not None and math.isfinite(value)]
    whole = len(values) == len(goal.objective.names)
    complete = outcome.state == RunState.COMPLETE and whole
    return TrialState.COMPLETE if complete else TrialState.PRUNED, values if whole else None


def bounds(outcome: Outcome, goal: Goal) -> dict[str, list[float]]:
    """How far the trial is beyond each bound of the study, under the name that Optuna looks for."""
    if not goal.constraints or outcome.state == RunState.FAILED:
        return {}
    return {_CONSTRAINTS: goal.excesses(_reached(outcome))}


def curve(outcome: Outcome, goal: Goal) -> dict[int, float]:
    """The objective by epoch; of two objectives nothing."""
    return outcome.values if goal.objective.second is None else {}


def _reached(outcome: Outcome) -> dict[str, Any]:
    """One that diverged has no result, whatever its epochs before that were like."""
    return outcome.metrics if outcome.value is not None else {}


def lost() -> FrozenTrial:
    """A trial that is no more than a number."""
    return optuna.trial.create_trial(state=TrialState.FAIL)
