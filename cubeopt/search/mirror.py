"""A study in Optuna's tables: ask it for points, show it what came back.

Optuna proposes trials and draws them on its dashboard; it does not run them. Everything here may
be repeated: after a crash the coordinator writes the same facts again and nothing counts twice.
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from cubeopt.db import engine
from cubeopt.errors import StorageError, StudyError
from cubeopt.search.samplers import sampler
from cubeopt.search.study import StudySpec


class Mirror:
    """One study's counterpart in Optuna."""

    def __init__(self, storage: RDBStorage, spec: StudySpec) -> None:
        self._storage, self._spec = storage, spec
        self._study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            direction=spec.objective.direction,
            load_if_exists=True,
        )
        self._study.set_metric_names([spec.objective.metric])

    def ask(self, count: int, asked: int) -> list[tuple[int, dict[str, Any]]]:
        """*count* new points as (number, params); *asked* is how many there were before.

        Each is drawn with a seed of its own, so how many are asked at once changes no point of a
        random search.
        """
        distributions = self._spec.distributions()
        points = []
        for number in range(asked, asked + count):
            self._study.sampler = sampler(self._spec.sampler, number)
            trial = self._study.ask(distributions)
            points.append((trial.number, dict(trial.params)))
        return points

    def orphans(self, known: Iterable[int]) -> list[tuple[int, dict[str, Any]]]:
        """Points that were asked, but whose trial is not *known*: the asker died in between.

        A point that was not even drawn whole is told as failed.
        """
        numbers, found = set(known), []
        for each in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if each.number in numbers:
                continue
            if set(each.params) == set(self._spec.search):
                found.append((each.number, dict(each.params)))
            else:
                self.tell(each.number, TrialState.FAIL, None)
        return found

    def report(self, number: int, epoch: int, value: float) -> None:
        """Show the objective of a trial at the end of *epoch*."""
        # Finished already: told by a coordinator that died before it wrote that down.
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_intermediate_value(self._id(number), epoch, value)

    def tell_complete(self, number: int, value: float) -> None:
        self.tell(number, TrialState.COMPLETE, value)

    def tell_pruned(self, number: int, value: float | None) -> None:
        """Without a finite value (it diverged) Optuna ranks the trial behind all that have one."""
        self.tell(number, TrialState.PRUNED, value)

    def tell_failed(self, number: int) -> None:
        self.tell(number, TrialState.FAIL, None)

    def tell(self, number: int, state: TrialState, value: float | None) -> None:
        values = [value] if value is not None and math.isfinite(value) else None
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(self._id(number), state, values)

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
