"""Trainings of single trials: what their runs are, and what each of their epochs recorded.

Nothing here reads more of a study than it is asked for: a page that follows two trials of five
thousand reads the rows of two.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from types import MappingProxyType

from sqlalchemy import Engine, RowMapping, text

from cubeopt.db import records
from cubeopt.db.engine import transaction
from cubeopt.db.tables import RunKind, RunState


@dataclass(frozen=True)
class Run:
    """One run of a trial, as far as it has come."""

    run_id: int
    trial: int
    kind: RunKind
    replicate: int
    seed: int | None
    state: RunState
    epoch: int  # the last one recorded
    target_epochs: int
    value: float | None
    worker: str | None  # who trains it now
    width: int | None


@dataclass(frozen=True)
class Epoch:
    """What one epoch of a run recorded."""

    run_id: int
    epoch: int
    metrics: Mapping[str, float | None]  # None: it was not finite
    created_at: datetime


@dataclass(frozen=True)
class Found:
    """The runs that a search has found: the first of them, and how many there are."""

    runs: list[Run]
    count: int


def of_trials(engine: Engine, study_id: int, numbers: Sequence[int]) -> list[Run]:
    """All runs of the trials *numbers*, by trial, the short one first, then by replicate."""
    if not numbers:
        return []
    with transaction(engine) as connection:
        rows = connection.execute(_OF_TRIALS, {"study_id": study_id, "numbers": list(numbers)})
        return [_run(row) for row in rows.mappings()]


def running(engine: Engine, study_id: int, limit: int) -> list[Run]:
    """Runs that are being trained now, at most *limit*: those that began last, by trial."""
    with transaction(engine) as connection:
        rows = connection.execute(_RUNNING, {"study_id": study_id, "limit": limit})
        return [_run(row) for row in rows.mappings()]


def search(engine: Engine, study_id: int, beginning: str, limit: int, maximize: bool) -> Found:
    """Trials whose number begins with the digits *beginning* ("" is every trial).

    A trial stands for its newest part (the full run it was promoted to, else its short run), and
    each further seed for itself. Those that are trained now come first, then the best by value.
    """
    given = {
        "study_id": study_id,
        "beginning": f"{beginning}%",
        "exact": int(beginning) if beginning else None,
        "sign": -1.0 if maximize else 1.0,
        "limit": limit,
    }
    with transaction(engine) as connection:
        rows = list(connection.execute(_SEARCH, given).mappings())
    return Found([_run(row) for row in rows], rows[0]["total"] if rows else 0)


def epochs(
    engine: Engine, run_ids: Sequence[int], after: Mapping[int, int] = MappingProxyType({})
) -> list[Epoch]:
    """What the runs *run_ids* recorded, by run and epoch; of a run in *after* what came later."""
    if not run_ids:
        return []
    given = {"run_ids": list(run_ids), "after": [after.get(run_id, 0) for run_id in run_ids]}
    with transaction(engine) as connection:
        return [Epoch(*row) for row in connection.execute(_EPOCHS, given)]


class Recorded:
    """`epochs` for one who asks again and again: each is read once, as none ever changes.

    At most *most* are kept, those of the runs that were asked for last. Thread-safe.
    """

    def __init__(self, engine: Engine, most: int = 5_000) -> None:
        self._engine, self._most = engine, most
        self._kept: OrderedDict[int, list[Epoch]] = OrderedDict()
        self._lock = Lock()

    def epochs(self, run_ids: Sequence[int]) -> list[Epoch]:
        """What the runs *run_ids* recorded, by run and epoch."""
        with self._lock:
            held = {run_id: self._kept.get(run_id, []) for run_id in sorted(set(run_ids))}
        after = {run_id: rows[-1].epoch for run_id, rows in held.items() if rows}
        found = {run_id: list(rows) for run_id, rows in held.items()}
        for each in epochs(self._engine, list(held), after):
            found[each.run_id].append(each)
        with self._lock:
            for run_id, rows in found.items():
                if len(rows) >= len(self._kept.get(run_id, [])):
                    self._kept[run_id] = rows
                self._kept.move_to_end(run_id)
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
        return [each for rows in found.values() for each in rows]


def mark(engine: Engine, name: str, numbers: Sequence[int] | None) -> str:
    """A text that changes whenever the study called *name*, or any run of its trials *numbers*, has
    something new to show.

    Of None: whenever those that are trained now have, or are others. It costs one look at the rows
    of these runs, by their keys. UnknownNameError without the study.
    """
    given = {"name": name, "numbers": None if numbers is None else list(numbers)}
    statement = _MARK_OF_RUNNING if numbers is None else _MARK_OF_TRIALS
    with transaction(engine) as connection:
        found = connection.execute(statement, given).scalar()
    return records.study(engine, name).state if found is None else str(found)


def _run(row: RowMapping) -> Run:
    fields = {name: row[name] for name in Run.__dataclass_fields__}
    fields |= {"kind": RunKind(row["kind"]), "state": RunState(row["state"])}
    return Run(**fields)


_COLUMNS = """
    run.id AS run_id, trial.number AS trial, run.kind, run.replicate,
    CAST(run.spec->>'seed' AS bigint) AS seed, run.state, run.epoch, run.target_epochs, run.value,
    worker.name AS worker, run.width
