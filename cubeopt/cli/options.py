"""What several commands share: options, the storage, how they are stopped."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cubeopt import logs, settings
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


def _set_log_format(given: str | None) -> str | None:
    """Log so from now on, and have all processes that we start do the same."""
    if given is not None:
        form = os.environ["CUBEOPT_LOG_FORMAT"] = settings.log_format(given)
        logs.configure(settings.log_level(), form)
    return given


LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        metavar="text|json",
        callback=_set_log_format,
        help="Of what it says on standard error; else $CUBEOPT_LOG_FORMAT, else text.",
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        "--notify",
        metavar="URL",
        help="Post to it that a study finished or was stopped, a new best, a lost worker; else "
        "$CUBEOPT_NOTIFY_URL, which others on this machine cannot read.",
    ),
]


def check_device(gpu: int | str | None, cpu: bool) -> None:
    """Exactly one of the two must be given."""
    if (gpu is None) == (not cpu):
        raise InputError("give either --gpu N or --cpu")


def gpu_numbers(text: str) -> list[int]:
    """The numbers in 0,1,3; InputError when one is none, or stands there twice."""
    words = text.split(",")
    for word in words:
        if not (word.isascii() and word.isdigit()):
            raise InputError(
                f"--gpu takes the numbers of GPUs with commas between, as in 0,1; got {text!r}"
            )
    numbers = [int(word) for word in words]
    for number in numbers:
        if numbers.count(number) > 1:
            raise InputError(f"--gpu {text}: GPU {number} stands there twice")
    return numbers


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
def stopping(at_once: Callable[[], None] | None = None) -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; a second signal leaves *at_once*, which is called."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            error_console().show_cursor()  # a progress bar has hidden it
            if at_once is not None:
                at_once()
            os._exit(128 + number)
        stop.set()
        if logs.as_json():
            logs.say("stopping")
        else:
            print("cubeopt: stopping (once more to leave at once)", file=sys.stderr)

    before = {each: signal.signal(each, on_signal) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
