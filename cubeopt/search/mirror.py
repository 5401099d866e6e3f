"""A study in Optuna's tables, where the dashboard finds it: shown what stands in ours.

Nothing is read from there to decide anything. Everything here may be repeated: after a crash the
coordinator writes the same facts again and nothing counts twice.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from cubeopt import logs
from cubeopt.db import engine, showcase
from cubeopt.db.outcomes import Outcome
from cubeopt.errors import StorageError, StudyError
from cubeopt.search import memory, space
from cubeopt.search.study import StudySpec


class Mirror:
    """One study's counterpart in Optuna's tables.

    Optuna numbers trials in the order in which they are written, so they are written by number.
    """

    def __init__(
        self, storage: RDBStorage, spec: StudySpec, earlier: Sequence[StudySpec] = ()
    ) -> None:
        """*earlier*, the oldest first, is what the study was before it was revised."""
        self._storage, self._goal = storage, spec.goal
        self._distributions = [memory.distributions(each) for each in (spec, *reversed(earlier))]
        self._study = optuna.create_study(
            storage=storage,
            study_name=spec.name,
            directions=spec.objective.directions,
            load_if_exists=True,
            sampler=RandomSampler(),  # asked for nothing
        )
        self._study.set_metric_names(list(spec.objective.names))
        self.count = self._counted()  # trials there
        unended = (TrialState.WAITING, TrialState.RUNNING)
        found = self._study.get_trials(deepcopy=False, states=unended)
        self._ids = {each.number: each._trial_id for each in found}  # of those that have not ended

    def show(self, outcomes: Sequence[Outcome]) -> None:
        """Bring the trials of *outcomes*, by number, up to date."""
        trials = []
        for outcome in outcomes:
            if outcome.number < self.count and outcome.number not in self._ids:
                continue  # told by a coordinator that died before it wrote that down
            while self.count < outcome.number:
                trials.append(_row(memory.lost(), self.count))
                self.count += 1
            self.count = max(self.count, outcome.number + 1)
            drawn_from = self._drawn_from(outcome.params)
            shown = memory.frozen(outcome, drawn_from, self._goal)
            trials.append(_row(shown, outcome.number))
        unended = showcase.show(self._storage.engine, self._study._study_id, trials, self._ids)
        for trial in trials:
            self._ids.pop(trial["number"], None)
        self._ids |= unended

    def _drawn_from(self, params: Mapping[str, Any]) -> Mapping[str, BaseDistribution]:
        """For each value the newest interval, or choices, that it lies in."""
        newest = self._distributions[0]
        if len(self._distributions) == 1:
            return newest
        names = [*newest, *sorted(set(params) - set(newest))]
        return {
            name: next(
                each[name]
                for each in self._distributions
                if name in each and space.holds(each[name], params[name])
            )
            for name in names
            if name in params
        }

    def abandon(self, known: set[int]) -> None:
        """Tell trials that are not *known* to us, and would wait or run for ever, as failed."""
        for number in set(self._ids) - known:
            self._storage.set_trial_state_values(self._ids.pop(number), TrialState.FAIL)

    def note(self, key: str, value: Any) -> None:
        """Show a fact of the study beside it."""
        self._study.set_user_attr(key, value)

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
            self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
            return True
        return False


def _row(trial: FrozenTrial, number: int) -> dict[str, Any]:
    """*trial* as `showcase` takes it."""
    moments = (trial.datetime_start, trial.datetime_complete)
    begun, finished = [None if each is None else each.astimezone().isoformat() for each in moments]
    return {
        "number": number,
        "state": trial.state.name,
        "begun": begun,
        "finished": finished,
        "params": [
            [name, each.to_internal_repr(trial.params[name]), distribution_to_json(each)]
            for name, each in trial.distributions.items()
        ],
        "reached": list(trial.intermediate_values.items()),
        "values": trial.values or [],
        "attributes": [[key, json.dumps(value)] for key, value in trial.system_attrs.items()],
    }


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
    if logs.as_json():  # its own handler writes text
        optuna.logging.disable_default_handler()
        optuna.logging.enable_propagation()
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
