"""One database for our tables and Optuna's, migrated by whoever comes first."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from cubeopt.db import engine as db_engine
from cubeopt.db import records
from cubeopt.db.engine import transaction
from cubeopt.db.tables import SCHEMA, metadata
from cubeopt.errors import SchemaError, StorageError, StorageLostError
from cubeopt.settings import Settings


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """The address of a database without any tables."""
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield server_url.replace("/cubeopt?", f"/{name}?")
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


def settings(url: str) -> Settings:
    return Settings(Path("/nowhere"), url, "WARNING")


def test_the_migrations_make_exactly_the_tables_of_the_code(empty_url: str) -> None:
    engine = db_engine.connect(settings(empty_url))
    options = {"include_schemas": True, "include_name": _ours, "version_table_schema": SCHEMA}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        migrated = _constraints(connection.engine)
        connection.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        metadata.create_all(connection)
        connection.commit()
    created = _constraints(engine)
    engine.dispose()
    migrated.discard(next(row for row in migrated if row[0] == "alembic_version"))
    assert migrated == created


def _ours(name: str | None, kind: str, parents: object) -> bool:
    return name == SCHEMA if kind == "schema" else True


def _constraints(engine: Engine) -> set[tuple[str, str, str]]:
    """Every constraint and index of our schema, which Alembic compares only in part."""
    statement = text("""
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'cubeopt'::regnamespace AND contype <> 'n'
        UNION ALL
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'cubeopt' AND tablename <> 'alembic_version'
    """)
    with engine.connect() as connection:
        rows = connection.execute(statement)
        return {(str(row[0]).removeprefix("cubeopt."), row[1], row[2]) for row in rows}


def test_processes_that_migrate_at_once_do_it_once(empty_url: str) -> None:
    begin = threading.Barrier(6)

    def work() -> tuple[str | None, str]:
        begin.wait()
        engine = db_engine.create(empty_url)
        try:
            return db_engine.migrate(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(6) as threads:
        moves = [one.result() for one in [threads.submit(work) for _ in range(6)]]
    assert sorted(moves, key=str).count((None, "0007")) == 1
    assert moves.count(("0007", "0007")) == 5


def test_the_revision_is_none_before_and_the_newest_after(empty_url: str) -> None:
    engine = db_engine.create(empty_url)
    assert db_engine.revision(engine) is None
    assert db_engine.migrate(engine) == (None, "0007")
    assert db_engine.revision(engine) == "0007"
    engine.dispose()


def test_what_an_older_revision_held_is_still_there_after_the_newest(empty_url: str) -> None:
    engine = db_engine.connect(settings(empty_url))
    with transaction(engine) as connection:
        config = db_engine._alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    with transaction(engine) as connection:
        connection.execute(text(_OLD_STUDY))
        connection.execute(text(_OLD_RUN))
    assert db_engine.migrate(engine) == ("0001", "0007")
    (study,) = records.studies(engine)
    (run,) = records.runs(engine, study.id)
    assert (study.name, run.epoch, run.suspect) == ("old", 3, False)
    assert study.state_since == study.created_at
    engine.dispose()


_OLD_STUDY = """
    INSERT INTO cubeopt.studies (name, spec, direction, metric, dataset, dataset_fingerprint,
        dataset_rows, baselines, code_version)
    VALUES ('old', '{}', 'minimize', 'fvu', 'd', 'f00d', '{}', '{}', '0');
    INSERT INTO cubeopt.trials (study_id, number, params) SELECT id, 0, '{}' FROM cubeopt.studies
"""
_OLD_RUN = """
    INSERT INTO cubeopt.runs (trial_id, study_id, kind, spec, pack_key, target_epochs, epoch)
    SELECT id, study_id, 'short', '{}', 'a', 5, 3 FROM cubeopt.trials
