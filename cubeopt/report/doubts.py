"""What a person should know before believing the results of a study."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cubeopt.db.records import RunRecord, StudyRecord, TrialRecord
from cubeopt.db.tables import EndClass, RunKind, RunState
from cubeopt.report import agreement, ranking, wording
from cubeopt.report.agreement import Agreement
from cubeopt.report.ranking import Best, Measured
from cubeopt.search.objective import Goal, finite
from cubeopt.search.study import better

_OF_RANKS = frozenset({"top1", "mrr"})  # take few values: different trials may well have the same


def of_results(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    best: Sequence[Best],
) -> list[str]:
    """Of the best values, *best*, and of all runs."""
    ordered = sorted(runs, key=lambda run: (run.trial_number, run.replicate))
    return [
        *_no_better_than_mean(study, ordered, best),
        *(() if study.metric in _OF_RANKS else _identical(ordered)),
        *_ended_badly(ordered, trials),
        *_misleading(agreement.agreement(runs)),
    ]


def of_constraints(goal: Goal, runs: Sequence[RunRecord], measured: Measured) -> list[str]:
    """That no trial is feasible, or which complete ones are not."""
    nearest = ranking.nearest(goal, runs, measured)
    if nearest is not None:
        return [nearest]
    broken = ranking.infeasible(goal, runs, measured)
    verb = "breaks" if len(broken) == 1 else "break"
    return [f"{wording.trials(broken)} {verb} a constraint"] if broken else []


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
        if (value := finite(run.value)) is not None and not better(value, mean, study.direction)
    ]
    return [f"no better than {level}: {wording.trials(useless)}"] if useless else []


def _identical(runs: Sequence[RunRecord]) -> list[str]:
    """Trials that differ in their configuration, but not in their result."""
    same: dict[tuple[int, float], list[RunRecord]] = defaultdict(list)
    for run in runs:
        if run.kind == RunKind.SHORT and (value := finite(run.value)) is not None:
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


def _cause(reason: Mapping[str, Any] | None) -> str:
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
