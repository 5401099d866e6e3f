"""A PostgreSQL set up from the files of a deployment, as the image of docker compose does it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cubeopt.db import embedded

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "storage" / "postgresql"
PASSWORD = 'it\'s "quoted" \\ and $dear'


@dataclass(frozen=True)
class Server:
    """A server set up as the image of PostgreSQL does it, from our files."""

    folder: Path
    port: int
    owner: pwd.struct_passwd | None  # as root: PostgreSQL runs as somebody else

    @property
    def settings(self) -> list[str]:
        return ["-c", f"config_file={self.folder}/postgresql.conf"]

    def run(self, *command: str | Path, **environment: str) -> str:
        """What *command* prints; it must succeed."""
        as_user = {}
        if self.owner:
            as_user = {"user": self.owner.pw_uid, "group": self.owner.pw_gid, "extra_groups": []}
        programs = embedded._program("postgres").parent
        # A file, not a pipe: the server inherits it and keeps it open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [*map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": f"{programs}:{os.environ['PATH']}", **environment},
                **as_user,  # type: ignore[call-overload]
            )
            output.seek(0)
            said: str = output.read()
        assert done.returncode == 0, said
        return said

    @contextmanager
    def running(self, *settings: str) -> Iterator[None]:
        """Serve from our settings file, with *settings* on top, as the image does."""
        options = [*self.settings, "-c", f"unix_socket_directories={self.folder}"]
        options += [
            "-c",
            f"port={self.port}",
            *(word for each in settings for word in ("-c", each)),
        ]
        data, log = str(self.folder / "data"), str(self.folder / "log")
        quoted = " ".join(f"'{option}'" for option in options)
        self.run("pg_ctl", "start", "-D", data, "-l", log, "-w", "-o", quoted)
        try:
            yield
        finally:
            self.run("pg_ctl", "stop", "-D", data, "-m", "fast", "-w")

    def initialise(self) -> None:
        """Run our init.sh, as the image does on a server that is empty and runs."""
        self.run(
            self.folder / "init.sh",
            POSTGRES_USER="postgres",
            CUBEOPT_PASSWORD=PASSWORD,
            PGHOST=str(self.folder),
            PGPORT=str(self.port),
        )


@contextmanager
def cluster() -> Iterator[Server]:
    """An empty server, not running, with passwords by TCP.

    The embedded server must have been started once: that has made the user to run it as.
    """
    folder = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    for name in ("postgresql.conf", "init.sh"):
        shutil.copy(SERVER / name, folder)
    owner = pwd.getpwnam("cubeopt") if os.geteuid() == 0 else None
    if owner:
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = Server(folder, free.getsockname()[1], owner)
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o644)
    server.run(
        *("initdb", "-D", folder / "data", "-U", "postgres", "--pwfile", folder / "password"),
        *("--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"),
    )
    try:
        yield server
    finally:
        shutil.rmtree(folder)
