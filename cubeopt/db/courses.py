"""The courses of single trials: what their runs are, and what each of their epochs recorded.

Nothing here reads more of a study than it is asked for: a page that follows two trials of five
thousand reads the rows of two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, RowMapping, text

from cubeopt.db.engine import transaction
from cubeopt.db.tables import RunKind, RunState


@dataclass(frozen=True)
class Course:
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
    """The courses that a search has found: the first of them, and how many there are."""

    courses: list[Course]
    count: int


def of_trials(engine: Engine, study_id: int, numbers: Sequence[int]) -> list[Course]:
    """All runs of the trials *numbers*, by trial, the short one first, then by replicate."""
    if not numbers:
        return []
    with transaction(engine) as connection:
        rows = connection.execute(_OF_TRIALS, {"study_id": study_id, "numbers": list(numbers)})
        return [_course(row) for row in rows.mappings()]


def running(engine: Engine, study_id: int, limit: int) -> list[Course]:
    """Runs that are being trained now, at most *limit*: those that began last, by trial."""
    with transaction(engine) as connection:
        rows = connection.execute(_RUNNING, {"study_id": study_id, "limit": limit})
        return [_course(row) for row in rows.mappings()]


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
    return Found([_course(row) for row in rows], rows[0]["total"] if rows else 0)


def epochs(engine: Engine, run_ids: Sequence[int]) -> list[Epoch]:
    """What the runs *run_ids* recorded, by run and epoch."""
    if not run_ids:
        return []
    with transaction(engine) as connection:
        rows = connection.execute(_EPOCHS, {"run_ids": list(run_ids)})
        return [Epoch(*row) for row in rows]


def mark(engine: Engine, study_id: int, numbers: Sequence[int] | None) -> str:
    """A word that changes whenever the runs of the trials *numbers* have anything new to show.

    Of None: whenever those that are trained now have, or are others. It costs one look at the rows
    of these runs, by their keys.
    """
    given = {"study_id": study_id, "numbers": None if numbers is None else list(numbers)}
    statement = _MARK_OF_RUNNING if numbers is None else _MARK_OF_TRIALS
    with transaction(engine) as connection:
        return str(connection.execute(statement, given).scalar_one())


def _course(row: RowMapping) -> Course:
    fields = {name: row[name] for name in Course.__dataclass_fields__}
    fields |= {"kind": RunKind(row["kind"]), "state": RunState(row["state"])}
    return Course(**fields)


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
    SELECT run_id, epoch, metrics, created_at FROM cubeopt.epochs
    WHERE run_id = ANY(:run_ids) ORDER BY run_id, epoch
""")

_STANDS = "concat_ws('.', run.id, run.epoch, run.state, run.token)"
_MARK_OF_TRIALS = text(f"""
    SELECT coalesce(string_agg({_STANDS}, ' ' ORDER BY run.id), '')
    FROM cubeopt.trials trial JOIN cubeopt.runs run ON run.trial_id = trial.id
    WHERE trial.study_id = :study_id AND trial.number = ANY(:numbers)
""")
_MARK_OF_RUNNING = text(f"""
    SELECT coalesce(string_agg({_STANDS}, ' ' ORDER BY run.id), '')
    FROM cubeopt.runs run WHERE run.state = 'running' AND run.study_id = :study_id
""")
