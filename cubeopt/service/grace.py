"""The time that a worker has to leave in once it was told to; after that it leaves all the same."""

import os
import sys
import threading

from cubeopt.db import attempts, queue
from cubeopt.db.engine import Engine
from cubeopt.errors import StorageError
from cubeopt.service.companion import Companion
from cubeopt.service.heartbeat import Heartbeat

_SHARE = 0.8  # of the time, for leaving by oneself; the rest is for leaving by force
_LOOK_SECONDS = 0.1


class Grace(Companion):
    """Watches over a worker's leaving: a step may take longer than there is time.

    When the time is over, what is held goes back to the queue as its last checkpoints have it, and
    the process ends with 0. It writes nothing after that, because it is gone.
    """

    def __init__(
        self,
        engine: Engine,
        worker_id: int,
        heart: Heartbeat,
        stop: threading.Event,
        seconds: float | None,
    ) -> None:
        super().__init__("grace")
        self._engine, self._worker_id, self._heart = engine, worker_id, heart
        self._stop, self._seconds = stop, seconds

    def _run(self) -> None:
        if self._seconds is None:
            return
        while not self._stop.wait(_LOOK_SECONDS):
            if self._done.is_set():
                return
        if not self._done.wait(self._seconds * _SHARE):
            self._leave()

    def _leave(self) -> None:
        said = "the time to leave is over"
        try:
            given = attempts.release(self._engine, self._heart.held())
            queue.retire(self._engine, self._worker_id)
            said += f"; {len(given)} runs given back"
        except StorageError as error:
            said += f"; the leases could not be given back and will expire: {error}"
        print(f"cubeopt: {said}", file=sys.stderr)
        os._exit(0)
