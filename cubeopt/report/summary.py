"""A study as plain rows: every number that a table or a figure of it shows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import pandas

from cubeopt.db import budgets, outbox, priors, records, revisions
from cubeopt.db.budgets import Account
from cubeopt.db.engine import Engine
from cubeopt.db.outbox import Undelivered
from cubeopt.db.records import AttemptRecord, EpochRecord, RunRecord, StudyRecord, TrialRecord
from cubeopt.db.tables import RunKind, RunState
from cubeopt.report import agreement, doubts, origins, ranking, replicates
from cubeopt.report.agreement import Agreement
from cubeopt.report.past import Past, past
from cubeopt.report.ranking import Best, FrontRun, Measured
from cubeopt.report.replicates import Replicates
from cubeopt.search import objective
from cubeopt.search.objective import Goal, Objective, finite
from cubeopt.search.study import Rungs

Row = dict[str, Any]
_BASELINES = ("mean", "identity", "pca", "pca_width")
_ONE = Goal(Objective())


@dataclass(frozen=True)
class PromotedRun:
    """A full run of a promoted trial."""

    trial: int
    seed: int
    state: str
    epochs: int
    value: float | None
    test_value: float | None


@dataclass(frozen=True)
class Summary:
    """A study in a few numbers."""

    name: str
    state: str
    state_reason: str | None
    metric: str
    direction: str
    trials: dict[str, int]
    promotions: list[PromotedRun]
    replicates: list[Replicates]
    best: Best | None  # none where two objectives have a front
    second: str | None  # the other metric of two
    second_direction: str | None
    front: list[FrontRun]
    constraints: list[str]
    infeasible: list[int]  # trials that are complete and break one
    baselines: dict[str, Any]
    dataset: dict[str, Any]
    rungs: list[int]
    short_and_full: Agreement
    second_short_and_full: Agreement | None  # of a second metric that is no cost
    warnings: list[str]
    code_version: str
    created: str
    finished: str | None

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Records:
    """All that the storage has about one study."""

    study: StudyRecord
    trials: list[TrialRecord]
    runs: list[RunRecord]
    epochs: list[EpochRecord]
    attempts: list[AttemptRecord]
    budgets: list[Account]
    past: Past = field(default_factory=lambda: Past({}, {}))
    messages: Undelivered = field(default_factory=Undelivered)  # of --notify

    @property
    def goal(self) -> Goal:
        return objective.goal_of(self.study.spec)

    @property
    def measured(self) -> Measured:
        """The metrics of each run's last validated epoch, by run id."""
        return {each.run_id: each.metrics for each in self.epochs if each.value is not None}


def load(engine: Engine, name: str) -> Records:
    """Read the study called *name*; UnknownNameError when there is none."""
    study = records.study(engine, name)
    return Records(
        study=study,
        trials=records.trials(engine, study.id),
        runs=records.runs(engine, study.id),
        epochs=records.epochs(engine, study.id),
        attempts=records.attempts(engine, study.id),
        budgets=budgets.accounts(engine, study.id),
        past=past(study, priors.read(engine, study.id), revisions.read(engine, study.id)),
        messages=outbox.undelivered(engine, study.id),
    )


