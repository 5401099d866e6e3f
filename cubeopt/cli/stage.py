"""Where somebody watches: a screen that is drawn again and again, and how it is left."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

Drawing = Callable[[tuple[int, int]], list[Text]]  # of so many columns and rows

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 0}


class _Left(SystemExit):
    """A signal told us to leave.

    No KeyboardInterrupt: where one passes through an exec of a library, Python kills itself with
    SIGINT in the end, also when it was caught.
    """


_told: list[int] = []  # the exit code that a signal has asked for


@contextmanager
def leaving() -> Iterator[None]:
    """Within it Ctrl-C (exit code 130) and SIGTERM (0) end the command at once.

    For commands that only look: there is nothing to bring to an end.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        _told.append(_CODES[signal.Signals(number)])
        for each in _CODES:  # the rest takes no time, and shall not be left halfway
            signal.signal(each, signal.SIG_IGN)
        raise _Left

    before = {each: signal.signal(each, on_signal) for each in _CODES}
    try:
        yield
        check()
    except _Left:
        raise typer.Exit(_told[0]) from None
    finally:
        _told.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Leave if a signal has said so: what it raised is lost where Python finalises an object."""
    if _told:
        raise _Left


def wait(seconds: float) -> None:
    """Do nothing for so long, or until a signal."""
    time.sleep(seconds)
    check()


def redraws(console: Console) -> bool:
    """Whether *console* is a terminal whose lines can be written over."""
    return sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal


def printing_console() -> Console:
    """For what is printed once: as wide as the terminal, or 100 columns for a file or a pipe."""
    console = Console()
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console = Console(width=100)
    return console


def print_lines(console: Console, lines: list[Text]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, no_wrap=True, overflow="ignore")


class Stage:
    """The whole terminal, until it is left; then it shows again what it showed before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._size = (0, 0)

    def __enter__(self) -> "Stage":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    @property
    def resized(self) -> bool:
        """Whether the terminal has another size than what was drawn last."""
        return tuple(self._console.size) != self._size

    def draw(self, drawing: Drawing) -> None:
        self._size = (self._console.size.width, self._console.size.height)
        self._live.update(_Drawn(drawing), refresh=True)


class _Drawn:
    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.size.height
        for line in self._drawing((width, height)):
            line.no_wrap, line.overflow = True, "crop"
            yield line
