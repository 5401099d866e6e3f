"""Tells a receiver what happened: a thread beside the leader that empties the outbox.

It takes nothing of the coordinator's time, and what it cannot deliver waits in the tables for it or
for the next leader's.
"""

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from types import TracebackType
from typing import Any

from cubeopt.db import outbox, records
from cubeopt.db.engine import Engine
from cubeopt.db.outbox import Message
from cubeopt.db.records import StudyRecord
from cubeopt.db.tables import Kind, RunKind, RunState
from cubeopt.errors import StorageError
from cubeopt.service import telling
from cubeopt.service.companion import Companion
from cubeopt.service.courier import TIMEOUT_SECONDS, Courier, UndeliveredError
from cubeopt.settings import Receiver

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0  # at least, between two messages of a study's new best
GIVE_UP_SECONDS = 86400.0  # after which a message is not tried again
_LOOK_SECONDS = 0.5  # between two looks into the outbox
_BESTS_SECONDS = 5.0  # between two looks at the bests, and more where a look takes long
_TIDY_SECONDS = 600.0
_FIRST_AGAIN_SECONDS, _LONGEST_AGAIN_SECONDS = 1.0, 600.0  # between two tries, doubled each time
_AFTER_FAULT_SECONDS = 30.0  # a fault of ours
_LAST_SECONDS = 3.0  # for what is due as the leader leaves

Standing = Mapping[str, Any]  # the best of a study, or its front, as rows
Judge = Callable[[Engine, StudyRecord], Standing | None]


class Herald(Companion):
    """Works while its leader leads, and for a few seconds after."""

    def __init__(
        self,
        engine: Engine,
        receiver: Receiver,
        judge: Judge,
        quiet_seconds: float = QUIET_SECONDS,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        """*judge* says what is best of a study now; None: nothing yet."""
        super().__init__("herald")
        self._engine, self._courier, self._judge = engine, Courier(receiver), judge
        self._quiet, self._give_up = quiet_seconds, give_up_seconds
        self._shown = receiver.shown
        self._complete: dict[int, int] = {}  # complete runs when a study's best was last looked at
        self._bests_due = self._tidy_due = 0.0
        self._leave_by = float("inf")
        self._silent = False  # the receiver did not take the last message

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave with what is due told, but wait for nobody who does not answer."""
        self._leave_by = time.monotonic() + _LAST_SECONDS
        self._done.set()
        self._woken.set()
        self._thread.join(_LAST_SECONDS + 1.0)

    def _run(self) -> None:
        while self._rest(_LOOK_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        """Whatever is due, once; as we leave, only what is to be sent."""
        if not self._done.is_set():
            self._try(self._announce_bests)
            self._try(self._tidy)
        self._try(self._deliver)

    def _try(self, step: Callable[[], None]) -> None:
        """What goes wrong is tried again: nobody waits for this thread."""
        try:
            step()
        except StorageError as error:
            logger.debug("the outbox waits: %s", error)
        except Exception:
            logger.exception("telling %s what happened went wrong; it is tried again", self._shown)
            self._done.wait(_AFTER_FAULT_SECONDS)

    def _announce_bests(self) -> None:
        begun = time.monotonic()
        if begun < self._bests_due:
            return
        running = records.running(self._engine)
        self._complete = {
            each.id: self._complete[each.id] for each in running if each.id in self._complete
        }
        for record in running:
            self._announce_best(record)
        ended = time.monotonic()
        self._bests_due = ended + max(_BESTS_SECONDS, 20 * (ended - begun))

    def _announce_best(self, record: StudyRecord) -> None:
        counts = [records.counts(self._engine, record.id, kind) for kind in RunKind]
        complete = sum(each[RunState.COMPLETE] for each in counts)
        if not complete or self._complete.get(record.id) == complete:
            return
        last = outbox.last_best(self._engine, record.id)
        if last is not None and last[1] < self._quiet:
            return  # looked at again when it is no more
        before = {} if last is None else {k: v for k, v in last[0].items() if k != "before"}
        standing = self._standing(record)
        if standing and standing != before:
            facts = {**standing, "before": before or None}
            if not outbox.add_best(self._engine, record.id, facts, self._quiet):
                return
        self._complete[record.id] = complete

    def _standing(self, record: StudyRecord) -> Standing:
        """What is best of a study; nothing where nothing is, or nobody can say."""
        try:
            return self._judge(self._engine, record) or {}
        except StorageError:
            raise
        except Exception:
            logger.exception("study %s: nobody can say what is best of it", record.name)
            return {}

    def _tidy(self) -> None:
        now = time.monotonic()
        if now >= self._tidy_due:
            self._tidy_due = now + _TIDY_SECONDS
            outbox.tidy(self._engine)

    def _deliver(self) -> None:
        """The first message of each study, until nothing is due or the receiver takes none."""
        while due := outbox.due(self._engine):
            for message in due:
                if self._left <= 0 or not self._send(message):
                    return

    @property
    def _left(self) -> float:
        """Seconds that a message may take."""
        if not self._done.is_set():
            return TIMEOUT_SECONDS
        return min(TIMEOUT_SECONDS, self._leave_by - time.monotonic())

    def _send(self, message: Message) -> bool:
        body = message.body or self._composed(message)
        try:
            self._courier.post(message.event, body, max(self._left, 0.1))
        except UndeliveredError as error:
            self._note_failure(message, str(error))
            return False
        outbox.delivered(self._engine, message.id)
        if self._silent:
            logger.warning("%s takes messages again", self._shown)
        self._silent = False
        return True

    def _composed(self, message: Message) -> str:
        """What is sent, kept before it is: it stays the same when it is sent again."""
        facts = dict(message.facts)
        if message.study_id is not None and message.kind is not Kind.NEW_BEST:
            record = records.of_id(self._engine, message.study_id)
            facts |= {} if record is None else self._standing(record)
        body = json.dumps(
            {
                "id": message.event,
                "event": message.kind,
                "created": message.created_at.astimezone(UTC).isoformat(),
                "study": message.study,
                "text": telling.line(message.kind, message.study, facts),
                "facts": facts,
            },
            allow_nan=False,
        )
        outbox.compose(self._engine, message.id, body)
        return body

    def _note_failure(self, message: Message, error: str) -> None:
        again = min(_LONGEST_AGAIN_SECONDS, _FIRST_AGAIN_SECONDS * 2.0 ** min(message.tries, 16))
        again *= random.uniform(0.5, 1.0)  # not all at once, once it is back
        if outbox.failed(self._engine, message.id, error, again, self._give_up):
            logger.error("message %s is given up: %s", message.event, error)
        elif not self._silent:
            logger.warning("%s; messages wait", error)
        self._silent = True
