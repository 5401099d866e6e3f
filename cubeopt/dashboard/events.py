"""Server-sent events: viewers are told that there is something new, and fetch it themselves.

What is watched (the runs of some trials, the workers) is looked at about twice a second, by one
poller however many watch it, and by none when nobody does. A viewer that reconnects says what it
has seen last and hears of nothing that it knows. The streams end themselves when the server stops.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import suppress

from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from cubeopt.errors import CubeoptError

logger = logging.getLogger(__name__)

SECONDS = 0.5  # between two looks
_SHARE = 50.0  # times as long as a look took: at most a fiftieth of one connection's time
_LONGEST = 5.0  # between two looks, however slow the storage is
_PING_SECONDS = 15.0
_RETRY_MILLISECONDS = 1000  # until a browser connects again
_GRACE_SECONDS = 2.0  # for a stream to end in order before sse-starlette cuts it off

Look = Callable[[], str]


def digest(text: str) -> str:
    """A short word for *text*: the same for the same, another for another."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Watches:
    """All that is watched on one server. Belongs to its event loop."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Watch] = {}
        self._ended = False

    def answer(
        self, request: Request, key: Hashable, look: Look, seconds: float = SECONDS
    ) -> Response:
        """A stream of the marks that *look* gives, each when it is another than the one before.

        Those who ask with the same *key* share one poller.
        """
        stream = self._told(key, look, seconds, request.headers.get("last-event-id", ""))
        return EventSourceResponse(
            stream,
            ping=_PING_SECONDS,
            send_timeout=_PING_SECONDS,
            sep="\n",
            shutdown_grace_period=_GRACE_SECONDS,
        )

    def end(self) -> None:
        """Let every stream end where it is, and those that are asked for later begin with that."""
        self._ended = True
        for watch in self._open.values():
            watch.end()

    async def _told(
        self, key: Hashable, look: Look, seconds: float, seen: str
    ) -> AsyncIterator[dict[str, str | int]]:
        if self._ended:
            return
        watch = self._open.get(key)
        if watch is None:
            watch = self._open[key] = Watch(look, seconds)
        try:
            async for mark, trouble in watch.changes(seen):
                if trouble:
                    yield {"event": "trouble", "data": json.dumps(trouble)}
                else:
                    told = {"event": "changed", "id": mark, "data": mark}
                    yield {**told, "retry": _RETRY_MILLISECONDS}
        finally:
            if not watch.viewers and self._open.get(key) is watch:
                del self._open[key]


class Watch:
    """One poller and those who wait for it; it stops when the last of them leaves."""

    def __init__(self, look: Look, seconds: float = SECONDS) -> None:
        self._look, self._seconds = look, seconds
        self._now = ("", "")  # the mark, or why there is none
        self._turn = asyncio.Event()  # set and replaced when there is something to tell
        self._poller: asyncio.Task[None] | None = None
        self._ended = False
        self.viewers = 0

    async def changes(self, seen: str = "") -> AsyncIterator[tuple[str, str]]:
        """Marks other than *seen*, as they come; or why the storage gives none."""
        self.viewers += 1
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        known = (seen, "")
        try:
            while not self._ended:
                turn, now = self._turn, self._now
                if now not in (("", ""), known):
                    known = now
                    yield now
                else:
                    await turn.wait()
        finally:
            self.viewers -= 1
            if not self.viewers:
                await self._stop()

    def end(self) -> None:
        """There is nothing more to tell."""
        self._ended = True
        self._turn.set()

    async def _poll(self) -> None:
        while True:
            start = time.monotonic()
            try:
                now = (await run_in_threadpool(self._look), "")
            except CubeoptError as error:
                logger.debug("nothing to tell: %s", error)
                now = ("", str(error))
            took = time.monotonic() - start
            if now != self._now:
                self._now = now
                self._turn.set()
                self._turn = asyncio.Event()
            await asyncio.sleep(max(self._seconds, min(_SHARE * took, _LONGEST)))

    async def _stop(self) -> None:
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.cancel()
            with suppress(asyncio.CancelledError):
                await poller
