"""A study at a glance, as rows: what somebody who watches it wants to know now."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cubeopt.db.budgets import Account
from cubeopt.db.chronicle import FAILED, Event, Pace
from cubeopt.db.holdings import Holdings
from cubeopt.db.records import RunRecord, StudyRecord, TrialRecord, WorkerRecord
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.report import crew, outlook, ranking
from cubeopt.report.outlook import Outlook
from cubeopt.report.ranking import Best, Measured
from cubeopt.report.summary import PromotedRun, Row, Summary
from cubeopt.search import objective
from cubeopt.search.objective import finite
from cubeopt.search.study import Rungs

TOP = 5  # of the best trials
ENDED = (StudyState.COMPLETE, StudyState.STOPPED, StudyState.FAILED)
_OPEN = (RunState.WAITING, RunState.RUNNING)


@dataclass(frozen=True)
class Rung:
    """What became of the trials that arrived at a rung."""

    epoch: int
    arrived: int
    stayed: int  # went on to the next one; of the last: complete
    cut: int  # by the rung
    here: int  # wait or run, and have recorded no later epoch
    otherwise: int  # diverged or failed there, or were ended there by a person


@dataclass(frozen=True)
class RunningTrial:
    """A run that a worker holds."""

    trial: int
    kind: str
    replicate: int
    epoch: int
    target_epochs: int
    value: float | None
    worker: str
    width: int | None  # of its pack
    seconds: float  # since its first attempt began


@dataclass(frozen=True)
class WorkerRow:
    """A worker that holds runs of the study, or none at all."""

    name: str
    state: str
    device: str
    runs: int  # of this study
    other_runs: int
    silent_seconds: float
    epochs_per_minute: float  # of all studies, lately
    samples_per_second: float | None


@dataclass(frozen=True)
class Happened:
    """An event in words and numbers."""

    at: str
    what: str
    trial: int
    kind: str
    replicate: int
    epoch: int
    target_epochs: int
    value: float | None
    worker: str | None
    detail: str | None
    key: str  # the same in every look


@dataclass(frozen=True)
class Glance:
    """A study as it stands."""

    at: str  # by the clock of the database
    study: str
    state: str
    reason: str | None
    metric: str
    direction: str
    second: str | None
    second_direction: str | None
    created: str
    trials: dict[str, int]  # by state
    queue: dict[str, int]  # runs that wait, by kind
    budgets: list[dict[str, Any]]
    outlook: Outlook | None  # of a study that runs
    rungs: list[Rung]
    best: Best | None
    top: list[Best]  # with two objectives the front
    baselines: dict[str, Any]
    promotions: list[PromotedRun]
    running: list[RunningTrial]
    workers: list[WorkerRow]
    other_workers: int  # that live and train other studies
    events: list[Happened]  # the oldest first
    warnings: list[str]
    pairs: int  # trials whose short and full runs are complete
    rank_correlation: float | None  # of their values

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


def glance(
    study: StudyRecord,
    summary: Summary,
    trials: Sequence[TrialRecord],
    runs: Sequence[RunRecord],
    measured: Measured,
    workers: Sequence[WorkerRecord],
    holdings: Holdings,
    events: Sequence[Event],
    budgets: Sequence[Account],
    pace: Pace,
) -> Glance:
    """Everything at once; *summary* is that of the same records."""
    goal = objective.goal_of(study.spec)
    busy = [run for run in runs if run.state == RunState.RUNNING]
    crewed = crew.rows(workers, holdings, everyone=False)
    rows = _workers(crewed, study.name)
    waiting = Counter(str(run.kind) for run in runs if run.state == RunState.WAITING)
    holders = len({run.worker_id for run in busy})
    return Glance(
        at=pace.now.isoformat(timespec="milliseconds"),
        study=study.name,
        state=str(study.state),
        reason=study.state_reason,
        metric=study.metric,
        direction=study.direction,
        second=summary.second,
        second_direction=summary.second_direction,
        created=study.created_at.isoformat(timespec="seconds"),
        trials=summary.trials,
        queue={str(kind): waiting[kind] for kind in RunKind},
        budgets=[_budget(each) for each in budgets],
        outlook=outlook.outlook(study.spec, runs, budgets, pace, holders)
        if study.state == StudyState.RUNNING
        else None,
        rungs=rungs(study, trials, runs),
        best=summary.best,
        top=list(summary.front[:TOP])
        if summary.second
        else ranking.top(goal, trials, runs, measured, TOP),
        baselines=summary.baselines,
        promotions=summary.promotions,
        running=_running(busy, {each.id: each.name for each in workers}, pace.now),
        workers=rows,
        other_workers=len(crewed) - len(rows),
        events=[_happened(each) for each in events],
        warnings=summary.warnings,
        pairs=summary.short_and_full.pairs,
        rank_correlation=summary.short_and_full.spearman,
    )


def rungs(
    study: StudyRecord, trials: Sequence[TrialRecord], runs: Sequence[RunRecord]
) -> list[Rung]:
    """The ladder in numbers."""
    reasons = {trial.number: trial.reason or {} for trial in trials}
    short = [run for run in runs if run.kind == RunKind.SHORT]
    ends = Rungs.model_validate(study.spec.get("rungs", {})).epochs
    return [_rung(epoch, epoch == ends[-1], short, reasons) for epoch in ends]


def _rung(
    epoch: int, last: bool, short: Sequence[RunRecord], reasons: Mapping[int, Mapping[str, Any]]
) -> Rung:
    there = Counter[str]()
    for run in short:
        if run.epoch < epoch:
            continue
        if run.epoch > epoch or (last and run.state == RunState.COMPLETE):
            there["stayed"] += 1
        elif run.state in _OPEN:
            there["here"] += 1
        elif run.end_class == EndClass.PRUNED and "by" not in reasons[run.trial_number]:
            there["cut"] += 1
        else:
            there["otherwise"] += 1
    names = ("stayed", "cut", "here", "otherwise")
    return Rung(epoch, there.total(), *(there[name] for name in names))


def _budget(account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "limit": account.limit,
        "used": account.used,
        "left": account.left,
    }


def _running(
    busy: Sequence[RunRecord], names: Mapping[int, str], now: datetime
) -> list[RunningTrial]:
    """By trial; full runs after short ones."""
    return [
        RunningTrial(
            trial=run.trial_number,
            kind=str(run.kind),
            replicate=run.replicate,
            epoch=run.epoch,
            target_epochs=run.target_epochs,
            value=finite(run.value),
            worker=names.get(run.worker_id or 0, "?"),
            width=run.width,
            seconds=(now - (run.started_at or now)).total_seconds(),
        )
        for run in sorted(busy, key=lambda run: (run.trial_number, run.kind == RunKind.FULL))
    ]


def _workers(crewed: Sequence[Row], study: str) -> list[WorkerRow]:
    """Those that hold runs of this study, and those that hold none of any."""
    found = []
    for row in crewed:
        studies = Counter(run["study"] for pack in row["packs"] for run in pack["runs"])
        if studies and study not in studies:
            continue
        found.append(
            WorkerRow(
                **{name: row[name] for name in ("name", "state", "device", "silent_seconds")},
                **{name: row[name] for name in ("epochs_per_minute", "samples_per_second")},
                runs=studies[study],
                other_runs=studies.total() - studies[study],
            )
        )
    return sorted(found, key=lambda row: (row.runs == 0, row.name))


_DETAILS = {
    EndClass.PREEMPTED: "given back, waits",
    EndClass.LOST: "its lease expired; waits for another worker",
    EndClass.DIVERGED: "a number became NaN or infinite",
}


def _happened(event: Event) -> Happened:
    detail = event.error
    if detail is None and event.what in _DETAILS:
        detail = _DETAILS[EndClass(event.what)]
    if event.by_person:
        detail = "by a person"
    if event.seeds > 1:
        detail = f"{event.seeds} seeds"
    if event.what in (EndClass.ERROR, EndClass.OUT_OF_MEMORY):
        detail = f"{detail}; it is tried again" if detail else "it is tried again"
    if event.what == FAILED:
        detail = event.error or "out of memory"
    return Happened(
        at=event.at.isoformat(timespec="milliseconds"),
        what=event.what,
        trial=event.trial,
        kind=str(event.kind),
        replicate=event.replicate,
        epoch=event.epoch,
        target_epochs=event.target_epochs,
        value=finite(event.value),
        worker=event.worker,
        detail=detail,
        key=event.key,
    )
