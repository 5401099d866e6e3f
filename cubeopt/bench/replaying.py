"""Trainings in simulated time: workers to which an epoch of a table's row takes its seconds.

What a sampler computes, a database stores and a checkpoint weighs costs no time here: epochs do.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cubeopt.bench.curves import Curves


@dataclass(frozen=True)
class Work:
    """What a worker trains next: a row of the table, from the epoch that it has reached on."""

    row: int
    epoch: int = 0


@dataclass(frozen=True, order=True)
class Seen:
    """An epoch that has ended."""

    time: float  # seconds since the beginning
    worker: int
    row: int = field(compare=False)
    epoch: int = field(compare=False)
    value: float = field(compare=False)


class Searcher(Protocol):
    """A way to search, which sees what a table's rows give epoch by epoch."""

    def work(self) -> Work | None:
        """What a free worker trains; None when there is nothing for now."""
        ...

    def ended(self, row: int, epoch: int, value: float) -> bool:
        """Whether the worker goes on with the row, of which *epoch* has come to *value*."""
        ...


def replay(curves: Curves, searcher: Searcher, workers: int) -> Iterator[Seen]:
    """The epochs in the order they end, until there is no work; of two at once the first worker's.

    A row that has reached its last epoch, or diverged, is not gone on with.
    """
    pending: list[Seen] = []
    idle = list(range(workers))
    now = 0.0
    while True:
        waiting = []
        for worker in idle:
            work = searcher.work()
            if work is None:
                waiting.append(worker)
            else:
                heapq.heappush(pending, _next(curves, now, worker, work.row, work.epoch))
        idle = waiting
        if not pending:
            return
        one = heapq.heappop(pending)
        now = one.time
        yield one
        goes_on = searcher.ended(one.row, one.epoch, one.value)
        if goes_on and one.epoch < curves.epochs and not math.isnan(one.value):
            heapq.heappush(pending, _next(curves, now, one.worker, one.row, one.epoch))
        else:
            idle = sorted([*idle, one.worker])


def _next(curves: Curves, now: float, worker: int, row: int, epoch: int) -> Seen:
    curve = curves.rows[row]
    return Seen(now + curve.epoch_seconds, worker, row, epoch + 1, curve.values[epoch])
