"""One poller for all who watch the same, none when nobody does."""

import asyncio
import urllib.request
from collections.abc import Iterator

from cubeopt.dashboard.events import Watch, Watches, digest
from cubeopt.errors import StorageLostError

from .conftest import Served, run


class Looks:
    """What a poller is given, one after the other; the last one stays."""

    def __init__(self, *marks: str | Exception) -> None:
        self.count = 0
        self._marks: Iterator[str | Exception] = iter(marks)
        self._now: str | Exception = ""

    def __call__(self) -> str:
        self.count += 1
        self._now = next(self._marks, self._now)
        if isinstance(self._now, Exception):
            raise self._now
        return self._now


async def heard(watch: Watch, count: int, seen: str = "") -> list[tuple[str, str]]:
    changes = watch.changes(seen)
    found = [await anext(changes) for _ in range(count)]
    await changes.aclose()
    return found


def test_those_who_watch_the_same_share_a_poller_that_stops_with_the_last() -> None:
    looks = Looks("a", "b", "c")
    watch = Watch(looks, seconds=0.01)

    async def test() -> None:
        found = await asyncio.gather(*(heard(watch, 3) for _ in range(20)))
        assert found == [[("a", ""), ("b", ""), ("c", "")]] * 20
        assert watch.viewers == 0
        told = looks.count
        await asyncio.sleep(0.1)
        assert looks.count == told  # nobody looks, so nobody asks

    run(test)
    # Sixty changes were told; twenty pollers would have looked sixty times at least.
    assert looks.count < 20


def test_what_is_known_is_not_told_again() -> None:
    watch = Watch(Looks("a", "a", "a", "b"), seconds=0.01)

    async def test() -> None:
        assert await heard(watch, 1, seen="a") == [("b", "")]
        assert await heard(watch, 1) == [("b", "")]

    run(test)


def test_a_storage_that_fails_is_told_and_so_is_its_return() -> None:
    gone = StorageLostError("the storage does not answer")
    watch = Watch(Looks("a", gone, gone, "a"), seconds=0.01)

    async def test() -> None:
        assert await heard(watch, 3) == [("a", ""), ("", str(gone)), ("a", "")]

    run(test)


def test_when_the_server_stops_streams_end_and_those_asked_for_later_at_once() -> None:
    watches = Watches()
    looks = Looks("a")

    async def test() -> None:
        early = [watches._told("key", looks, 0.01, "") for _ in range(2)]
        assert [(await anext(stream))["id"] for stream in early] == ["a", "a"]
        waiting = [asyncio.ensure_future(anext(stream, None)) for stream in early]
        await asyncio.sleep(0)
        watches.end()
        assert await asyncio.gather(*waiting) == [None, None]
        told = looks.count
        assert [each async for each in watches._told("key", looks, 0.01, "")] == []
        assert looks.count == told

    run(test)


def test_a_mark_is_short_and_another_for_another_text() -> None:
    assert digest("x" * 10_000) == digest("x" * 10_000) != digest("y")
    assert len(digest("x" * 10_000)) == 16


def test_what_cannot_be_watched_is_refused(dashboard: Served) -> None:
    missing = dashboard.ask("/events/studies/nothing/training")
    assert (missing.status, missing.json["reason"]) == (404, "there is no study named 'nothing'")
    wrong = dashboard.ask("/events/studies/nothing/training?runs=x")
    assert wrong.status == 400
    assert wrong.json["reason"].startswith("runs names 'x'; a run is a trial's number as in 3")


def test_a_stream_is_never_compressed_nor_kept(dashboard: Served) -> None:
    answer = dashboard.ask("/events/workers", Accept_Encoding="gzip")
    assert answer.headers["cache-control"] == "no-store"
    assert "content-encoding" not in answer.headers
    assert answer.body.startswith(b"id: ")


def test_a_stream_says_first_what_there_is(dashboard: Served) -> None:
    with urllib.request.urlopen(f"{dashboard.url}/events/workers", timeout=30) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.headers["Cache-Control"] == "no-store"
        said = [stream.readline() for _ in range(3)]
    assert said[0].startswith(b"id: ")
    assert said[1] == b"event: changed\n"
    assert said[2] == said[0].replace(b"id", b"data")
