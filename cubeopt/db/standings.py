"""Who stands at a rung. Of values a process reads only those that it has not read yet.

A value at a rung never changes, and those of one study are recorded one after the other under a
lock, so their ids rise in the order in which they can be seen. What a process has read of a rung
it keeps; how many trials there are does not matter to the next report. Where metrics are needed
beside the values (two objectives, constraints), all are read each time.
"""

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text

_KEPT = 64  # rungs of a database


@dataclass(frozen=True)
class Place:
    """One run at a rung, and what the others reached there."""

    value: float
    others: tuple[float, ...]
    metrics: dict[str, Any]  # those that were asked for
    others_metrics: tuple[dict[str, Any], ...]  # of the others, in the same order


class Standing(Protocol):
    """One rung of one study."""

    def place(self, run_id: int) -> Place:
        """Where a run that asked stands."""


@dataclass(frozen=True)
class Values:
    """One rung of one study by its values; own values are those of the runs that asked."""

    seen: int = 0  # the greatest id
    values: list[float] = field(default_factory=list)  # of all short runs, rising
    own: Mapping[int, float] = field(default_factory=dict)  # by run id

    def others(self, run_id: int) -> tuple[float, ...]:
        """The values of all runs but this one, rising."""
        others = self.values.copy()
        if run_id in self.own:
            del others[bisect.bisect_left(others, self.own[run_id])]
        return tuple(others)

    def place(self, run_id: int) -> Place:
        others = self.others(run_id)
        return Place(self.own[run_id], others, {}, ({},) * len(others))


@dataclass(frozen=True)
class Measured:
    """One rung of one study by values and metrics."""

    reached: Mapping[int, tuple[float, dict[str, Any]]]  # by run id

    def place(self, run_id: int) -> Place:
        value, metrics = self.reached[run_id]
        others = [each for other, each in self.reached.items() if other != run_id]
        values, beside = tuple(each for each, _ in others), tuple(each for _, each in others)
        return Place(value, values, metrics, beside)


Rung = tuple[int, int]  # study id and epoch
_kept: WeakKeyDictionary[Engine, dict[Rung, Values]] = WeakKeyDictionary()


def read(
    connection: Connection, rung: Rung, run_ids: Collection[int], keys: Sequence[str] = ()
) -> Standing:
    """Who stands at *rung*, read under the lock of its study; *run_ids* are those who ask."""
    return _measured(connection, rung, keys) if keys else _values(connection, rung, run_ids)


def _values(connection: Connection, rung: Rung, run_ids: Collection[int]) -> Values:
    before = _kept.get(connection.engine, {}).get(rung, Values())
    study_id, epoch = rung
    asked = {"study_id": study_id, "epoch": epoch, "seen": before.seen, "run_ids": list(run_ids)}
    seen, values, own = before.seen, before.values.copy(), dict[int, float]()
    for row_id, run_id, value in connection.execute(_READ, asked):
        if row_id is None:
            own[run_id] = value
        else:
            seen = max(seen, row_id)
            values.append(value)
    values.sort()
    return Values(seen, values, own)


def _measured(connection: Connection, rung: Rung, keys: Sequence[str]) -> Measured:
    study_id, epoch = rung
    given = {"study_id": study_id, "epoch": epoch, "keys": list(keys)}
    rows = connection.execute(_READ_WITH_METRICS, given)
    return Measured({run_id: (value, metrics) for run_id, value, metrics in rows})


def keep(engine: Engine, standings: Mapping[Rung, Standing]) -> None:
    """Remember what was read, once the transaction in which it was read is committed."""
    kept = _kept.setdefault(engine, {})
    for rung, standing in standings.items():
        if isinstance(standing, Values):
            kept.pop(rung, None)
            kept[rung] = standing
    for rung in list(kept)[:-_KEPT]:
        kept.pop(rung, None)


_READ = text("""
    SELECT epoch.id, epoch.run_id, epoch.value
    FROM cubeopt.epochs epoch JOIN cubeopt.runs run ON run.id = epoch.run_id
    WHERE epoch.epoch = :epoch AND epoch.id > :seen AND epoch.value IS NOT NULL
        AND run.study_id = :study_id AND run.kind = 'short'
    UNION ALL
    SELECT NULL, run_id, value
    FROM cubeopt.epochs
    WHERE run_id = ANY(CAST(:run_ids AS bigint[])) AND epoch = :epoch AND value IS NOT NULL
""")

# Of the metrics of an epoch those named :keys, and nothing of the others is read.
CHOSEN = """(
    SELECT coalesce(jsonb_object_agg(key, epoch.metrics -> key), '{}')
    FROM unnest(CAST(:keys AS text[])) AS key
)"""

_READ_WITH_METRICS = text(f"""
    SELECT run.id, epoch.value, {CHOSEN}
    FROM cubeopt.runs run JOIN cubeopt.epochs epoch ON epoch.run_id = run.id
    WHERE run.study_id = :study_id AND run.kind = 'short'
        AND epoch.epoch = :epoch AND epoch.value IS NOT NULL
    ORDER BY run.id
""")
