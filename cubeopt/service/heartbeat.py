"""A worker's heartbeat: a thread that extends its leases while training goes on."""

import logging
import threading
from collections.abc import Iterable

from cubeopt.db import leases
from cubeopt.db.engine import Engine
from cubeopt.db.leases import Lease
from cubeopt.errors import StorageError
from cubeopt.service.companion import Companion

logger = logging.getLogger(__name__)


class Heartbeat(Companion):
    """Beats three times in the life of a lease; knows which leases were lost."""

    def __init__(self, engine: Engine, worker_id: int, lease_seconds: float) -> None:
        super().__init__("heartbeat")
        self._engine, self._worker_id, self._seconds = engine, worker_id, lease_seconds
        self._leases: dict[int, Lease] = {}
        self._lost: set[Lease] = set()
        self._guard = threading.Lock()

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

    def _run(self) -> None:
        while not self._done.wait(self._seconds / 3):
            held = self.held()
            try:
                ours = leases.beat(self._engine, self._worker_id, held, self._seconds)
            except StorageError as error:
                # The next beat tries again; if the lease expires meanwhile, fencing keeps us out.
                logger.warning("heartbeat failed: %s", error)
                continue
            with self._guard:
                self._lost |= {
                    lease
                    for lease in held
                    if lease.run_id not in ours and self._leases.get(lease.run_id) == lease
                }
