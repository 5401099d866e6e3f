"""How many there are of everything, for machines that watch: one look, in a few grouped queries.

Of studies that ended more than a day ago only their number is told, and of workers that have gone
nothing but what they waited for claims: what is looked at does not grow with what ever was.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from cubeopt.db import leader, waits
from cubeopt.db.budgets import DEVICE_SECONDS
from cubeopt.db.engine import transaction
from cubeopt.db.tables import EndClass, Kind, Post, RunKind, RunState, StudyState
from cubeopt.db.waits import Waits

_SHOWN_HOURS = 24
_PATIENCE = "SET LOCAL statement_timeout = '10s'"  # a look is worth no more


@dataclass(frozen=True)
class StudyCensus:
    """One study that has not ended, or not long ago."""

    name: str
    state: StudyState
    runs: dict[tuple[RunKind, RunState], int]  # short runs are trials
    wished: int  # trials that a person wished for and that wait for their draw
    epochs: int  # recorded
    attempts: dict[EndClass, int]  # that have ended
    device_seconds: float  # as budget.device_hours counts them

    @property
    def waiting(self) -> int:
        """Runs that may be claimed now."""
        if self.state is not StudyState.RUNNING:
            return 0
        return sum(count for (_, state), count in self.runs.items() if state is RunState.WAITING)


@dataclass(frozen=True)
class WorkerCensus:
    """The live workers of one name, which is one unless a person has given it twice."""

    name: str
    device: str
    draining: bool
    silent_seconds: float  # of the one that was heard last
    leases: int


@dataclass(frozen=True)
class Census:
    """All of it."""

    studies: list[StudyCensus]
    studies_by_state: dict[StudyState, int]
    workers: list[WorkerCensus]
    live_workers: int
    expired_leases: int  # that nobody has taken back yet
    claims: Waits  # of all workers that ever were
    messages: dict[tuple[Kind, Post], int]
    led: bool  # whether some coordinator leads
    leader_silent_seconds: float | None  # since its last sign of life, where we may know it


def take(engine: Engine) -> Census:
    """Count everything; StorageError when that takes more than ten seconds a query."""
    with transaction(engine) as connection:
        connection.execute(text(_PATIENCE))
        workers, live = _workers(connection)
        led, silent = leader.sign_of_life(connection)
        return Census(
            studies=_studies(connection),
            studies_by_state=_by_state(connection),
            workers=workers,
            live_workers=live,
            expired_leases=int(connection.execute(_EXPIRED).scalar_one()),
            claims=waits.total(connection),
            messages={
                (Kind(kind), Post(state)): count
                for kind, state, count in connection.execute(_MESSAGES)
            },
            led=led,
            leader_silent_seconds=silent,
        )


def _studies(connection: Connection) -> list[StudyCensus]:
    shown = list(connection.execute(_SHOWN, {"hours": _SHOWN_HOURS}).mappings())
    ids = {"ids": [row["id"] for row in shown]}
    runs: dict[int, dict[tuple[RunKind, RunState], int]] = {row["id"]: {} for row in shown}
    epochs = dict.fromkeys(runs, 0)
    for study_id, kind, state, count, recorded in connection.execute(_RUNS, ids):
        runs[study_id][RunKind(kind), RunState(state)] = count
        epochs[study_id] += recorded
    for study_id, counted_twice in connection.execute(_CONTINUED, ids):
        epochs[study_id] -= counted_twice
    attempts: dict[int, dict[EndClass, int]] = {row["id"]: {} for row in shown}
    for study_id, end_class, count in connection.execute(_ATTEMPTS, ids):
        attempts[study_id][EndClass(end_class)] = count
    return [
        StudyCensus(
            name=row["name"],
            state=StudyState(row["state"]),
            runs=runs[row["id"]],
            wished=row["wished"],
            epochs=epochs[row["id"]],
            attempts=attempts[row["id"]],
            device_seconds=row["device_seconds"],
        )
        for row in shown
    ]


_SHOWN = text(f"""
    SELECT study.id, study.name, study.state,
        (SELECT count(*) FROM cubeopt.trials WHERE study_id = study.id AND NOT drawn) AS wished,
        CAST(({DEVICE_SECONDS}) AS float) AS device_seconds
    FROM cubeopt.studies study
    WHERE state IN ('running', 'paused')
        OR state_since > clock_timestamp() - make_interval(hours => :hours)
    ORDER BY study.id
""")

# An epoch is recorded once, and the last one of a run stands in its row: nobody counts the epochs.
_RUNS = text("""
    SELECT study_id, kind, state, count(*), sum(epoch)
    FROM cubeopt.runs WHERE study_id = ANY(:ids) GROUP BY study_id, kind, state
""")

# The first full run of a trial begins with the epochs of its short run, which recorded them.
_CONTINUED = text("""
    SELECT continued.study_id, sum(short.epoch)
    FROM cubeopt.runs continued
        JOIN cubeopt.runs short ON short.trial_id = continued.trial_id AND short.kind = 'short'
    WHERE continued.study_id = ANY(:ids) AND continued.kind = 'full' AND continued.replicate = 0
    GROUP BY continued.study_id
""")

_ATTEMPTS = text("""
    SELECT run.study_id, attempt.end_class, count(*)
    FROM cubeopt.attempts attempt JOIN cubeopt.runs run ON run.id = attempt.run_id
    WHERE run.study_id = ANY(:ids) AND attempt.end_class IS NOT NULL
    GROUP BY run.study_id, attempt.end_class
""")


def _by_state(connection: Connection) -> dict[StudyState, int]:
    found = {state: count for state, count in connection.execute(_BY_STATE)}
    return {state: found.get(state, 0) for state in StudyState}


_BY_STATE = text("SELECT state, count(*) FROM cubeopt.studies GROUP BY state")


def _workers(connection: Connection) -> tuple[list[WorkerCensus], int]:
    rows = list(connection.execute(_WORKERS).mappings())
    live = sum(row["live"] for row in rows)
    fields = WorkerCensus.__dataclass_fields__
    return [WorkerCensus(**{name: row[name] for name in fields}) for row in rows], live


_WORKERS = text("""
    SELECT worker.name, max(worker.device) AS device, count(*) AS live,
        bool_and(worker.drain_asked_at IS NOT NULL) AS draining,
        CAST(extract(epoch FROM clock_timestamp() - max(worker.heartbeat_at)) AS float)
            AS silent_seconds,
        CAST(sum((
            SELECT count(*) FROM cubeopt.runs WHERE state = 'running' AND worker_id = worker.id
        )) AS int) AS leases
    FROM cubeopt.workers worker WHERE worker.state = 'live'
    GROUP BY worker.name ORDER BY worker.name
""")

_EXPIRED = text("""
    SELECT count(*) FROM cubeopt.runs
    WHERE state = 'running' AND lease_expires_at < clock_timestamp()
""")

_MESSAGES = text("SELECT kind, state, count(*) FROM cubeopt.outbox GROUP BY kind, state")
