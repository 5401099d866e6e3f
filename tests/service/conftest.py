"""A worker and a coordinator that run inside the test."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from sqlalchemy import Engine

from cubeopt import provenance
from cubeopt.db.records import StudyRecord
from cubeopt.search import study
from cubeopt.service import studies
from cubeopt.service.coordinator import coordinate
from cubeopt.service.events import Event
from cubeopt.service.worker import Options, Worker
from cubeopt.settings import Settings

PROVENANCE = {
    "code_version": provenance.code_version(),
    "torch_version": torch.__version__,
    "hardware": {},
}


def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until *condition* says something true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


@contextmanager
def coordinating(engine: Engine) -> Iterator[None]:
    """A coordinator leads while the block runs, in a thread."""
    stop, failed = threading.Event(), []

    def lead() -> None:
        try:
            assert coordinate(engine, stop, tick=0.02)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed


Work = Callable[..., list[Event]]


@pytest.fixture
def work(engine: Engine, settings: Settings) -> Work:
    """Run a worker until no study is running; what it told."""

    def run(
        stop: threading.Event | None = None,
        tell: Callable[[Event], None] | None = None,
        **changes: Any,
    ) -> list[Event]:
        told: list[Event] = []

        def on_event(event: Event) -> None:
            told.append(event)
            if tell is not None:
                tell(event)

        values = {"pack": 2, "until_done": True, **changes}
        options = Options(
            name="worker",
            host="here",
            pid=1,
            device=torch.device("cpu"),
            device_name="cpu",
            provenance=PROVENANCE,
            **values,
        )
        Worker(engine, settings, options, stop or threading.Event(), on_event).run()
        return told

    return run


Create = Callable[..., StudyRecord]


@pytest.fixture
def create(engine: Engine, settings: Settings, tiny_study: dict[str, Any]) -> Create:
    """Create the tiny study with *changes* put in."""

    def made(**changes: Any) -> StudyRecord:
        spec = study.parse({**tiny_study, **changes}, "tiny.yaml")
        return studies.create(engine, settings, spec)

    return made
