"""Where runs come to an end that no report gives them: what the packs of one worker share."""

import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from cubeopt.db import attempts, beats
from cubeopt.db.engine import Engine
from cubeopt.db.leases import Lease
from cubeopt.db.queue import Claim
from cubeopt.db.tables import EndClass, RunState
from cubeopt.errors import LeaseLostError, StorageLostError
from cubeopt.service.events import Event, Happening
from cubeopt.service.heartbeat import Heartbeat
from cubeopt.service.shelf import Shelf
from cubeopt.training import memory
from cubeopt.trial import TrialSpec

logger = logging.getLogger(__name__)

_RETRY_LIMIT = 2  # times that a run is tried again after an error


@dataclass
class Held:
    """A run that a worker has the lease of."""

    claim: Claim
    spec: TrialSpec
    epoch: int  # the last one trained
    saved: int = 0  # batches that its newest checkpoint has seen

    @property
    def lease(self) -> Lease:
        return Lease(self.claim.run_id, self.claim.token)


@dataclass(frozen=True)
class Station:
    """One worker's place: its name to the queue, its shelf, its heart, its voice."""

    engine: Engine
    worker_id: int
    device: torch.device
    lease_seconds: float
    shelf: Shelf
    heart: Heartbeat
    tell: Callable[[Event], None]

    def owns(self, each: Held) -> bool:
        """Whether the run is ours, for all we can learn now."""
        try:
            return bool(beats.beat(self.engine, self.worker_id, [each.lease], self.lease_seconds))
        except StorageLostError:
            return True

    def broke(self, held: Sequence[Held], error: Exception) -> None:
        """Training these runs together raised *error*: find out whose it is.

        Alone, a run is at fault. In company nobody knows: all are given back as suspects, whose
        next attempts are alone until they have recorded an epoch. Out of memory is nobody's fault
        but the width's: what has computed nothing yet waits for a pack of half of it. While the
        storage is gone nothing of this can be written down: the leases are left to expire.
        """
        text, alone = "".join(traceback.format_exception(error)), len(held) == 1
        end_class, at_fault = EndClass.ERROR, list(held) if alone else []
        if memory.is_shortage(error):
            text += memory.shortage(error, self.device) + "\n"
            end_class = EndClass.OUT_OF_MEMORY
            at_fault = [each for each in held if alone or each.epoch == 0]
        company = [each for each in held if each not in at_fault]
        if company:
            numbers = [each.claim.trial_number for each in company]
            logger.warning("a pack broke (%r); trials %s go on alone", error, numbers)
        try:
            self._fail(at_fault, end_class, text)
            if company:
                self.release(company, text)
        except StorageLostError as lost:
            logger.warning("%r is not written down: %s", error, lost)
            self.heart.alarm()
            self._abandon(held)

    def release(
        self, held: Iterable[Held], error: str | None = None, checkpoint: str | None = None
    ) -> None:
        """Give runs back to the queue, as suspects if there was an *error* in their pack.

        A *checkpoint* is of a single run; it is forgotten when the run is not ours any more.
        """
        held = list(held)
        leases = [each.lease for each in held]
        suspect = error is not None
        ours = attempts.release(
            self.engine, leases, error=error, suspect=suspect, checkpoint=checkpoint
        )
        if checkpoint is not None:
            self.shelf.settle(checkpoint, held[0].lease.token, recorded=bool(ours))
        self.heart.drop(leases)
        for each in held:
            what = Happening.RELEASED if each.claim.run_id in ours else Happening.LET_GO
            self.tell(Event(what, each.claim, each.epoch))

    def _abandon(self, held: Iterable[Held]) -> None:
        """Leave to expire what could not be given back."""
        ours = self.heart.held()
        for each in held:
            if each.lease in ours:
                self.heart.drop([each.lease])
                self.tell(Event(Happening.ABANDONED, each.claim, each.epoch))

    def _fail(self, failed: Iterable[Held], end_class: EndClass, text: str) -> None:
        """End the attempts of these runs; each waits for its next, or has failed."""
        cause = text.rstrip().rpartition("\n")[2]
        for each in failed:
            state = None
            with suppress(LeaseLostError):
                state = attempts.fail(self.engine, each.lease, end_class, text, _RETRY_LIMIT)
            self.heart.drop([each.lease])
            again = "will be tried again" if state is RunState.WAITING else "has failed"
            detail = f"{cause} ({again})"
            self.tell(Event(Happening.ERROR, each.claim, each.epoch, detail=detail))
