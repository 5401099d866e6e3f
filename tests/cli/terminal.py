"""A command on a terminal of its own, which has a size, and where Ctrl-C is a key."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A running command; *raw* is all that it has written."""

    def __init__(self, columns: int, rows: int, *arguments: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.raw = ""
        self._seen = 0
        self.resize(columns, rows)
        kept = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
        }
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "cubeopt", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**kept, "TERM": "xterm-256color", **environment},
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.popen.kill()
        self.popen.wait()
        os.close(self._master)

    @property
    def left(self) -> str:
        """What stays on the terminal after a screen of its own is gone, as plain text."""
        return _plain(self.raw.rpartition("\x1b[?1049l")[2])

    def resize(self, columns: int, rows: int) -> None:
        """As when a person drags the window; the command gets a SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str, seconds: float = 60.0) -> None:
        """Wait until *text* has been written since what was waited for before."""
        deadline = time.monotonic() + seconds
        while text not in _plain(self.raw[self._seen :]):
            assert time.monotonic() < deadline, f"no {text!r} in {self.raw[-2000:]!r}"
            assert self._read(), f"ended without {text!r}: {self.raw[-2000:]!r}"
        self._seen = len(self.raw)

    def ended(self, seconds: float = 60.0) -> int:
        """The exit code, once all was written."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"did not end: {self.raw[-2000:]!r}"
        return self.popen.wait(10)

    def _read(self) -> bool:
        """Whether there is more to come."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            new = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += new.decode(errors="replace")
        return bool(new)


def _plain(text: str) -> str:
    return _ESCAPES.sub("", text)


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
