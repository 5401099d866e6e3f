"""The server as a process: its signals, its port, its complaints."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine, text

from cubeopt.dashboard import server
from cubeopt.db import queue
from cubeopt.errors import CubeoptError

from .conftest import Viewer
from .test_studies import Watched

_SERVE = """
import pathlib, sys
from cubeopt.dashboard import server
from cubeopt.dashboard.context import Context
from cubeopt.db import engine
from cubeopt.settings import Settings
given = Context(engine.create(sys.argv[1]), Settings(pathlib.Path("."), None, "WARNING"))
server.serve(given, "127.0.0.1", int(sys.argv[2]), lambda url: print(url, flush=True))
print("stopped")
"""
_STOPPED_EARLY = _SERVE.replace(
    "lambda url: print(url, flush=True)",
    "lambda url: __import__('signal').raise_signal(15)",
)


@contextmanager
def _served(database_url: str, port: int = 0) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-W", "error", "-c", _SERVE, database_url, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def test_a_storage_that_fails_is_one_line_and_no_traceback(
    engine: Engine, database_url: str
) -> None:
    with _served(database_url) as (url, process):
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE public.studies CASCADE"))
        with pytest.raises(urllib.error.HTTPError, match="500") as raised:
            urllib.request.urlopen(f"{url}api/studies", timeout=30)
        raised.value.close()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert said.startswith('a request could not be answered: relation "studies" does not exist')
    assert len(said.splitlines()) == 1


def test_a_port_in_use_is_one_clear_line() -> None:
    with server.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CubeoptError) as raised:
            server.listening("127.0.0.1", port)
    said = str(raised.value)
    assert said.startswith(f"cannot serve the dashboard on 127.0.0.1:{port}: ")
    assert said.endswith("in use; choose another with --port")


def test_a_port_that_cannot_be_is_one_clear_line() -> None:
    with pytest.raises(CubeoptError, match=r"on 127.0.0.1:99999: .*--port"):
        server.listening("127.0.0.1", 99999)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_streams_in_order_and_frees_the_port(
    database_url: str, number: signal.Signals
) -> None:
    with _served(database_url) as (url, process), ExitStack() as opened:
        streams = [
            opened.enter_context(urllib.request.urlopen(f"{url}events/workers", timeout=60))
            for _ in range(3)
        ]
        for stream in streams:
            assert [stream.readline()[:3] for _ in range(5)] == [
                b"id:",
                b"eve",
                b"dat",
                b"ret",
                b"\n",
            ]
        process.send_signal(number)
        # One that is cut, or that lasts until the server is out of patience, raises IncompleteRead.
        assert [stream.read() for stream in streams] == [b"", b"", b""]
        said, complained = process.communicate(timeout=60)
    assert (process.returncode, said, complained) == (0, "stopped\n", "")
    server.listening("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])).close()


def test_a_signal_that_comes_before_it_listens_to_signals_stops_it(database_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", _STOPPED_EARLY, database_url, "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


_SAYS = {  # page: what says whether it is up to date
    "/": "#trouble",
    "/studies/one": "#trouble",
    "/studies/one/training": "#live",
    "/workers": "#live",
}


def test_pages_that_lost_their_server_say_so_and_go_on_by_themselves(
    engine: Engine, database_url: str, viewer: Viewer, axe: Callable[[Page], None]
) -> None:
    watched = Watched(engine, "one")
    watched.report(11, 1, 0.5)
    with _served(database_url) as (url, process):
        pages = {path: viewer.open(url.rstrip("/") + path) for path in _SAYS}
        _wait_for(pages, epochs=1, workers=1)
        for page in pages.values():
            page.evaluate("window.same = true")
        asked = _streams_asked_for(pages["/workers"])
        process.kill()
        process.wait()
        for path, place in _SAYS.items():
            pages[path].locator(place, has_text="does not answer").wait_for()
    watched.report(11, 2, 0.4)
    queue.register(engine, "second", "lab", 2, "cpu", {})
    while len(asked) < 2:
        pages["/workers"].wait_for_timeout(100)
    assert asked[1] - asked[0] > 1.9  # seconds: the first time it waited for one
    for path in ("/", "/workers"):
        axe(pages[path])
    with _served(database_url, int(url.rstrip("/").rpartition(":")[2])):
        _wait_for(pages, epochs=2, workers=2)
        for path, place in _SAYS.items():
            pages[path].locator(place, has_text="does not answer").wait_for(state="hidden")
        assert all(page.evaluate("window.same") for page in pages.values())  # none was loaded again
        viewer.close()
    viewer.troubles = [each for each in viewer.troubles if "net::ERR_" not in each]


def _wait_for(pages: dict[str, Page], epochs: int, workers: int) -> None:
    overview, study, training, crew = pages.values()
    overview.locator("dt", has_text="Epochs").locator("+ dd", has_text=f"{epochs}").wait_for()
    study.locator("#facts dt", has_text="epochs").locator("+ dd", has_text=f"{epochs}").wait_for()
    training.locator("[data-fact=epoch]", has_text=f"{epochs}/3").wait_for()
    crew.locator("[data-fact=workers]", has_text=f"{workers}").wait_for()


def _streams_asked_for(page: Page) -> list[float]:
    """The moments, in seconds, at which *page* asks for a stream from now on."""
    moments: list[float] = []
    session = page.context.new_cdp_session(page)

    def sent(event: dict[str, Any]) -> None:
        if event["type"] == "EventSource":
            moments.append(event["timestamp"])

    session.on("Network.requestWillBeSent", sent)
    session.send("Network.enable")
    return moments
