"""How long workers wait for the answers to their claims: counts and a histogram of each worker.

A worker writes the sums of its life with its heartbeat. Whoever writes them again adds nothing.
"""

import bisect
import itertools
import threading
from dataclasses import dataclass

from sqlalchemy import Connection, text

# Upper bounds in seconds; the last bucket, of all above, has none. Counts of them are stored, so
# they do not change.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True)
class Waits:
    """So many answers, what they took together, and how many took how long."""

    count: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)  # each without those below

    @property
    def at_most(self) -> list[int]:
        """For each bound, and last for none, how many took no longer."""
        return list(itertools.accumulate(self.buckets))


class Stopwatch:
    """Adds up what one worker waits; one thread adds, another reads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._seconds = 0.0
        self._buckets = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        with self._guard:
            self._seconds += seconds
            self._buckets[bisect.bisect_left(BOUNDS, seconds)] += 1

    def read(self) -> Waits:
        with self._guard:
            return Waits(sum(self._buckets), self._seconds, tuple(self._buckets))


def note(connection: Connection, worker_id: int, waits: Waits) -> None:
    """Write down what a worker has waited so far."""
    values = {"worker_id": worker_id, **vars(waits), "buckets": list(waits.buckets)}
    connection.execute(_NOTE, values)


_NOTE = text("""
    UPDATE cubeopt.workers
    SET claims = :count, claim_seconds = :seconds,
        claim_buckets = CAST(:buckets AS bigint[])
    WHERE id = :worker_id AND claims <> :count
""")


def total(connection: Connection) -> Waits:
    """Of all workers that ever were."""
    count, seconds = connection.execute(_TOTAL).one()
    buckets = [0] * (len(BOUNDS) + 1)
    for place, waits in connection.execute(_BUCKETS):
        buckets[place - 1] = int(waits)
    return Waits(int(count), float(seconds), tuple(buckets))


_TOTAL = text("""
    SELECT coalesce(sum(claims), 0), coalesce(sum(claim_seconds), 0) FROM cubeopt.workers
""")

_BUCKETS = text("""
    SELECT bucket.place, sum(bucket.waits)
    FROM cubeopt.workers CROSS JOIN LATERAL
        unnest(claim_buckets) WITH ORDINALITY AS bucket(waits, place)
    GROUP BY bucket.place
""")
