"""On a fresh machine, whoever comes first makes what all need."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from cubeopt.db import embedded, leader, records
from cubeopt.db import engine as db_engine
from cubeopt.db.tables import SCHEMA

from .conftest import site, until


@pytest.fixture
def nowhere() -> Iterator[Path]:
    """An empty folder that nobody else closes: pytest shuts its own to others at each start."""
    home = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    yield home
    shutil.rmtree(home)


@pytest.mark.parametrize("count", [4, pytest.param(16, marks=pytest.mark.long)])
def test_workers_that_start_at_once_on_an_empty_folder_share_one_server_and_one_schema(
    nowhere, count
):
    folder = nowhere / "storage" / "pg"
    with site(nowhere / "storage") as fresh:
        try:
            workers = [fresh.worker() for _ in range(count)]
            until(lambda: embedded.status(folder).running, 120)
            engine = db_engine.create(embedded.address(folder, start=False))

            def all_live():
                assert [each.poll() for each in workers] == [None] * count, [
                    fresh.said(each) for each in workers
                ]
                with engine.connect() as connection:
                    query = "SELECT to_regclass('cubeopt.workers') IS NOT NULL"
                    if not connection.scalar(text(query)):
                        return False
                return len(records.workers(engine)) == count

            until(all_live, 300)
            until(lambda: leader.lives(engine))
            assert {each.pid for each in records.workers(engine)} == {w.pid for w in workers}
            with engine.connect() as connection:
                versions = connection.scalars(
                    text(f"SELECT version_num FROM {SCHEMA}.{db_engine.VERSION_TABLE}")
                ).all()
            assert len(versions) == 1
            servers = {
                each.pid: each.ppid()
                for each in psutil.process_iter()
                if each.name() == "postgres" and str(folder / "data") in each.cmdline()
            }
            # One that was forked just now still has the command line of its server.
            assert len([pid for pid, parent in servers.items() if parent not in servers]) == 1
            for worker in workers:
                worker.terminate()
            assert [fresh.ended(each, 20) for each in workers] == [0] * count
            assert fresh.processes() == []
            assert not leader.lives(engine)
            engine.dispose()
        finally:
            fresh.close()
            embedded.stop(folder)
