"""Connect to PostgreSQL, bring the schema to its newest revision, translate its errors."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy import Engine as Engine  # for those above us, who know no SQLAlchemy
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from cubeopt.db import embedded
from cubeopt.db.tables import SCHEMA
from cubeopt.errors import AddressError, SchemaError, StorageError, StorageLostError
from cubeopt.settings import Settings

logger = logging.getLogger(__name__)

VERSION_TABLE = "alembic_version"  # in our schema: Optuna owns the one in "public"
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_MIGRATION_LOCK = 0x63756265  # "cube"; any number nobody else locks
_TABLES_LOCK = 0x63756267  # for tables that are not ours
_CONNECT = {
    "connect_timeout": 10,
    "client_encoding": "utf8",  # also where the database itself has no encoding
    # A server that has gone without a word (a cable, a machine) is noticed in half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
# Who falls asleep within a transaction holds up others with its locks: the server ends it.
_IDLE_IN_TRANSACTION = "SET idle_in_transaction_session_timeout = '15s'"
# SQLSTATE of what passes: no connection, rolled back for others' sake, no room, read-only for now,
# asleep for too long, shut down.
_PASSING = ("08", "40", "53", "25006", "25P03", "57P")


def connect(settings: Settings) -> Engine:
    """An engine over the storage that *settings* names, its schema at the newest revision.

    Starts the embedded server when no address is set. Threads may share the engine. Raises
    StorageError when PostgreSQL cannot be reached, SchemaError when its tables are newer than we.
    """
    engine = create(settings.database_url or embedded.address(settings.pg_dir))
    try:
        migrate(engine)
    except StorageError:
        engine.dispose()
        raise
    return engine


def create(address: str) -> Engine:
    """An engine over *address*, not yet connected."""
    engine = sqlalchemy.create_engine(
        _url(address),
        connect_args={"application_name": "cubeopt", **_CONNECT},
        # Few are kept open, so that many workers fit; a server that restarted is noticed.
        pool_size=2,
        max_overflow=20,
        pool_pre_ping=True,
        json_serializer=partial(json.dumps, allow_nan=False),
    )
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: psycopg.Connection, record: object) -> None:
    connection.execute(_IDLE_IN_TRANSACTION)
    connection.commit()


def optuna_url(engine: Engine) -> str:
    """The address of the same database, password and all, for Optuna's RDBStorage.

    Optuna's tables go into "public", also when the role has the name of our schema, which
    PostgreSQL would otherwise search first.
    """
    options = engine.url.query.get("options", "")
    assert isinstance(options, str)
    query = {"options": f"{options} -csearch_path=public".strip(), "client_encoding": "utf8"}
    return engine.url.update_query_dict(query).render_as_string(hide_password=False)


def described(engine: Engine) -> str:
    """Host and database of *engine*, to be shown to people: no user, no password."""
    return _described(engine.url)


def revision(engine: Engine) -> str | None:
    """The revision of our tables in the database; None when there are none."""
    with transaction(engine) as connection:
        return _revision(connection)


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring our tables to the newest revision; (revision before, revision now).

    Processes that start at once wait for the one that does it.
    """
    config = _alembic_config()
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    assert newest is not None
    before = revision(engine)
    if before == newest:
        return before, newest
    with transaction(engine) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        before = _revision(connection)
        _check_known(before, scripts, newest)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config.attributes["connection"] = connection
        command.upgrade(config, newest)
    logger.info("schema of %s: revision %s -> %s", described(engine), before, newest)
    return before, newest


def check(engine: Engine) -> None:
    """StorageError unless PostgreSQL answers and our tables are those of this version."""
    newest, found = (
        ScriptDirectory.from_config(_alembic_config()).get_current_head(),
        revision(engine),
    )
    if found != newest:
        raise SchemaError(
            f"{described(engine)}: the tables are at revision {found!r}, this version of cubeopt "
            f"needs {newest!r}; see 'cubeopt db migrate'"
        )


@contextmanager
def alone(address: str) -> Iterator[None]:
    """While the block runs, no other process runs one over the same database: for making tables."""
    engine = create(address)
    try:
        with transaction(engine) as connection:
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TABLES_LOCK})
            yield
    finally:
        engine.dispose()


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction on a connection of *engine*; errors come out as StorageError."""
    with translated(described(engine)), engine.begin() as connection:
        yield connection


@contextmanager
def translated(where: str = "PostgreSQL") -> Iterator[None]:
    """Turn errors of SQLAlchemy and psycopg into a StorageError of one line naming *where*.

    It is a StorageLostError where waiting may help.
    """
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        kind = StorageLostError if _passes(cause) else StorageError
        raise kind(f"{where}: {lines[0]}") from error


def _passes(cause: BaseException | None) -> bool:
    """Whether *cause* is about the server's being there, rather than about what it was told."""
    if not isinstance(cause, psycopg.Error):
        return False
    if cause.sqlstate is None:  # from our end of the connection
        return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
    return cause.sqlstate.startswith(_PASSING)


def _url(address: str) -> URL:
    """*address* as a URL for psycopg 3; an error never repeats it, for it may hold a password."""
    scheme, found, _ = address.partition("://")
    if not found or scheme not in _SCHEMES:
        got = f"got {scheme!r}" if found else "got no scheme"
        raise AddressError(
            f"the storage must be a PostgreSQL address, postgresql://USER@HOST/DATABASE; {got}"
        )
    unreadable = AddressError(
        "the storage address cannot be read; expected postgresql://USER@HOST:PORT/DATABASE "
        "with special characters in a password written as %XX"
    )
    try:
        url = make_url(address).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise unreadable from None
    if "@" in (url.host or ""):  # the rest of a password
        raise unreadable
    return url


def _described(url: URL) -> str:
    host = url.host or url.query.get("host") or "local socket"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL at {host}{port}, database {url.database!r}"


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "version_table_schema": SCHEMA}
    )
    return context.get_current_revision()


def _check_known(found: str | None, scripts: ScriptDirectory, newest: str) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(
            f"the tables in the database are at revision {found!r}, but this version of cubeopt "
            f"knows only up to {newest!r}; update cubeopt"
        )


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", "cubeopt.db:migrations")
    config.set_main_option("path_separator", "os")
    return config
