"""All that the charts of a study are made of, read once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cubeopt.db import budgets, courses, measures, priors, records, revisions
from cubeopt.db.budgets import Account
from cubeopt.db.courses import Course
from cubeopt.db.engine import Engine
from cubeopt.db.records import AttemptRecord, RunRecord, StudyRecord, TrialRecord, WorkerRecord
from cubeopt.db.tables import RunKind, StudyState
from cubeopt.report.past import Past, past
from cubeopt.report.ranking import Measured
from cubeopt.report.summary import Records, Summary, summarize
from cubeopt.search import objective
from cubeopt.search.objective import Goal
from cubeopt.search.study import Rungs


@dataclass(frozen=True)
class Material:
    """A study without the metrics of its epochs: thousands of trials are read in a second."""

    study: StudyRecord
    trials: list[TrialRecord]
    runs: list[RunRecord]
    courses: Mapping[int, Course]  # by run id
    attempts: list[AttemptRecord]
    workers: Mapping[int, WorkerRecord]  # by id
    measured: Measured
    budgets: list[Account]
    past: Past
    now: datetime  # by the clock of the database

    @property
    def goal(self) -> Goal:
        return objective.goal_of(self.study.spec)

    @property
    def rungs(self) -> Rungs:
        return Rungs.model_validate(self.study.spec.get("rungs", {}))

    @property
    def short(self) -> list[RunRecord]:
        """The short runs, by trial number."""
        return [run for run in self.runs if run.kind == RunKind.SHORT]

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of itself."""
        return self.study.state in (StudyState.COMPLETE, StudyState.STOPPED, StudyState.FAILED)

    @property
    def better(self) -> str:
        """ "fvu, lower is better"."""
        way = "lower" if self.study.direction == "minimize" else "higher"
        return f"{self.study.metric}, {way} is better"

    def summary(self) -> Summary:
        return summarize(self.study, self.trials, self.runs, self.measured, self.attempts)


def load(engine: Engine, name: str) -> Material:
    """Read the study called *name*; UnknownNameError when there is none."""
    study = records.study(engine, name)
    keys = objective.goal_of(study.spec).keys
    return Material(
        study=study,
        trials=records.trials(engine, study.id),
        runs=records.runs(engine, study.id),
        courses=courses.read(engine, study.id),
        attempts=records.attempts(engine, study.id),
        workers={each.id: each for each in records.workers(engine)},
        measured=measures.last(engine, study.id, keys),
        budgets=budgets.accounts(engine, study.id),
        past=past(study, priors.read(engine, study.id), revisions.read(engine, study.id)),
        now=courses.now(engine),
    )


def of(found: Records, workers: Sequence[WorkerRecord], now: datetime) -> Material:
    """The same of *found*, which has been read already."""
    by_run: dict[int, Course] = defaultdict(list)
    for each in found.epochs:
        by_run[each.run_id].append((each.epoch, each.value))
    return Material(
        study=found.study,
        trials=found.trials,
        runs=found.runs,
        courses={run_id: sorted(course) for run_id, course in by_run.items()},
        attempts=found.attempts,
        workers={each.id: each for each in workers},
        measured=found.measured,
        budgets=found.budgets,
        past=found.past,
        now=now,
    )
