"""What a study may spend, what it has spent, and that it spends no more.

A budget holds without a coordinator: claims and reports look at it in their own transactions, and
workers ask every second whether the time is over. The coordinator only ends the study.

*epochs* is exact. Each run that is leased trains one epoch, so the epochs recorded and the runs
leased together never exceed the budget: a claim is granted no more, and a report sends back
whoever would begin another. *hours* and *device_hours* are overdrawn by what a worker needs to
hear of it, a second at most, and for the step that it is in; a lease that nobody holds any more
counts until it expires.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from cubeopt.db.engine import transaction

_NAMES = ("trials", "epochs", "hours", "device_hours")


@dataclass(frozen=True)
class Account:
    """One budget of a study: how much of it is used."""

    name: str
    limit: float
    used: float

    @property
    def left(self) -> float:
        return max(0, self.limit - self.used)

    @property
    def spent(self) -> bool:
        return self.used >= self.limit

    def __str__(self) -> str:
        used = f"{_number(self.used)} of {_number(self.limit)} used"
        if self.spent:
            return f"budget.{self.name} is spent: {used}"
        return f"budget.{self.name}: {used}, {_number(self.left)} left"


def accounts(engine: Engine, study_id: int) -> list[Account]:
    """The budgets that the study has."""
    with transaction(engine) as connection:
        return _accounts(connection, study_id, _NAMES)


def spent(engine: Engine, study_id: int, spec: Mapping[str, Any]) -> Account | None:
    """The budget that ends the study, if one is spent; *spec* is its file.

    That of trials ends nothing: those that were asked for go on.
    """
    if set(spec.get("budget", {})) <= {"trials"}:
        return None
    with transaction(engine) as connection:
        return first_spent(connection, study_id, spec)


def first_spent(connection: Connection, study_id: int, spec: Mapping[str, Any]) -> Account | None:
    """As `spent`, within a transaction."""
    given = [name for name in _NAMES[1:] if name in spec.get("budget", {})]
    return next((each for each in _accounts(connection, study_id, given) if each.spent), None)


def exhausted(connection: Connection, study_id: int, spec: Mapping[str, Any]) -> bool:
    """Whether the time of a study is over; *spec* is its file."""
    timed = [name for name in ("hours", "device_hours") if name in spec.get("budget", {})]
    return any(each.spent for each in _accounts(connection, study_id, timed))


def excess(connection: Connection, specs: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
    """How many leased runs of each study are more than its budgets allow; *specs* are the files.

    Who asks holds the locks of the rows that it has moved. Others ask after it, and see them.
    """
    found = dict.fromkeys(specs, 0)
    for study_id, spec in sorted(specs.items()):
        limit = spec.get("budget", {}).get("epochs")
        if exhausted(connection, study_id, spec):
            found[study_id] = int(connection.execute(_LEASED, {"study_id": study_id}).scalar_one())
        elif limit is not None:
            connection.execute(_QUEUE_UP, {"study_id": study_id})
            begun = int(connection.execute(_BEGUN, {"study_id": study_id}).scalar_one())
            found[study_id] = max(0, begun - int(limit))
    return found


_QUEUE_UP = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('cubeopt.budget', CAST(:study_id AS bigint)))
""")

_LEASED = text("""
    SELECT count(*) FROM cubeopt.runs WHERE study_id = :study_id AND state = 'running'
""")

_EPOCHS = """
    SELECT count(*) FROM cubeopt.epochs epoch JOIN cubeopt.runs run ON run.id = epoch.run_id
    WHERE run.study_id = study.id
"""

_BEGUN = text(f"""
    SELECT ({_EPOCHS}) + count(run.id)
    FROM cubeopt.studies study
        LEFT JOIN cubeopt.runs run ON run.study_id = study.id AND run.state = 'running'
    WHERE study.id = :study_id
    GROUP BY study.id
""")

# Seconds that a row *study* has been running since its first claim. Whoever moves a study out of
# the state 'running' adds up with it, before state_since changes.
RAN_SECONDS = """(
    study.ran_seconds + coalesce((
        SELECT extract(epoch FROM clock_timestamp() - greatest(study.state_since, min(started_at)))
        FROM cubeopt.runs WHERE study_id = study.id AND study.state = 'running'
        HAVING min(started_at) IS NOT NULL
    ), 0)
)"""

# The attempts of a worker as one set of stretches of time, so that those side by side in its packs
# count once. One that has not ended lasts until now, or until its lease expired. None ends before
# it began, also where the clock of the database was set back meanwhile.
DEVICE_SECONDS = """
    SELECT coalesce(sum(extract(epoch FROM upper(stretch) - lower(stretch))), 0)
    FROM (
        SELECT unnest(range_agg(tstzrange(attempt.started_at, greatest(
            attempt.started_at,
            coalesce(attempt.ended_at, least(clock_timestamp(), run.lease_expires_at))
        )))) AS stretch
        FROM cubeopt.attempts attempt JOIN cubeopt.runs run ON run.id = attempt.run_id
        WHERE run.study_id = study.id
        GROUP BY attempt.worker_id
    ) worker
"""

_USED = {
    "trials": "SELECT count(*) FROM cubeopt.trials WHERE study_id = study.id",
    "epochs": _EPOCHS,
    "hours": f"{RAN_SECONDS} / 3600.0",
    "device_hours": f"({DEVICE_SECONDS}) / 3600.0",
}
_ACCOUNT = {
    name: text(f"""
        SELECT CAST(study.spec->'budget'->>'{name}' AS float) AS given, CAST(({used}) AS float)
        FROM cubeopt.studies study
        WHERE id = :study_id AND study.spec->'budget'->>'{name}' IS NOT NULL
    """)
    for name, used in _USED.items()
}


def _accounts(connection: Connection, study_id: int, names: Iterable[str]) -> list[Account]:
    return [
        Account(name, limit, used)
        for name in names
        for limit, used in connection.execute(_ACCOUNT[name], {"study_id": study_id})
    ]


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"
