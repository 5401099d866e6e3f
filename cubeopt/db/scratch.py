"""A database of its own beside the user's, for what must not touch their studies."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, TextClause, text

from cubeopt.db import embedded
from cubeopt.db.engine import create, described, migrate, transaction, translated
from cubeopt.settings import Settings

logger = logging.getLogger(__name__)


@contextmanager
def database(settings: Settings) -> Iterator[Engine]:
    """A new database with our tables on the server that *settings* name; dropped at the end.

    Raises StorageError when the server cannot be reached or lets us create none.
    """
    server = create(settings.database_url or embedded.address(settings.pg_dir))
    name = f"cubeopt_scratch_{uuid.uuid4().hex[:12]}"
    _run(server, f"CREATE DATABASE {name}")
    engine = create(server.url.set(database=name).render_as_string(hide_password=False))
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()
        _run(server, f"DROP DATABASE {name} WITH (FORCE)")
        server.dispose()


def _run(server: Engine, statement: str) -> None:
    """Outside of a transaction, as databases are made and dropped."""
    outside = server.execution_options(isolation_level="AUTOCOMMIT")
    with translated(described(server)), outside.connect() as connection:
        connection.execute(text(statement))


@dataclass(frozen=True)
class Ended:
    """How far the studies of a database are."""

    trials: int
    reports: int  # of these


def ended(engine: Engine) -> Ended:
    """By our tables."""
    return _ended(engine, _ENDED)


def ended_plain(engine: Engine) -> Ended:
    """By Optuna's."""
    return _ended(engine, _ENDED_PLAIN)


def _ended(engine: Engine, statement: TextClause) -> Ended:
    with transaction(engine) as connection:
        trials, reports = connection.execute(statement).one()
    return Ended(trials, reports)


_ENDED = text("""
    SELECT count(*), coalesce(sum(epoch), 0) FROM cubeopt.runs WHERE state IN ('complete', 'pruned')
""")

_ENDED_PLAIN = text("""
    SELECT count(DISTINCT trial_id), count(step)
    FROM public.trials LEFT JOIN public.trial_intermediate_values USING (trial_id)
    WHERE state IN ('COMPLETE', 'PRUNED')
""")


def fill(engine: Engine, study_id: int, trials: int, epochs: int) -> None:
    """Write *trials* complete trials of *epochs* epochs, as if they had been trained and shown."""
    values = {"study_id": study_id, "trials": trials, "epochs": epochs}
    with transaction(engine) as connection:
        connection.execute(_FILL, values)
        connection.execute(_FILL_EPOCHS, values)
    _run(engine, "VACUUM ANALYZE")  # as the server does by itself in time


_FILL = text("""
    WITH worker AS (
        INSERT INTO cubeopt.workers (name, host, pid, device, provenance, state)
        VALUES ('scratch', 'scratch', 0, 'none', '{}', 'gone')
        RETURNING id
    ), written AS (
        INSERT INTO cubeopt.trials (study_id, number, params, mirrored_epoch, told)
        SELECT :study_id, number, '{}', :epochs, true FROM generate_series(0, :trials - 1) number
        RETURNING id
    ), trained AS (
        INSERT INTO cubeopt.runs (
            trial_id, study_id, kind, spec, pack_key, target_epochs, state, width, token, epoch,
            value, started_at, finished_at
        )
        SELECT id, :study_id, 'short', '{}', 'scratch', :epochs, 'complete', 1, 1, :epochs,
            random(), clock_timestamp(), clock_timestamp()
        FROM written
        RETURNING id
    )
    INSERT INTO cubeopt.attempts (
        run_id, token, worker_id, ended_at, from_epoch, end_class, device, provenance
    )
    SELECT trained.id, 1, worker.id, clock_timestamp(), 0, 'done', 'none', '{}'
    FROM trained, worker
""")

_FILL_EPOCHS = text("""
    INSERT INTO cubeopt.epochs (run_id, epoch, token, value, metrics)
    SELECT run.id, nth, 1, random(), '{}'
    FROM cubeopt.runs run, generate_series(1, :epochs) nth
    WHERE run.study_id = :study_id AND run.pack_key = 'scratch'
""")
