"""What workers hold, and what they have done lately: read together, so that it fits together."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

from cubeopt.db.engine import transaction
from cubeopt.db.tables import EndClass, RunKind

FAILURES = (EndClass.ERROR, EndClass.OUT_OF_MEMORY, EndClass.DIVERGED, EndClass.LOST)


@dataclass(frozen=True)
class Holding:
    """A run that a worker has the lease of."""

    worker_id: int
    study: str
    trial: int
    kind: RunKind
    replicate: int
    epoch: int
    target_epochs: int
    pack_key: str
    width: int | None
    lease_seconds: float  # until it expires; negative: it has


@dataclass(frozen=True)
class Pace:
    """What a worker recorded in the last seconds."""

    worker_id: int
    epochs: int
    samples_per_second: float | None  # of the runs that it holds, by their last epochs, together


@dataclass(frozen=True)
class Ends:
    """How many attempts of a worker at a study's runs ended in one way."""

    worker_id: int
    study: str
    end_class: EndClass
    count: int


@dataclass(frozen=True)
class Holdings:
    """All of it, at one moment."""

    holdings: list[Holding]  # by worker, study, trial
    paces: dict[int, Pace]  # by worker id
    ends: list[Ends]
    seconds: float  # that the paces are of


def read(engine: Engine, seconds: float) -> Holdings:
    """What is held now, what was recorded in the last *seconds*, how all attempts ended."""
    with transaction(engine) as connection:
        held = list(connection.execute(_HELD).mappings())
        paces = list(connection.execute(_PACES, {"seconds": seconds}).mappings())
        ends = list(connection.execute(_ENDS).mappings())
    return Holdings(
        holdings=[_holding(row) for row in held],
        paces={row["worker_id"]: Pace(**row) for row in paces},
        ends=[Ends(**{**row, "end_class": EndClass(row["end_class"])}) for row in ends],
        seconds=seconds,
    )


def _holding(row: Any) -> Holding:
    return Holding(**{**row, "kind": RunKind(row["kind"])})


_HELD = text("""
    SELECT run.worker_id, study.name AS study, trial.number AS trial, run.kind, run.replicate,
        run.epoch, run.target_epochs, run.pack_key, run.width,
        CAST(extract(epoch FROM run.lease_expires_at - clock_timestamp()) AS float)
            AS lease_seconds
    FROM cubeopt.runs run JOIN cubeopt.trials trial ON trial.id = run.trial_id
        JOIN cubeopt.studies study ON study.id = run.study_id
    WHERE run.state = 'running'
    ORDER BY run.worker_id, study.name, trial.number, run.kind DESC, run.replicate
""")

# Who recorded an epoch is known by its token. Runs of interest are held, or wait, or ended lately:
# each of the three has an index, and the epochs of a run are read by their key.
_PACES = text("""
    WITH lately AS (
        SELECT id FROM cubeopt.runs WHERE state = 'running'
        UNION ALL
        SELECT id FROM cubeopt.runs WHERE state = 'waiting' AND epoch > 0
        UNION ALL
        SELECT ended.id FROM cubeopt.studies study JOIN cubeopt.runs ended
            ON ended.study_id = study.id
            AND ended.finished_at > clock_timestamp() - make_interval(secs => :seconds)
    ), recorded AS (
        SELECT attempt.worker_id, count(*) AS epochs
        FROM lately JOIN cubeopt.epochs epoch ON epoch.run_id = lately.id
            JOIN cubeopt.attempts attempt
                ON attempt.run_id = epoch.run_id AND attempt.token = epoch.token
        WHERE epoch.created_at > clock_timestamp() - make_interval(secs => :seconds)
        GROUP BY attempt.worker_id
    ), newest AS (
        SELECT run.worker_id,
            sum(CAST(epoch.metrics->>'samples_per_second' AS float)) AS samples_per_second
        FROM cubeopt.runs run JOIN cubeopt.epochs epoch ON epoch.run_id = run.id
            AND epoch.epoch = run.epoch AND epoch.token = run.token
        WHERE run.state = 'running'
        GROUP BY run.worker_id
    )
    SELECT worker_id, coalesce(epochs, 0) AS epochs, samples_per_second
    FROM recorded FULL JOIN newest USING (worker_id)
""")

_ENDS = text("""
    SELECT attempt.worker_id, study.name AS study, attempt.end_class, count(*) AS count
    FROM cubeopt.attempts attempt JOIN cubeopt.runs run ON run.id = attempt.run_id
        JOIN cubeopt.studies study ON study.id = run.study_id
    WHERE attempt.end_class IS NOT NULL
    GROUP BY attempt.worker_id, study.name, attempt.end_class
    ORDER BY study.name, attempt.end_class, attempt.worker_id
""")
