"""The workers as plain rows: who works, on what, how fast, and what went wrong."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.db import holdings, records
from cubeopt.db.engine import Engine
from cubeopt.db.holdings import FAILURES, Ends, Holding, Holdings, Pace
from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import EndClass, WorkerState
from cubeopt.report.summary import Row

LATELY = 300.0  # seconds over which epochs are counted: fewer epochs would be noise
SILENT = 20.0  # seconds: every worker that lives beats more often
_GONE = 10  # of the gone that are named


@dataclass(frozen=True)
class Crew:
    """All workers at one moment."""

    live: list[Row]  # the oldest first
    gone: list[Row]  # the last ones, the newest first
    gone_count: int
    runs: int  # held
    slots: int  # of the packs that they ride in
    epochs_per_minute: float
    samples_per_second: float | None
    failures: list[Row]  # by study and class, over all attempts
    seconds: float  # that the epochs are counted over

    def as_json(self) -> dict[str, Any]:
        """Only mappings, lists, strings and finite numbers."""
        return asdict(self)


def load(engine: Engine) -> Crew:
    """Who works now."""
    return crew(records.workers(engine), holdings.read(engine, LATELY))


def crew(workers: Sequence[WorkerRecord], held: Holdings) -> Crew:
    """*workers* with what they hold and did."""
    live = rows(workers, held, everyone=False)
    gone = [worker for worker in workers if worker.state == WorkerState.GONE]
    gone.sort(key=lambda worker: worker.heartbeat_at, reverse=True)
    rates = [row["samples_per_second"] for row in live if row["samples_per_second"] is not None]
    return Crew(
        live=live,
        gone=rows(gone[:_GONE], held, everyone=True),
        gone_count=len(gone),
        runs=sum(row["runs"] for row in live),
        slots=sum(row["slots"] for row in live),
        epochs_per_minute=_sum(row["epochs_per_minute"] for row in live),
        samples_per_second=_sum(rates) if rates else None,
        failures=_failures(held.ends),
        seconds=held.seconds,
    )


def rows(workers: Sequence[WorkerRecord], held: Holdings, everyone: bool) -> list[Row]:
    """One row for each worker that lives, or with *everyone* for each that ever did."""
    own: dict[int, list[Holding]] = defaultdict(list)
    for each in held.holdings:
        own[each.worker_id].append(each)
    ends: dict[int, Counter[str]] = defaultdict(Counter)
    for end in held.ends:
        ends[end.worker_id][str(end.end_class)] += end.count
    return [
        _row(worker, own[worker.id], held.paces.get(worker.id), ends[worker.id], held.seconds)
        for worker in workers
        if everyone or worker.state == WorkerState.LIVE
    ]


def _row(
    worker: WorkerRecord,
    held: Sequence[Holding],
    pace: Pace | None,
    ends: Counter[str],
    seconds: float,
) -> Row:
    packs = _packs(held)
    return {
        "name": worker.name,
        "state": _state(worker),
        "host": worker.host,
        "pid": worker.pid,
        "device": worker.device,
        "runs": len(held),
        "slots": sum(pack["width"] or 0 for pack in packs),
        "epochs_per_minute": _pace(worker, pace, seconds),
        "samples_per_second": pace.samples_per_second if pace else None,
        "silent_seconds": round(worker.silent_seconds, 1),
        "started": worker.started_at.isoformat(timespec="seconds"),
        "heartbeat": worker.heartbeat_at.isoformat(timespec="seconds"),
        "packs": packs,
        "ended": ends[EndClass.DONE] + ends[EndClass.PRUNED],
        "failures": {str(each): ends[each] for each in FAILURES if ends[each]},
    }


def _pace(worker: WorkerRecord, pace: Pace | None, seconds: float) -> float:
    """Epochs a minute over the last *seconds*, or over a younger worker's life."""
    beaten = (worker.heartbeat_at - worker.started_at).total_seconds()
    lived = min(seconds, max(1.0, beaten + worker.silent_seconds))
    return round(60.0 * (pace.epochs if pace else 0) / lived, 2)


def _packs(held: Iterable[Holding]) -> list[Row]:
    """The runs that ride together: those of one shape and one width."""
    packs: dict[tuple[str, int | None], list[Holding]] = defaultdict(list)
    for each in held:
        packs[each.pack_key, each.width].append(each)
    return [
        {"width": width, "used": len(runs), "runs": [_run(each) for each in runs]}
        for (_, width), runs in packs.items()
    ]


def _run(held: Holding) -> Row:
    return {
        "study": held.study,
        "trial": held.trial,
        "kind": str(held.kind),
        "replicate": held.replicate,
        "epoch": held.epoch,
        "target_epochs": held.target_epochs,
        "lease_seconds": round(held.lease_seconds, 1),
    }


def _failures(ends: Iterable[Ends]) -> list[Row]:
    """How attempts at each study's runs failed, those with most first; preempted are none."""
    counts: dict[str, Counter[EndClass]] = defaultdict(Counter)
    for end in ends:
        counts[end.study][end.end_class] += end.count
    return [
        {
            "study": study,
            "attempts": found.total(),
            **{str(each): found[each] for each in FAILURES},
        }
        for study, found in sorted(counts.items())
    ]


def _state(worker: WorkerRecord) -> str:
    if worker.state != WorkerState.LIVE:
        return str(worker.state)
    if worker.silent_seconds > SILENT:
        return "silent"
    return "draining" if worker.drain_asked_at is not None else "live"


def _sum(numbers: Iterable[float]) -> float:
    return round(sum(numbers), 2)
