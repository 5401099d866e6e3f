"""Looks at one study again and again, and reads each time only what may have changed.

A run that has ended changes no more, unless a person has it retried; then it is open. So a look
reads what is open and what ended lately, however many trials there are.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cubeopt.db import budgets, chronicle, holdings, measures, records
from cubeopt.db.chronicle import Event
from cubeopt.db.engine import Engine
from cubeopt.db.records import AttemptRecord, RunRecord, StudyRecord, TrialRecord
from cubeopt.report import crew, glance, outlook, summary
from cubeopt.report.glance import Glance
from cubeopt.search import objective

# A row may be seen this much later than its timestamp says: as long as a transaction may last.
_OVERLAP = timedelta(seconds=60)
_EVENTS = 20  # that each look has at least, if there were so many
_NEW_EVENTS = 2_000  # since the look before, at most


class Follower:
    """One study, as it was at the last look."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self._forget(None)

    def look(self) -> Glance:
        """The study now; UnknownNameError when it does not exist, or no longer."""
        study = records.study(self._engine, self._name)
        if study.id != self._id:
            self._forget(study.id)
        self._read(study)
        trials = sorted(self._trials.values(), key=lambda trial: trial.number)
        runs = list(self._runs.values())
        found = summary.summarize(study, trials, runs, self._measured, self._attempts)
        return glance.glance(
            study,
            found,
            trials,
            runs,
            self._measured,
            records.workers(self._engine),
            holdings.read(self._engine, crew.LATELY),
            self._events,
            budgets.accounts(self._engine, study.id),
            chronicle.pace(self._engine, study.id, outlook.WINDOW_SECONDS),
        )

    def _forget(self, study_id: int | None) -> None:
        """As if nothing had been read: it is another study than before."""
        self._id = study_id
        self._since: datetime | None = None  # what ended before it is known
        self._trials: dict[int, TrialRecord] = {}
        self._runs: dict[int, RunRecord] = {}
        self._measured: dict[int, Mapping[str, Any]] = {}  # by run id
        self._attempts: list[AttemptRecord] = []
        self._events: list[Event] = []

    def _read(self, study: StudyRecord) -> None:
        engine, keys = self._engine, objective.goal_of(study.spec).keys
        limit = _EVENTS if self._since is None else _NEW_EVENTS
        new = chronicle.events(engine, study.id, limit, self._since)
        runs = records.runs(engine, study.id, self._since)
        trials = records.trials(engine, study.id, self._since)
        self._runs |= {run.id: run for run in runs}
        self._trials |= {trial.id: trial for trial in trials}
        changed = None if self._since is None else [run.id for run in runs]
        self._measured |= measures.last(engine, study.id, keys, changed)
        newest = self._attempts[-1].id if self._attempts else 0
        self._attempts += records.attempts(engine, study.id, newest)
        self._keep(new)
        ends = [run.finished_at for run in self._runs.values() if run.finished_at is not None]
        self._since = max(ends, default=study.created_at) - _OVERLAP

    def _keep(self, new: list[Event]) -> None:
        """All that is new since the last look, and so many before it that they are _EVENTS."""
        known = {each.key: each for each in self._events}
        fresh = sum(each.key not in known for each in new)
        kept = known | {each.key: each for each in new}
        events = sorted(kept.values(), key=lambda each: (each.at, each.trial))
        self._events = events[-max(_EVENTS, fresh) :]
