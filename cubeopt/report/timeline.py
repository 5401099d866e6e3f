"""What ran where and when, as rows: attempts by worker and slot, how each ended, and the gaps."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cubeopt.db.records import AttemptRecord
from cubeopt.db.tables import EndClass
from cubeopt.report.material import Material

# Ends that nobody planned: they are marked in every picture.
TROUBLE = (EndClass.LOST, EndClass.OUT_OF_MEMORY, EndClass.ERROR, EndClass.DIVERGED)


@dataclass(frozen=True)
class Stretch:
    """One attempt in a slot of its worker, in seconds since the first attempt of the study."""

    worker: str
    device: str
    slot: int  # the lowest that was free; in a pack several go on side by side
    trial: int
    kind: str
    replicate: int
    attempt: int  # the how manieth of its run
    start: float
    end: float
    ended: str | None  # an EndClass; None: it goes on
    from_epoch: int
    error: str | None  # its last line

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Busy:
    """Time in which a worker held runs of the study without a break worth a pixel."""

    worker: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """All attempts of a study."""

    since: datetime | None  # of the first attempt
    until: float  # seconds: the last end, or now
    stretches: list[Stretch]  # by start

    @property
    def workers(self) -> list[str]:
        """By name."""
        return sorted({each.worker for each in self.stretches})

    @property
    def slots(self) -> dict[str, int]:
        """How many slots each worker used."""
        found = dict.fromkeys(self.workers, 0)
        for each in self.stretches:
            found[each.worker] = max(found[each.worker], each.slot + 1)
        return found


def timeline(found: Material) -> Timeline:
    """The attempts of a study; one that goes on lasts until now, or until its lease expired."""
    if not found.attempts:
        return Timeline(None, 0.0, [])
    runs = {run.id: run for run in found.runs}
    attempts = sorted(found.attempts, key=lambda each: (each.started_at, each.id))
    since = attempts[0].started_at

    def ends(each: AttemptRecord) -> float:
        lease = runs[each.run_id].lease_expires_at
        still = min(found.now, lease) if lease else found.now
        return (max(each.started_at, each.ended_at or still) - since).total_seconds()

    free: dict[int, list[int]] = defaultdict(list)
    taken: dict[int, list[tuple[float, int]]] = defaultdict(list)
    rows = []
    for each in attempts:
        start, end = (each.started_at - since).total_seconds(), ends(each)
        slot = _slot(free[each.worker_id], taken[each.worker_id], start, end)
        worker = found.workers.get(each.worker_id)
        rows.append(
            Stretch(
                worker=worker.name if worker else f"worker {each.worker_id}",
                device=each.device,
                slot=slot,
                trial=each.trial_number,
                kind=str(each.kind),
                replicate=runs[each.run_id].replicate,
                attempt=each.token,
                start=round(start, 3),
                end=round(end, 3),
                ended=str(each.end_class) if each.end_class else None,
                from_epoch=each.from_epoch,
                error=each.error.rstrip().rpartition("\n")[2] if each.error else None,
            )
        )
    return Timeline(since, max(row.end for row in rows), rows)


def _slot(free: list[int], taken: list[tuple[float, int]], start: float, end: float) -> int:
    """The lowest slot in which nothing runs at *start*; it is taken until *end*."""
    while taken and taken[0][0] <= start:
        heapq.heappush(free, heapq.heappop(taken)[1])
    slot = heapq.heappop(free) if free else len(taken)
    heapq.heappush(taken, (end, slot))
    return slot


def busy(stretches: Iterable[Stretch], shortest: float) -> list[Busy]:
    """When each worker held runs at all; gaps of less than *shortest* seconds are closed."""
    found: dict[str, list[Busy]] = {}
    for each in stretches:  # by start
        own = found.setdefault(each.worker, [])
        if own and each.start <= own[-1].end + shortest:
            last = own.pop()
            own.append(Busy(each.worker, last.start, max(last.end, each.end)))
        else:
            own.append(Busy(each.worker, each.start, each.end))
    return [each for own in found.values() for each in own]


def ends(stretches: Sequence[Stretch]) -> dict[str, int]:
    """How many attempts ended in each way; "goes on" for those that have not."""
    counts: dict[str, int] = {}
    for each in stretches:
        counts[each.ended or "goes on"] = counts.get(each.ended or "goes on", 0) + 1
    return counts
