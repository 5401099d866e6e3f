"""What several commands share: options, the storage, how they are stopped."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cubeopt.cli.printing import error_console
from cubeopt.errors import InputError
from cubeopt.settings import Settings

if TYPE_CHECKING:
    from cubeopt.db.engine import Engine

Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        help="PostgreSQL address; else $CUBEOPT_STORAGE, else the embedded server. "
        "Put passwords into the environment, not here.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Gpu = Annotated[
    int | None, typer.Option("--gpu", min=0, metavar="N", help="Train on this NVIDIA GPU.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Train on the CPU, in one thread.")]

Jobs = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Trainings side by side; else one a core, or a GPU."),
]


def check_device(gpu: int | None, cpu: bool) -> None:
    """Exactly one of the two must be given."""
    if (gpu is None) == (not cpu):
        raise InputError("give either --gpu N or --cpu")


def side_by_side(jobs: int | None, gpu: int | None) -> int:
    """How many trainings run at a time: *jobs*, else one a core, or on a *gpu* one."""
    return jobs or (1 if gpu is not None else os.cpu_count() or 1)


@contextmanager
def connected(loaded: Settings) -> Iterator["Engine"]:
    """The storage, its schema at the newest revision; closed at the end."""
    from cubeopt.db import engine

    opened = engine.connect(loaded)
    try:
        yield opened
    finally:
        opened.dispose()


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second signal leaves at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            error_console().show_cursor()  # a progress bar has hidden it
            os._exit(128 + number)
        stop.set()
        print("cubeopt: stopping (once more to leave at once)", file=sys.stderr)

    before = {each: signal.signal(each, on_signal) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