"""


def test_tables_newer_than_the_code_are_refused(engine: Engine, database_url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE cubeopt.alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match=r"revision '9999'.*up to '0007'; update cubeopt"):
        db_engine.connect(settings(database_url))


def test_optuna_lives_in_the_same_database(engine: Engine) -> None:
    storage = optuna.storages.RDBStorage(db_engine.optuna_url(engine))
    try:
        study = optuna.create_study(storage=storage, study_name="study")
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
        assert optuna.load_study(storage=storage, study_name="study").best_value == 0.5
        assert records.studies(engine) == []
        assert db_engine.migrate(engine) == ("0007", "0007")
        versions = [
            (schema, inspect(engine).has_table("alembic_version", schema=schema))
            for schema in ("public", SCHEMA)
        ]
        assert versions == [("public", True), (SCHEMA, True)]
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_the_usual_ways_to_write_an_address_all_use_psycopg_3(
    database_url: str, scheme: str
) -> None:
    address = database_url.replace("postgresql://", f"{scheme}://")
    engine = db_engine.connect(settings(address))
    with engine.connect() as connection:
        assert connection.dialect.driver == "psycopg"
        name = connection.scalar(text("SELECT current_setting('application_name')"))
    engine.dispose()
    assert name == "cubeopt"


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:///s3cret.db",
        "mysql://user:s3cret@host/database",
        "postgresql+asyncpg://user:s3cret@host/database",
        "s3cret",
        "",
        "postgresql://user:s3cret@host:port/database",
    ],
)
def test_any_other_address_is_one_clear_error_that_does_not_repeat_it(address: str) -> None:
    with pytest.raises(StorageError, match="postgresql://USER@HOST") as caught:
        db_engine.create(address)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_a_storage_error_without_the_password() -> None:
    with pytest.raises(StorageError, match=r"PostgreSQL at 127\.0\.0\.1:1, database 'd'") as caught:
        db_engine.connect(settings("postgresql://user:s3cret@127.0.0.1:1/d?connect_timeout=2"))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_statement_is_a_storage_error_of_one_line(engine: Engine) -> None:
    with (
        pytest.raises(StorageError, match='relation "nothing" does not exist') as caught,
        db_engine.transaction(engine) as connection,
    ):
        connection.execute(text("SELECT * FROM nothing"))
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "passes"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
        ("DO $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$", True),
        ("DO $$ BEGIN RAISE EXCEPTION 'twice' USING ERRCODE = 'unique_violation'; END $$", False),
        ("SELEC 1", False),
    ],
)
def test_what_may_succeed_later_is_told_from_what_may_not(
    engine: Engine, statement: str, passes: bool
) -> None:
    with pytest.raises(StorageError) as raised, transaction(engine) as connection:
        connection.execute(text(statement))
    assert isinstance(raised.value, StorageLostError) is passes


def test_a_server_that_is_not_there_may_be_there_later() -> None:
    engine = db_engine.create("postgresql://postgres@/cubeopt?host=/nowhere")
    with pytest.raises(StorageLostError), transaction(engine):
        pass


def test_who_falls_asleep_in_a_transaction_holds_up_nobody_for_long(engine: Engine) -> None:
    with transaction(engine) as sleeper:
        assert sleeper.scalar(text("SHOW idle_in_transaction_session_timeout")) == "15s"


def test_the_engine_notices_that_its_connections_were_cut(
    engine: Engine, database_url: str
) -> None:
    with db_engine.transaction(engine) as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    assert records.studies(engine) == []


def test_the_address_for_optuna_keeps_the_password_and_no_other_text_does() -> None:
    engine = db_engine.create("postgresql://user:s3c%40ret@host:5433/database")
    assert create_engine(db_engine.optuna_url(engine)).url.password == "s3c@ret"
    assert db_engine.described(engine) == "PostgreSQL at host:5433, database 'database'"
    assert "s3c" not in repr(engine)


def test_the_rest_of_a_password_with_an_at_sign_is_not_shown_as_the_host() -> None:
    with pytest.raises(StorageError, match="%XX") as error:
        db_engine.create("postgresql://user:pa@5ecr3t@host/db")
    assert "5ecr3t" not in str(error.value)


def test_optunas_tables_go_into_public_also_for_a_role_called_like_our_schema(
    engine: Engine,
) -> None:
    with db_engine.transaction(engine) as connection:
        connection.execute(text("CREATE ROLE cubeopt LOGIN SUPERUSER"))
    try:
        own = db_engine.create(
            engine.url.set(username="cubeopt").render_as_string(hide_password=False)
        )
        storage = optuna.storages.RDBStorage(db_engine.optuna_url(own))
        storage.engine.dispose()
        own.dispose()
        with db_engine.transaction(engine) as connection:
            found = connection.execute(
                text("SELECT schemaname FROM pg_tables WHERE tablename = 'trial_values'")
            )
            assert found.scalars().all() == ["public"]
            connection.execute(text("DROP OWNED BY cubeopt"))
    finally:
        with db_engine.transaction(engine) as connection:
            connection.execute(text("DROP ROLE cubeopt"))
