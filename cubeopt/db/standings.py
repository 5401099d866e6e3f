"""Who stands at a rung. Of values a process reads only those that it has not read yet.

A value at a rung never changes, and those of one study are recorded one after the other under a
lock, so their ids rise in the order in which they can be seen. What a process has read of a rung
it keeps; how many trials there are does not matter to the next report. Where metrics are needed
beside the values (two objectives, constraints), all are read each time.
"""

import bisect
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, text

from cubeopt.db.batch import Send

_KEPT = 64  # rungs of a database
_FEW = 16  # new values that are put in their places one by one


class Rising(Sequence[float]):
    """Numbers in rising order, seen without one of them; nothing is copied."""

    def __init__(self, values: Sequence[float], without: float | None = None) -> None:
        self._values = values
        self._gap = len(values) if without is None else bisect.bisect_left(values, without)
        self._length = len(values) - (without is not None)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return tuple(self)[place]
        place = range(self._length)[place]
        return self._values[place + (place >= self._gap)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


@dataclass(frozen=True)
class Place:
    """One run at a rung, and what the others reached there."""

    value: float
    others: Sequence[float]
    metrics: dict[str, Any]  # those that were asked for
    others_metrics: tuple[dict[str, Any], ...]  # of the others, in the same order; () if none were


class Standing(Protocol):
    """One rung of one study."""

    def place(self, run_id: int) -> Place:
        """Where a run that asked stands."""


@dataclass(frozen=True)
class Values:
    """One rung of one study by its values; own values are those of the runs that asked."""

    seen: int = 0  # the greatest id
    values: Sequence[float] = field(default_factory=lambda: array("d"))  # all short runs', rising
    own: Mapping[int, float] = field(default_factory=dict)  # by run id

    def place(self, run_id: int) -> Place:
        return Place(self.own[run_id], Rising(self.values, self.own[run_id]), {}, ())


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


def ask(
    send: Send, engine: Engine, rung: Rung, run_ids: Collection[int], keys: Sequence[str] = ()
) -> Callable[[], Standing]:
    """Ask who stands at *rung*, under the lock of its study; *run_ids* are those who want to know.

    The answer is there once the batch has ended.
    """
    study_id, epoch = rung
    given: dict[str, Any] = {"study_id": study_id, "epoch": epoch}
    if keys:
        measured = send(_READ_WITH_METRICS, {**given, "keys": list(keys)})
        return lambda: Measured({run_id: (value, beside) for run_id, value, beside in measured})
    before = _kept.get(engine, {}).get(rung, Values())
    found = send(_READ, {**given, "seen": before.seen, "run_ids": list(run_ids)})
    return lambda: _together(before, found)


def _together(before: Values, rows: Iterable[Any]) -> Values:
    """What was kept, and what has come since."""
    seen, own, new = before.seen, dict[int, float](), array("d")
    for row_id, run_id, value in rows:
        if row_id is None:
            own[run_id] = value
        else:
            seen = max(seen, row_id)
            new.append(value)
    values = array("d", before.values)
    if len(new) > _FEW:
        values = array("d", sorted([*values, *new]))
    else:
        for value in new:
            bisect.insort(values, value)
    return Values(seen, values, own)


def keep(engine: Engine, standings: Mapping[Rung, Standing]) -> None:
    """Remember what was read, once the transaction in which it was read is committed."""
    kept = _kept.setdefault(engine, {})
    for rung, standing in standings.items():
        if isinstance(standing, Values):
            kept.pop(rung, None)
            kept[rung] = standing
    for rung in list(kept)[:-_KEPT]:
        kept.pop(rung, None)


# Of the new rows, few as they are, each looks up its run: a join would read all runs.
_READ = text("""
    SELECT epoch.id, epoch.run_id, epoch.value
    FROM cubeopt.epochs epoch
    WHERE epoch.epoch = :epoch AND epoch.id > :seen AND epoch.value IS NOT NULL
        AND :study_id = (
            SELECT study_id FROM cubeopt.runs WHERE id = epoch.run_id AND kind = 'short'
        )
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
