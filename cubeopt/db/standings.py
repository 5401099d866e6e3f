"""The values at a rung, of which a process reads only those that it has not read yet.

A value at a rung never changes, and those of one study are recorded one after the other under a
lock, so their ids rise in the order in which they can be seen. What a process has read of a rung
it keeps; how many trials there are does not matter to the next report.
"""

import bisect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text

_KEPT = 64  # rungs of a database


@dataclass(frozen=True)
class Standing:
    """One rung of one study; own values are those of the runs that asked."""

    seen: int = 0  # the greatest id
    values: list[float] = field(default_factory=list)  # of all short runs, rising
    own: Mapping[int, float] = field(default_factory=dict)  # by run id

    def others(self, run_id: int) -> tuple[float, ...]:
        """The values of all runs but this one, rising."""
        others = self.values.copy()
        if run_id in self.own:
            del others[bisect.bisect_left(others, self.own[run_id])]
        return tuple(others)


Rung = tuple[int, int]  # study id and epoch
_kept: WeakKeyDictionary[Engine, dict[Rung, Standing]] = WeakKeyDictionary()


def read(connection: Connection, rung: Rung, run_ids: Collection[int]) -> Standing:
    """Who stands at *rung*, read under the lock of its study; *run_ids* are those who ask."""
    before = _kept.get(connection.engine, {}).get(rung, Standing())
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
    return Standing(seen, values, own)


def keep(engine: Engine, standings: Mapping[Rung, Standing]) -> None:
    """Remember what was read, once the transaction in which it was read is committed."""
    kept = _kept.setdefault(engine, {})
    for rung, standing in standings.items():
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
