"""A study as plain rows: every number that a table or a figure of it shows."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas

from cubeopt.db import budgets, records
from cubeopt.db.budgets import Account
from cubeopt.db.engine import Engine
from cubeopt.db.records import AttemptRecord, EpochRecord, RunRecord, StudyRecord, TrialRecord
from cubeopt.db.tables import EndClass, RunKind, RunState
from cubeopt.report import agreement, origins, replicates, wording
from cubeopt.report.agreement import Agreement
from cubeopt.report.replicates import Replicates
from cubeopt.search.study import Rungs, better

Row = dict[str, Any]
_OF_RANKS = frozenset({"top1", "mrr"})  # take few values: different trials may well have the same


@dataclass(frozen=True)
class Best:
    """The trial that a study would export; validation decides, the test value stands beside it."""

    trial: int
    kind: str
    epochs: int
    value: float  # over several seeds the mean, and so is the test value
    spread: float | None  # standard deviation over the seeds
    seeds: int  # with a result
    test_value: float | None
    params: dict[str, Any]


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
    best: Best | None
    baselines: dict[str, float | int | None]
    dataset: dict[str, Any]
    rungs: list[int]
    short_and_full: Agreement
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
    )


def summarize(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    attempts: Sequence[AttemptRecord] = (),
) -> Summary:
    """A study in a few numbers."""
    states = Counter(trial.state for trial in trials)
    full_runs = [run for run in runs if run.kind == RunKind.FULL]
    best = _best(study, trials, runs)
    baselines = {
        name: study.baselines.get(name) for name in ("mean", "identity", "pca", "pca_width")
    }
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
        baselines=baselines,
        dataset={
            "name": study.dataset,
            "fingerprint": study.dataset_fingerprint,
            **{f"{split}_rows": rows for split, rows in study.dataset_rows.items()},
        },
        rungs=list(Rungs.model_validate(study.spec.get("rungs", {})).epochs),
        short_and_full=agreement.agreement(runs),
        warnings=[*_warnings(study, trials, runs, best), *origins.unlike(attempts)],
        code_version=study.code_version,
        created=study.created_at.isoformat(),
        finished=study.finished_at.isoformat() if study.finished_at else None,
    )


def trial_rows(
    trials: Sequence[TrialRecord], runs: Sequence[RunRecord], attempts: Sequence[AttemptRecord]
) -> list[Row]:
    """One flat row for each run, by trial number and the short run first."""
    params = {trial.number: trial.params for trial in trials}
    tries = Counter(attempt.run_id for attempt in attempts)
    return [
        {
            "number": run.trial_number,
            "state": str(run.state),
            "kind": str(run.kind),
            "replicate": run.replicate,
            "epoch": run.epoch,
            "value": _finite(run.value),
            "test_value": _finite(run.test_value),
            **params[run.trial_number],
            "attempts": tries[run.id],
        }
        for run in _ordered(runs)
    ]


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


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _promotion(run: RunRecord) -> PromotedRun:
    return PromotedRun(
        trial=run.trial_number,
        seed=run.spec["seed"],
        state=str(run.state),
        epochs=run.epoch,
        value=_finite(run.value),
        test_value=_finite(run.test_value),
    )


def _best(
    study: StudyRecord, trials: Sequence[TrialRecord], runs: Sequence[RunRecord]
) -> Best | None:
    """The best promoted trial, else the best completed short run; of equals the earlier."""
    sign = 1.0 if study.direction == "minimize" else -1.0
    params = {trial.number: trial.params for trial in trials}
    # A mean without the seed that diverged is one over lucky seeds, a mean of fewer one of luck.
    promoted = [
        ((bool(each.diverged), not each.whole, sign * each.value), each)
        for each in replicates.replicates(runs)
        if each.value is not None
    ]
    if promoted:
        _, best = min(promoted, key=lambda ranked: ranked[0])
        assert best.value is not None
        return Best(
            trial=best.trial,
            kind=str(RunKind.FULL),
            epochs=best.epochs,
            value=best.value,
            spread=best.spread,
            seeds=best.complete,
            test_value=best.test_value,
            params=params[best.trial],
        )
    short = [
        (sign * value, run)
        for run in _ordered(runs)
        if run.kind == RunKind.SHORT and run.state == RunState.COMPLETE
        if (value := _finite(run.value)) is not None
    ]
    if not short:
        return None
    value, run = min(short, key=lambda ranked: ranked[0])
    return Best(
        trial=run.trial_number,
        kind=str(RunKind.SHORT),
        epochs=run.epoch,
        value=sign * value,
        spread=None,
        seeds=1,
        test_value=_finite(run.test_value),
        params=params[run.trial_number],
    )


def _warnings(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    best: Best | None,
) -> list[str]:
    """What a person should know before believing the best value."""
    ordered = _ordered(runs)
    return [
        *_no_better_than_mean(study, ordered, best),
        *(() if study.metric in _OF_RANKS else _identical(ordered)),
        *_ended_badly(ordered, trials),
        *_misleading(agreement.agreement(runs)),
    ]


def _misleading(found: Agreement) -> list[str]:
    if found.spearman is None or found.spearman >= agreement.LOW:
        return []
    return [
        "short runs hardly tell which full runs are good: rank correlation "
        f"{found.spearman:.2f} over {found.pairs} trials; let the last rung come later, or promote "
        "more"
    ]


def _no_better_than_mean(
    study: StudyRecord, runs: Sequence[RunRecord], best: Best | None
) -> list[str]:
    mean = study.baselines.get("mean")
    if mean is None:
        return []
    level = f"predicting the mean ({study.metric} {mean:.4g})"
    if best is not None and not better(best.value, mean, study.direction):
        return [f"the best trial ({best.trial}) is no better than {level}: nothing was learned"]
    useless = [
        run.trial_number
        for run in runs
        if run.kind == RunKind.SHORT and run.state == RunState.COMPLETE
        if (value := _finite(run.value)) is not None and not better(value, mean, study.direction)
    ]
    return [f"no better than {level}: {wording.trials(useless)}"] if useless else []


def _identical(runs: Sequence[RunRecord]) -> list[str]:
    """Trials that differ in their configuration, but not in their result."""
    same: dict[tuple[int, float], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.kind == RunKind.SHORT and (value := _finite(run.value)) is not None:
            same[run.epoch, value].append(run)
    return [
        f"{wording.trials([run.trial_number for run in group])} differ, but have the same result "
        f"to the last bit ({value!r} at epoch {epoch}): does a searched value have no effect?"
        for (epoch, value), group in same.items()
        if any(run.spec != group[0].spec for run in group[1:])
    ]


def _ended_badly(runs: Sequence[RunRecord], trials: Sequence[TrialRecord]) -> list[str]:
    causes = {trial.number: _cause(trial.reason) for trial in trials}
    short = [run for run in runs if run.kind == RunKind.SHORT]
    full = [run for run in runs if run.kind == RunKind.FULL]
    warnings = []
    for of_kind, diverged, failed in ((each, *_bad(each)) for each in (short, full)):
        if diverged:
            named = (
                wording.trials(_numbers(diverged))
                if of_kind is short
                else _full_runs(diverged, full)
            )
            warnings.append(f"diverged (a result was not finite): {named}")
        if failed:
            named = (
                _by_cause(_numbers(failed), causes)
                if of_kind is short
                else _full_runs(failed, full)
            )
            warnings.append(f"failed: {named}{_streak(of_kind)}")
    return warnings


def _bad(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Those that diverged, and those that failed."""
    return (
        [run for run in runs if run.end_class == EndClass.DIVERGED],
        [run for run in runs if run.state == RunState.FAILED],
    )


def _full_runs(bad: Sequence[RunRecord], full: Sequence[RunRecord]) -> str:
    """Full runs by trial, and by seed where trials have several."""
    if not any(run.replicate for run in full):
        return f"the full run of {wording.trials(_numbers(bad))}"
    return ", ".join(
        f"the full run of trial {run.trial_number} with seed {run.spec['seed']}" for run in bad
    )


def _numbers(runs: Sequence[RunRecord]) -> list[int]:
    return [run.trial_number for run in runs]


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
        wording.trials(group) + (f" ({cause})" if cause else "") for cause, group in groups.items()
    )


def _streak(runs: Iterable[RunRecord]) -> str:
    """How many of the runs that ended last failed in a row, where that is more than one."""
    ended = [(run.finished_at, run.id, run.state) for run in runs if run.finished_at is not None]
    states = [state for *_, state in sorted(ended, reverse=True)]
    count = next((at for at, each in enumerate(states) if each != RunState.FAILED), len(states))
    return f"; the last {count} that ended failed in a row" if count > 1 else ""
