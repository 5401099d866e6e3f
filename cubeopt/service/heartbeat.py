"""A worker's heartbeat: a thread that extends its leases while training goes on."""

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from cubeopt.db import beats, embedded
from cubeopt.db.engine import Engine
from cubeopt.db.leases import Lease
from cubeopt.db.waits import Stopwatch
from cubeopt.errors import StorageError
from cubeopt.service.companion import Companion

logger = logging.getLogger(__name__)

_BEATS = 4  # in the life of a lease, and more in a long one
_LONGEST_SECONDS = 15.0  # between two beats: a worker that is silent for a minute is noted as gone
_AGAIN_SECONDS = 1.0  # until the next beat, when one was not heard


class Heartbeat(Companion):
    """Beats, and knows which leases were lost, and for how long the storage has not answered.

    It alone asks whether a storage that was gone is there again: all others wait for its word.
    """

    def __init__(
        self,
        engine: Engine,
        worker_id: int,
        lease_seconds: float,
        pg_dir: Path | None = None,
    ) -> None:
        """*pg_dir* is of a server that is ours to start again, should it be killed."""
        super().__init__("heartbeat")
        self._engine, self._worker_id, self._seconds = engine, worker_id, lease_seconds
        self._pg_dir = pg_dir
        self._leases: dict[int, Lease] = {}
        self._lost: set[Lease] = set()
        self._guard = threading.Lock()
        self._silent_since: float | None = None  # when first it did not answer somebody
        self.claims = Stopwatch()  # what the worker waits for the answers to its claims

    def hold(self, held: Iterable[Lease]) -> None:
        """Extend these leases from now on."""
        with self._guard:
            for lease in held:
                self._leases[lease.run_id] = lease

    def drop(self, left: Iterable[Lease]) -> None:
        """Extend these no longer; a newer lease of the same run is another one and stays."""
        with self._guard:
            for lease in left:
                if self._leases.get(lease.run_id) == lease:
                    del self._leases[lease.run_id]
                self._lost.discard(lease)

    def held(self) -> list[Lease]:
        """The leases that are extended now."""
        with self._guard:
            return list(self._leases.values())

    def lost(self) -> set[Lease]:
        """The leases that we hold no more: they expired, and others may have the runs by now."""
        with self._guard:
            return set(self._lost)

    @property
    def unheard(self) -> bool:
        """Whether the storage did not answer the last time that somebody asked."""
        return self._silent_since is not None

    @property
    def silence(self) -> float:
        """Seconds for which the storage has not answered; 0 while it does.

        They begin when somebody asked: a worker that was stopped, or its machine suspended, has not
        been without a storage meanwhile.
        """
        since = self._silent_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def outlived(self) -> bool:
        """Whether it has not answered for so long that our leases are over."""
        return self.silence > self._seconds

    def alarm(self) -> None:
        """The storage did not answer somebody: look at once."""
        self._fall_silent()
        self._woken.set()

    def _run(self) -> None:
        failing, pause = False, min(self._seconds / _BEATS, _LONGEST_SECONDS)
        while self._rest(_AGAIN_SECONDS if failing else pause):
            held = self.held()
            try:
                ours = self._beat(held)
            except StorageError as error:
                # If a lease expires meanwhile, fencing keeps us out.
                if not failing:
                    logger.warning("heartbeat failed; training goes on: %s", error)
                failing = True
                self._fall_silent()
                self._revive()
                continue
            if failing:
                logger.warning("the storage answers again, after %.0f s", self.silence)
            failing, self._silent_since = False, None
            with self._guard:
                self._lost |= {
                    lease
                    for lease in held
                    if lease.run_id not in ours and self._leases.get(lease.run_id) == lease
                }

    def _beat(self, held: list[Lease]) -> set[int]:
        waits = self.claims.read()
        return beats.beat(self._engine, self._worker_id, held, self._seconds, waits)

    def say_last(self) -> None:
        """A beat for its own sake, with what was waited for since the last; before we leave."""
        self._beat([])

    def _fall_silent(self) -> None:
        with self._guard:
            if self._silent_since is None:
                self._silent_since = time.monotonic()

    def _revive(self) -> None:
        if self._pg_dir is None:
            return
        try:
            embedded.revive(self._pg_dir)
        except StorageError as error:
            logger.warning("%s", error)
