"""Optuna's tables as its dashboard is shown them: read fast, adorned; only notes are written.

What stands in them is not touched. A study's system attributes are those of the tables and, on top,
what `gallery` makes of our own rows when somebody looks.
"""

import copy
import heapq
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from threading import Lock
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from cubeopt.dashboard import note
from cubeopt.dashboard.gallery import Gallery
from cubeopt.db import showcase
from cubeopt.db.showcase import Shown

_NOTE = re.compile(r"dashboard:(\d+:)?note_(ver|str:\d+)")


class Overlay(BaseStorage):
    """Optuna's storage, for its dashboard. Threads may share it."""

    def __init__(self, tables: RDBStorage, gallery: Gallery) -> None:
        self._tables, self._gallery = tables, gallery
        self._trials: dict[int, _Trials] = {}
        self._lock = Lock()

    def get_all_studies(self) -> list[FrozenStudy]:
        found = self._tables.get_all_studies()
        for each in found:
            adorned: Any = _Attributes(each.study_name, each.system_attrs, self._gallery)
            each.system_attrs = adorned
        self._forget({each._study_id for each in found})
        return found

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        name = self._tables.get_study_name_from_id(study_id)
        return self._gallery.adorn(name, self._tables.get_study_system_attrs(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._tables.get_study_user_attrs(study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._tables.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._tables.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._tables.get_study_directions(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._tables.get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Trials that nobody changes, by number; of those that have ended each is read once.

        Of a study of ours the `note.CURVES` that came farthest have their values after each epoch.
        """
        with self._lock:
            known = self._trials.setdefault(study_id, _Trials())
        with known.lock:
            known.learn(showcase.read(self._tables.engine, study_id, known.last, known.opened))
            found = list(known.by_number.values())
            if len(known.courses) > note.CURVES and self._is_ours(study_id, known):
                kept = known.farthest(self._tables.get_study_directions(study_id)[0])
                found = [each if each.number in kept else known.bare(each) for each in found]
        return [each for each in found if states is None or each.state in states]

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if _NOTE.fullmatch(key) is None:
            _refuse()
        self._tables.set_study_system_attr(study_id, key, value)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        _refuse()

    def delete_study(self, study_id: int) -> None:
        _refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        _refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        _refuse()

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        _refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        _refuse()

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        _refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse()

    def _is_ours(self, study_id: int, known: "_Trials") -> bool:
        if not known.ours:
            known.ours = self._gallery.has(self._tables.get_study_name_from_id(study_id))
        return known.ours

    def _forget(self, kept: set[int]) -> None:
        with self._lock:
            for study_id in set(self._trials) - kept:
                del self._trials[study_id]


class _Attributes(Mapping[str, Any]):
    """A study's attributes; what is made of our rows is made when it is asked for."""

    def __init__(self, name: str, written: dict[str, Any], gallery: Gallery) -> None:
        self._name, self._written, self._gallery = name, written, gallery

    def __getitem__(self, key: str) -> Any:
        # The list of all studies asks each for what it is; that makes no pictures.
        if key in self._written or not key.startswith(("dashboard:", "artifacts:")):
            return self._written[key]
        return self._all[key]

    def __contains__(self, key: object) -> bool:
        return key in self._all

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def items(self) -> Any:
        return self._all.items()

    @cached_property
    def _all(self) -> dict[str, Any]:
        return self._gallery.adorn(self._name, self._written)


@dataclass
class _Trials:
    """What has been read of one study."""

    by_number: dict[int, FrozenTrial] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)  # ids of those that have not ended
    courses: set[int] = field(default_factory=set)  # numbers of those with values on the way
    shortened: dict[int, FrozenTrial] = field(default_factory=dict)  # the same without
    last: int = -1  # the highest id
    ours: bool = False  # as far as is known
    lock: Lock = field(default_factory=Lock)

    def learn(self, news: Sequence[Shown]) -> None:
        gone = self.opened - {each.trial_id for each in news}
        for each in news:
            trial = _frozen(each)
            self.by_number[each.number] = trial
            self.shortened.pop(each.number, None)
            if trial.intermediate_values:
                self.courses.add(each.number)
            self.last = max(self.last, each.trial_id)
            (self.opened.discard if trial.state.is_finished() else self.opened.add)(each.trial_id)
        if gone:  # somebody has deleted the study while we looked
            self.opened -= gone
        self.by_number = dict(sorted(self.by_number.items()))

    def farthest(self, direction: StudyDirection) -> set[int]:
        """The numbers of `note.CURVES` trials: those under way, then by epochs, then by value."""
        sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0

        def place(number: int) -> tuple[bool, int, float, int]:
            trial = self.by_number[number]
            epoch = max(trial.intermediate_values)
            value = trial.intermediate_values[epoch]
            worth = math.inf if math.isnan(value) else sign * value
            return trial.state.is_finished(), -epoch, worth, number

        return set(heapq.nsmallest(note.CURVES, self.courses, place))

    def bare(self, trial: FrozenTrial) -> FrozenTrial:
        """*trial* without its values on the way."""
        if trial.number not in self.shortened:
            shortened = self.shortened[trial.number] = copy.copy(trial)
            shortened.intermediate_values = {}
        return self.shortened[trial.number]


def _frozen(shown: Shown) -> FrozenTrial:
    """As Optuna's own storage reads it; a test compares them."""
    drawn_from = {name: _distribution(text) for name, _, text in shown.params}
    return FrozenTrial(
        number=shown.number,
        state=TrialState[shown.state],
        value=None,
        values=shown.values or None,
        datetime_start=_local(shown.begun),
        datetime_complete=_local(shown.finished),
        params={name: drawn_from[name].to_external_repr(value) for name, value, _ in shown.params},
        distributions=drawn_from,
        user_attrs=shown.user_attributes,
        system_attrs=shown.attributes,
        intermediate_values=shown.reached,
        trial_id=shown.trial_id,
    )


@cache
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(moment: datetime | None) -> datetime | None:
    """The tables have UTC, Optuna's trials the time of this machine; neither has a zone."""
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _refuse() -> NoReturn:
    raise RuntimeError("cubeopt's studies and trials cannot be changed here")