def summarize(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    measured: Measured = MappingProxyType({}),
    attempts: Sequence[AttemptRecord] = (),
) -> Summary:
    """A study in a few numbers; *measured* has what its goal's keys name."""
    goal = objective.goal_of(study.spec)
    second = goal.objective.second
    states = Counter(trial.state for trial in trials)
    full_runs = [run for run in runs if run.kind == RunKind.FULL]
    best = None if second else ranking.best(goal, trials, runs, measured)
    front = ranking.front(goal, trials, runs, measured)
    baselines = {name: study.baselines.get(name) for name in _BASELINES}
    if second:
        baselines["second"] = study.baselines.get("second", {})
    return Summary(
        name=study.name,
        state=str(study.state),
        state_reason=study.state_reason,
        metric=study.metric,
        direction=study.direction,
        trials={str(state): states[state] for state in RunState},
        promotions=[_promotion(run) for run in full_runs],
        replicates=replicates.replicates(runs),
        best=best,
        second=second,
        second_direction=objective.direction(second) if second else None,
        front=front,
        constraints=[str(each) for each in goal.constraints],
        infeasible=ranking.infeasible(goal, runs, measured),
        baselines=baselines,
        dataset={
            "name": study.dataset,
            "fingerprint": study.dataset_fingerprint,
            **{f"{split}_rows": rows for split, rows in study.dataset_rows.items()},
        },
        rungs=list(Rungs.model_validate(study.spec.get("rungs", {})).epochs),
        short_and_full=agreement.agreement(runs),
        second_short_and_full=_second_agreement(goal, runs, measured),
        warnings=[
            *doubts.of_constraints(goal, runs, measured),
            *doubts.of_results(study, trials, runs, front or ([best] if best else [])),
            *origins.unlike(attempts),
        ],
        code_version=study.code_version,
        created=study.created_at.isoformat(),
        finished=study.finished_at.isoformat() if study.finished_at else None,
    )


def trial_rows(
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    attempts: Sequence[AttemptRecord],
    goal: Goal = _ONE,
    measured: Measured = MappingProxyType({}),
) -> list[Row]:
    """One flat row for each run, by trial number and the short run first.

    With two objectives it has the value of the second; with constraints, whether they are met.
    """
    params = {trial.number: trial.params for trial in trials}
    tries = Counter(attempt.run_id for attempt in attempts)
    return [
        {
            "number": run.trial_number,
            "state": str(run.state),
            "kind": str(run.kind),
            "replicate": run.replicate,
            "epoch": run.epoch,
            "value": finite(run.value),
            "test_value": finite(run.test_value),
            **_judged(goal, ranking.reached(run, measured)),
            **params[run.trial_number],
            "attempts": tries[run.id],
        }
        for run in _ordered(runs)
    ]


def _judged(goal: Goal, metrics: Mapping[str, Any]) -> Row:
    found: Row = {}
    if goal.objective.second is not None:
        found["second_value"] = ranking.second_value(goal, metrics)
    if goal.constraints:
        found["feasible"] = goal.feasible(metrics) if metrics else None
    return found


def frame(rows: Sequence[Row]) -> pandas.DataFrame:
    """*rows* as a table of pandas, for notebooks."""
    return pandas.DataFrame.from_records(list(rows))


def curves(runs: Sequence[RunRecord], epochs: Sequence[EpochRecord]) -> list[Row]:
    """One row for each epoch that was validated, by trial, kind and epoch."""
    values: dict[int, dict[int, float]] = defaultdict(dict)
    for record in epochs:
        value = finite(record.value)
        if value is not None:
            values[record.run_id][record.epoch] = value
    return [
        {
            "trial": run.trial_number,
            "kind": str(run.kind),
            "replicate": run.replicate,
            "epoch": epoch,
            "value": value,
            "state": str(run.state),
            "pruned": run.state == RunState.PRUNED,
        }
        for run in _ordered(runs)
        for epoch, value in sorted(values[run.id].items())
    ]


def _ordered(runs: Iterable[RunRecord]) -> list[RunRecord]:
    return sorted(runs, key=lambda run: (run.trial_number, run.kind == RunKind.FULL, run.replicate))


def _promotion(run: RunRecord) -> PromotedRun:
    return PromotedRun(
        trial=run.trial_number,
        seed=run.spec["seed"],
        state=str(run.state),
        epochs=run.epoch,
        value=finite(run.value),
        test_value=finite(run.test_value),
    )


def _second_agreement(
    goal: Goal, runs: Sequence[RunRecord], measured: Measured
) -> Agreement | None:
    """None of a cost: it is the same in both runs."""
    if goal.objective.second is None or goal.objective.second in objective.COSTS:
        return None
    values = {run.id: ranking.second_value(goal, ranking.reached(run, measured)) for run in runs}
    return agreement.agreement(runs, values)
