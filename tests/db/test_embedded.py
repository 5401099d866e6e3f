"""The embedded server: started by whoever comes first, found by everyone else, gone on stop."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest

from cubeopt.db import embedded
from cubeopt.errors import StorageError

ADDRESS = """
import sys
from pathlib import Path
from cubeopt.db import embedded
print(embedded.address(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def pg_dir() -> Iterator[Path]:
    """An empty folder, its path with the characters that scripts forget to quote."""
    root = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    root.chmod(0o755)
    pg_dir = root / "it's a folder 100%" / "pg"
    yield pg_dir
    embedded.stop(pg_dir)
    shutil.rmtree(root)


def ask(url: str, question: str = "SELECT current_database()") -> object:
    with psycopg.connect(url) as session:
        row = session.execute(question).fetchone()
    assert row is not None
    return row[0]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)


def test_processes_that_start_at_once_share_one_server_that_outlives_them(pg_dir: Path) -> None:
    assert embedded.status(pg_dir) == embedded.ServerStatus(
        False, None, None, None, pg_dir / "data"
    )
    with pytest.raises(StorageError, match=r"not running; start it with 'cubeopt db up'"):
        embedded.address(pg_dir, start=False)
    assert not pg_dir.exists()
    command = [sys.executable, "-W", "error", "-c", ADDRESS, str(pg_dir)]
    starters = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [starter.communicate(timeout=120) for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0], said
    urls = {out for out, _ in said}
    assert len(urls) == 1
    assert {err for _, err in said} == {""}
    assert ask(urls.pop().strip()) == "cubeopt"


def test_a_running_server_is_found_again_without_a_restart(pg_dir: Path) -> None:
    url = embedded.address(pg_dir)
    began = ask(url, "SELECT pg_postmaster_start_time()")
    started = time.monotonic()
    assert embedded.address(pg_dir) == url
    assert embedded.address(pg_dir, start=False) == url
    assert time.monotonic() - started < 1.0
    assert ask(url, "SELECT pg_postmaster_start_time()") == began
    status = embedded.status(pg_dir)
    assert (status.running, status.url, status.data_dir) == (True, url, pg_dir / "data")
    assert status.version is not None
    assert status.version.startswith("18.")
    assert status.pid is not None
    os.kill(status.pid, 0)


def test_only_the_owner_reaches_the_server(pg_dir: Path) -> None:
    url = embedded.address(pg_dir)
    assert pg_dir.stat().st_mode & 0o077 == 0
    assert (pg_dir / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0
    assert ask(url, "SHOW listen_addresses") == ""


def test_a_killed_server_recovers_with_everything_that_was_committed(pg_dir: Path) -> None:
    url = embedded.address(pg_dir)
    with psycopg.connect(url) as session:
        session.execute("CREATE TABLE kept AS SELECT 42 AS value")
    pid = embedded.status(pg_dir).pid
    assert pid is not None
    kill(pid)
    assert (pg_dir / "data" / "postmaster.pid").exists()
    assert not embedded.status(pg_dir).running
    assert ask(embedded.address(pg_dir), "SELECT value FROM kept") == 42


def test_a_stale_id_that_now_belongs_to_another_program_does_not_hinder(pg_dir: Path) -> None:
    embedded.address(pg_dir)
    server = embedded.status(pg_dir).pid
    assert server is not None
    kill(server)
    file = pg_dir / "data" / "postmaster.pid"
    owner = file.stat()
    # PostgreSQL takes a live process of its own user for a server.
    other = subprocess.Popen(["sleep", "60"], user=owner.st_uid)
    try:
        file.write_text(file.read_text().replace(str(server), str(other.pid), 1))
        assert not embedded.status(pg_dir).running
        assert not embedded.stop(pg_dir)
        assert ask(embedded.address(pg_dir)) == "cubeopt"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_stop_stops_under_open_connections_and_says_whether_it_did(pg_dir: Path) -> None:
    url = embedded.address(pg_dir)
    session = psycopg.connect(url)
    assert embedded.stop(pg_dir)
    assert not embedded.stop(pg_dir)
    assert session.execute is not None
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()
    status = embedded.status(pg_dir)
    assert (status.running, status.pid, status.version, status.url) == (False, None, "18", None)
    assert ask(embedded.address(pg_dir)) == "cubeopt"


def test_a_database_that_is_missing_is_made(pg_dir: Path) -> None:
    url = embedded.address(pg_dir)
    with psycopg.connect(url.replace("/cubeopt?", "/postgres?"), autocommit=True) as session:
        session.execute("DROP DATABASE cubeopt WITH (FORCE)")
    assert ask(embedded.address(pg_dir)) == "cubeopt"


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder with a short path, closed to others; a server in it is stopped in the end."""
    root = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    yield root
    embedded.stop(root / "pg")
    shutil.rmtree(root)


def test_a_start_that_was_killed_half_way_is_done_again(root: Path) -> None:
    unfinished = root / "pg" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    assert ask(embedded.address(root / "pg")) == "cubeopt"
    assert not unfinished.exists()
    # As root the server runs as somebody else, who may pass the folders above, and no more.
    assert root.stat().st_mode & 0o777 == (0o701 if os.geteuid() == 0 else 0o700)


@pytest.mark.parametrize("name", ["long" * 30, "one,two"])
def test_a_path_that_no_socket_can_have_works(pg_dir: Path, name: str) -> None:
    long = pg_dir.parent / name / "pg"
    url = embedded.address(long)
    try:
        assert ask(url) == "cubeopt"
        assert embedded.address(long) == url
    finally:
        socket_dir = Path(unquote(url.partition("host=")[2].partition("&")[0]))
        assert socket_dir.is_dir()
        assert embedded.stop(long)
        assert not socket_dir.exists()


def test_a_server_that_cannot_start_says_why(root: Path) -> None:
    embedded.address(root / "pg")
    embedded.stop(root / "pg")
    with (root / "pg" / "data" / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = nonsense\n")
    with pytest.raises(StorageError, match=r"did not start.*nonsense") as caught:
        embedded.address(root / "pg")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        embedded.address(tmp_path / "file" / "pg")
    place = tmp_path / "file" / "pg"
    assert str(caught.value) == f"cannot use {place} for the embedded PostgreSQL: Not a directory"
