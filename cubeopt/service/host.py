"""A worker hosts the coordinator in a child process when no other leads."""

import logging
import os
import signal
import subprocess
import sys
import time
from types import TracebackType

from cubeopt.db import leader
from cubeopt.db.engine import Engine, optuna_url
from cubeopt.errors import StorageError

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0
_START_SECONDS = 15.0  # what a child may take until it leads
_FAILURES = 3  # children that end with an error, in a row, before we give up
_PATIENCE_SECONDS = 5.0  # for a child that was told to end


class CoordinatorHost:
    """Keeps a coordinator alive as long as this process lives."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._child: subprocess.Popen[bytes] | None = None
        self._checked = self._started = float("-inf")
        self._failures = 0

    def __enter__(self) -> "CoordinatorHost":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The child ends when its standard input does, also when this process is killed."""
        self._end()

    def ensure(self) -> None:
        """Start a coordinator if none lives; cheap to call often."""
        now = time.monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        if leader.lives(self._engine):
            self._failures = 0
            return
        starting = self._child is not None and self._child.poll() is None
        if not starting or now - self._started >= _START_SECONDS:
            self._start(now)

    def _start(self, now: float) -> None:
        if self._child is not None:
            # One that was killed, or lost its storage, has made no error.
            blameless = (None, 0, -signal.SIGKILL, os.EX_TEMPFAIL)
            self._failures += self._child.poll() not in blameless
            self._end()
        if self._failures >= _FAILURES:
            raise StorageError(
                f"the coordinator ended with an error {_FAILURES} times in a row (its messages "
                "stand above); run 'cubeopt coordinator' to see why"
            )
        logger.info("no coordinator lives: hosting one")
        # The address may hold a password: the environment is not shown to other users.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "cubeopt", "coordinator", "--hosted"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"CUBEOPT_STORAGE": optuna_url(self._engine)},
            start_new_session=True,  # Ctrl-C reaches us; the child ends when we do
        )
        self._started = now

    def _end(self) -> None:
        """Have the child end, if there is one; one that does not is killed: it holds no state."""
        if self._child is None:
            return
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
