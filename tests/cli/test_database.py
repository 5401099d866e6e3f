"""The database through the command line: the embedded one, and one at an address."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

Cli = Callable[..., Any]


@pytest.fixture
def own_home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A CUBEOPT_HOME whose embedded server nobody else uses."""
    folder = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    monkeypatch.setenv("CUBEOPT_HOME", str(folder))
    monkeypatch.delenv("CUBEOPT_STORAGE", raising=False)
    yield folder
    cli("db", "stop")
    shutil.rmtree(folder)


def test_the_embedded_server_is_started_looked_at_and_stopped(cli: Cli, own_home: Path) -> None:
    stopped = cli("db", "status", "--json")
    assert (stopped.code, stopped.json["running"], stopped.json["revision"]) == (1, False, None)
    assert list(own_home.iterdir()) == []  # to look starts and makes nothing
    assert cli("db", "stop").out == "no server is running\n"
    up = cli("db", "up", "--json").json
    assert up["storage"] == f"PostgreSQL at {own_home}/pg, database 'cubeopt'"
    running = cli("db", "status", "--json")
    assert running.code == 0
    assert running.json == {"running": True, "data": f"{own_home}/pg/data", **up}
    migrated = cli("db", "migrate", "--json").json
    assert migrated == {"before": up["revision"], "after": up["revision"]}
    assert cli("db", "up").code == 0
    assert cli("db", "stop").out == f"stopped the server of {own_home}/pg\n"
    assert cli("db", "status").out.splitlines()[0] == "running   no"


def test_a_server_at_an_address_is_never_started_nor_stopped(
    cli: Cli, home: Path, database_url: str
) -> None:
    status = cli("db", "status", "--json").json
    assert (status["running"], status["data"]) == (True, None)
    assert cli("db", "stop").out == "no server is running\n"
    with psycopg.connect(database_url) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_the_option_wins_over_the_variable(
    cli: Cli, home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEOPT_STORAGE", "sqlite:///nothing.db")
    assert cli("db", "status").code == 2
    assert cli("db", "status", "--storage", database_url).code == 0


def test_tables_newer_than_this_version_are_one_line_and_code_3(
    cli: Cli, home: Path, database_url: str
) -> None:
    with psycopg.connect(database_url) as session:
        session.execute("UPDATE cubeopt.alembic_version SET version_num = '9999'")
    for command in ("db migrate", "db up", "study list"):
        ran = cli(*command.split())
        assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1)
        assert "update cubeopt" in ran.err
