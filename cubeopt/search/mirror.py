"""A study in Optuna's tables, where the dashboard finds it: shown what stands in ours.

Nothing is read from there to decide anything. Everything here may be repeated: after a crash the
coordinator writes the same facts again and nothing counts twice.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from cubeopt.db import engine
from cubeopt.db.outcomes import Outcome
from cubeopt.errors import StorageError, StudyError
from cubeopt.search import memory
from cubeopt.search.study import StudySpec


class Mirror:
    """One study's counterpart in Optuna's tables.

    Optuna numbers trials in the order in which they are written, so they are written by number.
    """

    def __init__(self, storage: BaseStorage, spec: StudySpec) -> None:
        self._storage, self._distributions = storage, memory.distributions(spec)
        self._study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            direction=spec.objective.direction,
            load_if_exists=True,
            sampler=RandomSampler(),  # asked for nothing
        )
        self._study.set_metric_names([spec.objective.metric])
        self.count = self._counted()  # trials there

    def show(self, outcomes: Sequence[Outcome]) -> None:
        """Bring the trials of *outcomes*, by number, up to date."""
        for outcome in outcomes:
            if outcome.number < self.count:
                self._update(outcome)
                continue
            while self.count < outcome.number:
                self._write(memory.lost())
            self._write(memory.frozen(outcome, self._distributions, {}))

    def abandon(self, known: set[int]) -> None:
        """Tell trials that are not *known* to us, and would wait or run for ever, as failed."""
        unended = (TrialState.WAITING, TrialState.RUNNING)
        for each in self._study.get_trials(deepcopy=False, states=unended):
            if each.number not in known:
                self._storage.set_trial_state_values(each._trial_id, TrialState.FAIL)

    def note(self, key: str, value: Any) -> None:
        """Show a fact of the study beside it."""
        self._study.set_user_attr(key, value)

    def _write(self, trial: optuna.trial.FrozenTrial) -> None:
        self._storage.create_new_trial(self._study._study_id, template_trial=trial)
        self.count += 1

    def _update(self, outcome: Outcome) -> None:
        trial_id = self._id(outcome.number)
        # Finished already: told by a coordinator that died before it wrote that down.
        with suppress(UpdateFinishedTrialError):
            for epoch, value in outcome.values.items():
                if epoch > outcome.mirrored_epoch:
                    self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            if outcome.ended:
                self._storage.set_trial_state_values(trial_id, *memory.end(outcome))

    def _counted(self) -> int:
        """By halving: to read them all takes seconds when there are many."""
        low, high = 0, 1
        while self._has(high - 1):
            low, high = high, 2 * high
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._has(middle) else (low, middle)
        return low

    def _has(self, number: int) -> bool:
        with suppress(KeyError):
            self._id(number)
            return True
        return False

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
