"""A dashboard over a real database, in a real browser: one of each for a module."""

import asyncio
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine

from cubeopt.dashboard import door, server
from cubeopt.dashboard.context import Context
from cubeopt.db import engine as db_engine
from cubeopt.db.records import StudyRecord
from cubeopt.search import mirror, study
from cubeopt.service import studies
from cubeopt.service.worker import Options, Worker
from cubeopt.settings import Settings

from ..conftest import database, tiny
from ..service.conftest import PROVENANCE, coordinating

T = TypeVar("T")
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Served:
    """A dashboard that runs in a thread of the test."""

    url: str  # without a slash at its end
    context: Context

    @property
    def engine(self) -> Engine:
        return self.context.engine

    def ask(self, path: str, method: str = "GET", content: Any = None, **headers: str) -> Answer:
        """One request; a header's name has underscores for dashes."""
        data = None if content is None else json.dumps(content).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.url + path, data, given, method=method)
        try:
            with _OPENER.open(request, timeout=30) as answer:
                return _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _read(error)


def run(test: Callable[[], Awaitable[T]]) -> T:
    """Run *test* in a thread of its own: the browser has an event loop in ours."""

    async def limited() -> T:
        return await asyncio.wait_for(test(), 60.0)

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(limited())).result()


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer like others."""

    def redirect_request(self, *given: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def _read(answer: Any) -> Answer:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    endless = headers.get("content-type", "").startswith("text/event-stream")
    body = answer.readline() if endless else answer.read()
    return Answer(answer.status, headers, body)


@contextmanager
def serving(
    engine: Engine, folder: Path, token: str | None = None, port: int = 0
) -> Iterator[Served]:
    """The dashboard over *engine* while the block runs."""
    context = Context(engine, Settings(folder, None, "WARNING"), door.at("127.0.0.1", token))
    storage = mirror.open_storage(db_engine.optuna_url(engine))
    running = server.Server(context, storage)
    opened = server.listening("127.0.0.1", port)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{opened.getsockname()[1]}", context)
    finally:
        running.should_exit = True
        thread.join()
        storage.engine.dispose()


@pytest.fixture(scope="module")
def database_address(server_url: str) -> Iterator[str]:
    """The address of a database of the module's own, as CUBEOPT_STORAGE takes it."""
    with database(server_url) as url:
        yield url


@pytest.fixture(scope="module")
def module_engine(database_address: str) -> Iterator[Engine]:
    """An engine over a database of the module's own."""
    engine = db_engine.create(database_address)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def dashboard(module_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The dashboard over `module_engine`; a module fills the database as it likes."""
    with serving(module_engine, tmp_path_factory.mktemp("storage")) as served:
        yield served


def train(served: Served, dataset: Path, **changes: Any) -> StudyRecord:
    """A study of tiny cubes, with *changes* put in its file, trained to its end by a worker."""
    engine, settings = served.engine, served.context.settings
    if not (settings.data_dir / "tiny").exists():
        shutil.copytree(dataset, settings.data_dir / "tiny")
    record = studies.create(engine, settings, study.parse({**tiny(), **changes}, "tiny.yaml"))
    options = Options(
        name="worker",
        host="here",
        pid=1,
        device=torch.device("cpu"),
        device_name="cpu",
        provenance=PROVENANCE,
        pack=2,
        until_done=True,
    )
    with coordinating(engine):
        Worker(engine, settings, options, threading.Event(), lambda event: None).run()
    return record


@dataclass
class Viewer:
    """Opens pages in chromium; whatever a page complains about fails the test."""

    browser: Browser
    troubles: list[str] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)

    def open(self, url: str, width: int = 1280, height: int = 900, **options: Any) -> Page:
        """A page of its own profile (its cookies, its cache)."""
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: self.troubles.append(f"{page.url}: {error}"))
        page.on("console", lambda said: self._hear(page, said))
        page.goto(url)
        self.pages.append(page)
        return page

    def _hear(self, page: Page, said: Any) -> None:
        if said.type == "error":
            self.troubles.append(f"{page.url}: {said.text}")

    def close(self) -> None:
        while self.pages:
            self.pages.pop().context.close()


@pytest.fixture
def viewer(browser: Browser) -> Iterator[Viewer]:
    """Opens pages; the test fails when one had an error, in its scripts or on its console."""
    viewer = Viewer(browser)
    yield viewer
    viewer.close()
    assert viewer.troubles == []


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], None]:
    """Fails when a page breaks a rule of axe-core: contrast, labels, structure."""
    checker = Axe()

    def check(page: Page) -> None:
        found = checker.run(page, options={"resultTypes": ["violations"], **_RULES})
        assert found.violations_count == 0, found.generate_report()

    return check


def drawn(page: Page, chart: str) -> None:
    """Wait until charts.js has drawn the figure with the id *chart*, and nothing is under way."""
    page.wait_for_selector(f"#{chart}:not([aria-busy]) .js-plotly-plot")
