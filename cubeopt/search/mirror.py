"""A study in Optuna's tables: ask it for points, show it what came back.

Optuna proposes trials and draws them on its dashboard; it does not run them. Everything here may
be repeated: after a crash the coordinator writes the same facts again and nothing counts twice.

With two objectives no intermediate values are written: Optuna's TPE asks a study for its one
direction as soon as a pruned trial has some, and its dashboard does not draw them.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from cubeopt.db import engine
from cubeopt.errors import StorageError, StudyError
from cubeopt.search import proposals, space
from cubeopt.search.space import Point
from cubeopt.search.study import StudySpec

_WISH = "fixed_params"  # where Optuna keeps the values of an enqueued trial
# Where its samplers and its dashboard look for how far a trial is beyond each bound. Of its two
# forms (a list; "constraints:NAME", which Trial.set_constraint writes) the dashboard knows this.
_CONSTRAINTS = "constraints"


class Mirror:
    """One study's counterpart in Optuna."""

    def __init__(self, storage: RDBStorage, spec: StudySpec) -> None:
        self._storage, self._spec = storage, spec
        self._points = spec.points()
        self.trials = spec.trials()  # how many there will be; None: until another budget is spent
        self._study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            directions=spec.objective.directions,
            load_if_exists=True,
            sampler=RandomSampler(),  # asked for nothing: proposals.py draws
        )
        self._study.set_metric_names(list(spec.objective.names))

    def ask(self, count: int, asked: int) -> list[tuple[int, Point]]:
        """At most *count* new points as (number, params); *asked* is how many there were before.

        Fewer come when a grid ends. Each point is drawn for itself, with the ones before it known,
        so that how many are asked at once changes none.
        """
        trials = self._study.get_trials(deepcopy=False)
        taken = {space.identity(each.params) for each in trials}
        points = []
        for place in range(asked, asked + count):
            drawn = self._draw(place, taken)
            if drawn is None:
                break
            points.append(drawn)
            taken.add(space.identity(drawn[1]))
        return points

    def _draw(self, asked: int, taken: proposals.Taken) -> tuple[int, Point] | None:
        """A new trial and its point, which is written when the whole of it is known.

        What a person wished for comes first.
        """
        if self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return self._granted(self._study.ask().number, asked)
        point = None
        if self._spec.sampler.name == "grid":
            assert self._points is not None
            point = proposals.untried(self._spec, self._points, taken)
            if point is None:
                return None
        number = self._study.ask().number  # empty: the study's own sampler draws nothing
        trial = self._storage.get_trial(self._id(number))
        if point is None:
            point = proposals.propose(self._study, trial, self._spec, asked, taken, self._points)
        self._write(trial, point)
        return number, point

    def _granted(self, number: int, asked: int) -> tuple[int, Point]:
        """A trial that a person wished for, with the values that were left open."""
        trial = self._storage.get_trial(self._id(number))
        wish = {**trial.system_attrs[_WISH], **trial.params}
        point = proposals.granted(self._study, trial, self._spec, asked, wish)
        self._write(trial, point)
        return number, point

    def _write(self, trial: FrozenTrial, point: Point) -> None:
        distributions = self._spec.distributions()
        for name, value in point.items():
            inner = distributions[name].to_internal_repr(value)
            self._storage.set_trial_param(trial._trial_id, name, inner, distributions[name])

    def orphans(self, known: Iterable[int]) -> list[tuple[int, Point]]:
        """Points that were asked, but whose trial is not *known*: the asker died in between.

        A point that was not even drawn whole is told as failed, unless a person wished for it.
        """
        numbers, found = set(known), []
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if each.number in numbers:
                continue
            if space.whole(self._spec.search, each.params):
                found.append((each.number, dict(each.params)))
            elif _WISH in each.system_attrs:
                found.append(self._granted(each.number, each.number))
            else:
                self.tell_failed(each.number)
        return found

    def report(self, number: int, epoch: int, value: float) -> None:
        """Show the objective of a trial at the end of *epoch*; of two objectives nothing."""
        if self._spec.objective.second is not None:
            return
        # Finished already: told by a coordinator that died before it wrote that down.
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def bound(self, number: int, excesses: Sequence[float]) -> None:
        """Say how far a trial is beyond each bound of the study; before its end is told."""
        if not excesses:
            return
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_system_attr(self._id(number), _CONSTRAINTS, list(excesses))

    def tell_complete(self, number: int, *values: float) -> None:
        self.tell(number, TrialState.COMPLETE, *values)

    def tell_pruned(self, number: int, *values: float | None) -> None:
        """Without finite values (it diverged) Optuna ranks the trial behind all that have some."""
        self.tell(number, TrialState.PRUNED, *values)

    def tell_failed(self, number: int) -> None:
        self.tell(number, TrialState.FAIL)

    def tell(self, number: int, state: TrialState, *values: float | None) -> None:
        known = [value for value in values if value is not None and math.isfinite(value)]
        whole = len(known) == len(self._spec.objective.names)
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._id(number), state, known if whole else None)

    def note(self, key: str, value: Any) -> None:
        """Show a fact of the study beside it."""
        self._study.set_user_attr(key, value)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


@contextmanager
def translated() -> Iterator[None]:
    """Turn Optuna's storage errors into a StorageError of one line."""
    try:
        yield
    except StorageInternalError as error:
        cause = error.__cause__ or error
        raise StorageError(f"Optuna's tables: {str(cause).splitlines()[0]}") from error


def open_storage(url: str) -> RDBStorage:
    """Optuna's tables in the database at *url*, created when they are not there.

    Raises StorageError when PostgreSQL cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # Two that make the tables at once collide; and errors of SQLAlchemy come through Optuna.
    with engine.alone(url), engine.translated("Optuna's tables"), translated():
        return RDBStorage(url)


def create(url: str, spec: StudySpec) -> None:
    """Make the study in Optuna's tables, so that the dashboard shows it before its first trial."""
    storage = open_storage(url)
    try:
        Mirror(storage, spec)
    finally:
        storage.engine.dispose()


def enqueue(url: str, spec: StudySpec, params: dict[str, Any]) -> int:
    """Have Optuna propose *params* next, what is not given drawn by the sampler; its number."""
    storage = open_storage(url)
    try:
        study = optuna.load_study(study_name=spec.name, storage=storage)
        study.enqueue_trial(params)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return int(waiting[-1].number)
    finally:
        storage.engine.dispose()


def remove(url: str, name: str) -> bool:
    """Delete the study called *name* from Optuna's tables; False when there is none."""
    storage = open_storage(url)
    try:
        found = [each._study_id for each in storage.get_all_studies() if each.study_name == name]
        for study_id in found:
            storage.delete_study(study_id)
        return bool(found)
    finally:
        storage.engine.dispose()


def check_free(url: str, name: str) -> None:
    """StudyError when Optuna's tables hold a study called *name* already."""
    storage = open_storage(url)
    try:
        if name in {each.study_name for each in storage.get_all_studies()}:
            raise StudyError(
                f"Optuna's tables in this database already hold a study {name!r}; "
                "give this one another name with --name"
            )
    finally:
        storage.engine.dispose()
