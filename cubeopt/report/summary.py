"""A study as plain rows: every number that a table or a figure of it shows."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import pandas

from cubeopt.db import records
from cubeopt.db.engine import Engine
from cubeopt.db.records import AttemptRecord, EpochRecord, RunRecord, StudyRecord, TrialRecord
from cubeopt.db.tables import EndClass, RunKind, RunState
from cubeopt.report import agreement, ranking
from cubeopt.report.agreement import Agreement
from cubeopt.report.ranking import Best, FrontRun, Measured
from cubeopt.search import objective
from cubeopt.search.objective import Goal, Objective
from cubeopt.search.study import Rungs, better

Row = dict[str, Any]
_BASELINES = ("mean", "identity", "pca", "pca_width")
_ONE = Goal(Objective())
_OF_RANKS = frozenset({"top1", "mrr"})  # take few values: different trials may well have the same


@dataclass(frozen=True)
class PromotedRun:
    """A trial carried on to the full run."""

    trial: int
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
    )


def summarize(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    measured: Measured = MappingProxyType({}),
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
            *_broken(goal, runs, measured),
            *_warnings(study, trials, runs, front or ([best] if best else [])),
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
            "epoch": run.epoch,
            "value": _finite(run.value),
            "test_value": _finite(run.test_value),
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
        value = _finite(record.value)
        if value is not None:
            values[record.run_id][record.epoch] = value
    return [
        {
            "trial": run.trial_number,
            "kind": str(run.kind),
            "epoch": epoch,
            "value": value,
            "state": str(run.state),
            "pruned": run.state == RunState.PRUNED,
        }
        for run in _ordered(runs)
        for epoch, value in sorted(values[run.id].items())
    ]


def _ordered(runs: Iterable[RunRecord]) -> list[RunRecord]:
    return sorted(runs, key=lambda run: (run.trial_number, run.kind == RunKind.FULL))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _promotion(run: RunRecord) -> PromotedRun:
    return PromotedRun(
        trial=run.trial_number,
        state=str(run.state),
        epochs=run.epoch,
        value=_finite(run.value),
        test_value=_finite(run.test_value),
    )


def _warnings(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    best: Sequence[Best],
) -> list[str]:
    """What a person should know before believing the best values."""
    ordered = _ordered(runs)
    return [
        *_no_better_than_mean(study, ordered, best),
        *(() if study.metric in _OF_RANKS else _identical(ordered)),
        *_ended_badly(ordered, trials),
        *_misleading(agreement.agreement(runs)),
    ]


def _broken(goal: Goal, runs: Sequence[RunRecord], measured: Measured) -> list[str]:
    """That no trial is feasible, or which complete ones are not."""
    nearest = ranking.nearest(goal, runs, measured)
    if nearest is not None:
        return [nearest]
    broken = ranking.infeasible(goal, runs, measured)
    verb = "breaks" if len(broken) == 1 else "break"
    return [f"{_trials(broken)} {verb} a constraint"] if broken else []


def _second_agreement(
    goal: Goal, runs: Sequence[RunRecord], measured: Measured
) -> Agreement | None:
    """None of a cost: it is the same in both runs."""
    if goal.objective.second is None or goal.objective.second in objective.COSTS:
        return None
    values = {run.id: ranking.second_value(goal, ranking.reached(run, measured)) for run in runs}
    return agreement.agreement(runs, values)


def _misleading(found: Agreement) -> list[str]:
    if found.spearman is None or found.spearman >= agreement.LOW:
        return []
    return [
        "short runs hardly tell which full runs are good: rank correlation "
        f"{found.spearman:.2f} over {found.pairs} trials; let the last rung come later, or promote "
        "more"
    ]


def _no_better_than_mean(
    study: StudyRecord, runs: Sequence[RunRecord], best: Sequence[Best]
) -> list[str]:
    mean = study.baselines.get("mean")
    if mean is None:
        return []
    level = f"predicting the mean ({study.metric} {mean:.4g})"
    if best and not any(better(each.value, mean, study.direction) for each in best):
        which = f"the best trial ({best[0].trial})" if len(best) == 1 else "every run on the front"
        return [f"{which} is no better than {level}: nothing was learned"]
    useless = [
        run.trial_number
        for run in runs
        if run.kind == RunKind.SHORT and run.state == RunState.COMPLETE
        if (value := _finite(run.value)) is not None and not better(value, mean, study.direction)
    ]
    return [f"no better than {level}: {_trials(useless)}"] if useless else []


def _identical(runs: Sequence[RunRecord]) -> list[str]:
    """Trials that differ in their configuration, but not in their result."""
    same: dict[tuple[int, float], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.kind == RunKind.SHORT and (value := _finite(run.value)) is not None:
            same[run.epoch, value].append(run)
    return [
        f"{_trials([run.trial_number for run in group])} differ, but have the same result to the "
        f"last bit ({value!r} at epoch {epoch}): does a searched value have no effect?"
        for (epoch, value), group in same.items()
        if any(run.spec != group[0].spec for run in group[1:])
    ]


def _ended_badly(runs: Sequence[RunRecord], trials: Sequence[TrialRecord]) -> list[str]:
    warnings = []
    causes = {trial.number: _cause(trial.reason) for trial in trials}
    for kind, name in ((RunKind.SHORT, ""), (RunKind.FULL, "the full run of ")):
        of_kind = [run for run in runs if run.kind == kind]
        diverged = [run.trial_number for run in of_kind if run.end_class == EndClass.DIVERGED]
        failed = [run.trial_number for run in of_kind if run.state == RunState.FAILED]
        if diverged:
            warnings.append(f"diverged (a result was not finite): {name}{_trials(diverged)}")
        if failed:
            why = causes if kind == RunKind.SHORT else {}
            warnings.append(f"failed: {name}{_by_cause(failed, why)}{_streak(of_kind)}")
    return warnings


def _cause(reason: Row | None) -> str:
    """Why a trial failed, in a few words."""
    if not reason:
        return ""
    return str(reason.get("error") or reason["end"].replace("_", " "))


def _by_cause(numbers: Sequence[int], causes: Mapping[int, str]) -> str:
    """ "trials 1 and 2 (RuntimeError: boom), trial 4 (out of memory: ...)"."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number in numbers:
        groups[causes.get(number, "")].append(number)
    return ", ".join(
        _trials(group) + (f" ({cause})" if cause else "") for cause, group in groups.items()
    )


def _streak(runs: Iterable[RunRecord]) -> str:
    """How many of the runs that ended last failed in a row, where that is more than one."""
    ended = [(run.finished_at, run.id, run.state) for run in runs if run.finished_at is not None]
    states = [state for *_, state in sorted(ended, reverse=True)]
    count = next((at for at, each in enumerate(states) if each != RunState.FAILED), len(states))
    return f"; the last {count} that ended failed in a row" if count > 1 else ""


def _trials(numbers: Sequence[int]) -> str:
    """ "trial 3", "trials 3, 4 and 7", or the first ten and a count."""
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    shown = [str(number) for number in numbers[:10]]
    if len(numbers) > 10:
        return f"trials {', '.join(shown)} and {len(numbers) - 10} more"
    return f"trials {', '.join(shown[:-1])} and {shown[-1]}"
