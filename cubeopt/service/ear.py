"""A worker's ear: a thread that hears within a moment what a person asks for while it trains."""

import logging
import threading

from cubeopt.db import notices, recalls
from cubeopt.db.engine import Engine
from cubeopt.db.leases import Lease
from cubeopt.db.notices import Listener
from cubeopt.errors import StorageError
from cubeopt.service.companion import Companion
from cubeopt.service.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # without a notice


class Ear(Companion):
    """Looks after every notice, and every second; knows what shall not go on."""

    def __init__(self, engine: Engine, worker_id: int, heart: Heartbeat) -> None:
        super().__init__("ear")
        self._engine, self._worker_id, self._heart = engine, worker_id, heart
        self._drained = threading.Event()
        self._recalled: frozenset[Lease] = frozenset()

    @property
    def drained(self) -> bool:
        """Whether a person wants this worker to leave."""
        return self._drained.is_set()

    @property
    def recalled(self) -> frozenset[Lease]:
        """The leases to give back: their studies do not run any more, or their trials ended."""
        return self._recalled

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                with notices.listening(self._engine) as listener:
                    self._hear(listener)
            except StorageError as error:
                logger.debug("cannot hear what is asked for: %s", error)
                self._heart.alarm()  # whose word it is that the storage is gone
                self._done.wait(_LOOK_SECONDS)

    def _hear(self, listener: Listener) -> None:
        while not self._done.is_set():
            found = recalls.recall(self._engine, self._worker_id, self._heart.held())
            self._recalled = found.leases
            if found.drained:
                self._drained.set()
            listener.wait(_LOOK_SECONDS)
