"""Several workers on one machine under one parent: one for each GPU, or so many on the CPU.

A worker's standard input ties it to the parent: a line asks it to leave, the end says that the
parent is gone, however it died. So nobody trains on for a parent that was killed.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
_LAST_WORDS_SECONDS = 5.0  # for what an ended worker has said and was not read yet


@dataclass(frozen=True)
class Post:
    """One worker to start: what it is called, and the words of its command line."""

    label: str  # gpu0, cpu3
    words: tuple[str, ...]


class Crew:
    """The workers of *posts*, from the entry of a `with` statement to its exit.

    *tell* is given every line that they print, with the label of who did; from several threads.
    """

    def __init__(
        self, posts: Sequence[Post], storage: str | None, tell: Callable[[str, str], None]
    ) -> None:
        # The address may hold a password: the environment is not shown to other users.
        environment = os.environ | ({"CUBEOPT_STORAGE": storage} if storage else {})
        self._posts, self._environment, self._tell = posts, environment, tell
        self._members: list[_Member] = []

    def __enter__(self) -> "Crew":
        for post in self._posts:
            self._members.append(_Member(post, self._environment, self._tell))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for all, who leave now if they have not been asked to."""
        for member in self._members:
            member.let_go()
        for member in self._members:
            member.wait()

    def work(self, stop: threading.Event, look: Callable[[], None]) -> int:
        """Until all have left, whom *stop* asks to; the code of the failures, 0 without any.

        The others go on when one dies. *look* is called again and again.
        """
        asked, working = False, list(self._members)
        while working:
            if stop.is_set() and not asked:
                asked = True
                for member in working:
                    member.ask_to_leave()
            for member in [each for each in working if each.ended()]:
                working.remove(member)
                member.wait()
                if member.failure():
                    others = "; the others go on" if working and not asked else ""
                    self._tell("cubeopt", f"{member.failure()}{others}")
            look()
            time.sleep(_LOOK_SECONDS)
        codes = {member.code() for member in self._members} - {0}
        return codes.pop() if len(codes) == 1 else min(1, len(codes))

    def kill(self) -> None:
        """End all at once; their leases expire."""
        for member in self._members:
            member.kill()


class _Member:
    """One worker process, and the thread that reads what it says."""

    def __init__(
        self, post: Post, environment: dict[str, str], tell: Callable[[str, str], None]
    ) -> None:
        self._label, self._tell = post.label, tell
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cubeopt", "worker", *post.words, "--hosted"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent, who passes it on
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask_to_leave(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it may have ended by itself
            self._process.stdin.write("leave\n")
            self._process.stdin.flush()

    def let_go(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> None:
        """Until it has ended and what it said is told."""
        self._process.wait()
        self._reader.join(_LAST_WORDS_SECONDS)

    def kill(self) -> None:
        self._process.kill()

    def code(self) -> int:
        """Its exit code; 1 when a signal has killed it."""
        return 1 if self._process.returncode < 0 else self._process.returncode

    def failure(self) -> str | None:
        """How it ended, unless that was well."""
        code = self._process.returncode
        if code == 0:
            return None
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"worker {self._label} (pid {self._process.pid}) {how}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self._tell(self._label, line.rstrip("\n"))
