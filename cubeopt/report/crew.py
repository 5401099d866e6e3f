"""The workers as plain rows."""

from collections.abc import Mapping, Sequence

from cubeopt.db.records import WorkerRecord
from cubeopt.db.tables import WorkerState
from cubeopt.report.summary import Row


def rows(workers: Sequence[WorkerRecord], held: Mapping[int, int], everyone: bool) -> list[Row]:
    """One row for each worker that lives, or with *everyone* for each that ever did."""
    return [
        {
            "name": worker.name,
            "state": _state(worker),
            "host": worker.host,
            "pid": worker.pid,
            "device": worker.device,
            "runs": held.get(worker.id, 0),
            "silent_seconds": round(worker.silent_seconds, 1),
            "started": worker.started_at.isoformat(timespec="seconds"),
        }
        for worker in workers
        if everyone or worker.state == WorkerState.LIVE
    ]


def _state(worker: WorkerRecord) -> str:
    draining = worker.state == WorkerState.LIVE and worker.drain_asked_at is not None
    return "draining" if draining else str(worker.state)