"""
_FROM = """
    FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
        LEFT JOIN cubeopt.workers worker ON worker.id = run.worker_id
"""

_OF_TRIALS = text(f"""
    SELECT {_COLUMNS} {_FROM}
    WHERE trial.study_id = :study_id AND trial.number = ANY(:numbers)
    ORDER BY trial.number, run.kind DESC, run.replicate
""")

_RUNNING = text(f"""
    SELECT * FROM (
        SELECT {_COLUMNS}, run.started_at {_FROM}
        WHERE run.state = 'running' AND run.study_id = :study_id
        ORDER BY run.started_at DESC NULLS LAST, run.id DESC LIMIT :limit
    ) newest ORDER BY trial, kind DESC, replicate
""")

# A short run is left out where its trial goes on in a full one.
_SEARCH = text(f"""
    WITH chosen AS (
        SELECT run.id, trial.number, count(*) OVER () AS total
        FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
        WHERE run.study_id = :study_id AND CAST(trial.number AS text) LIKE :beginning AND NOT (
            run.kind = 'short' AND EXISTS (
                SELECT FROM cubeopt.runs longer
                WHERE longer.trial_id = run.trial_id AND longer.kind = 'full'
                    AND longer.replicate = 0
            )
        )
        ORDER BY trial.number = :exact DESC NULLS LAST, run.state = 'running' DESC,
            run.kind = 'full' DESC, run.value IS NULL OR run.value = 'NaN',
            run.value * CAST(:sign AS float), trial.number, run.replicate
        LIMIT :limit
    )
    SELECT {_COLUMNS}, chosen.total {_FROM} JOIN chosen ON chosen.id = run.id
    ORDER BY trial.number = :exact DESC NULLS LAST, run.state = 'running' DESC,
        run.kind = 'full' DESC, run.value IS NULL OR run.value = 'NaN',
        run.value * CAST(:sign AS float), trial.number, run.replicate
""")

_EPOCHS = text("""
    SELECT epoch.run_id, epoch.epoch, epoch.metrics, epoch.created_at
    FROM unnest(CAST(:run_ids AS bigint[]), CAST(:after AS int[])) AS asked(run_id, after)
        JOIN cubeopt.epochs epoch ON epoch.run_id = asked.run_id AND epoch.epoch > asked.after
    ORDER BY epoch.run_id, epoch.epoch
""")

_STANDS = "string_agg(concat_ws('.', run.id, run.epoch, run.state, run.token), ' ' ORDER BY run.id)"
_MARK_OF_TRIALS = text(f"""
    SELECT concat_ws(' ', study.state, (
        SELECT {_STANDS}
        FROM cubeopt.trials trial JOIN cubeopt.runs run ON run.trial_id = trial.id
        WHERE trial.study_id = study.id AND trial.number = ANY(:numbers)
    )) FROM cubeopt.studies study WHERE study.name = :name
""")
_MARK_OF_RUNNING = text(f"""
    SELECT concat_ws(' ', study.state, (
        SELECT {_STANDS} FROM cubeopt.runs run
        WHERE run.state = 'running' AND run.study_id = study.id
    )) FROM cubeopt.studies study WHERE study.name = :name
""")
