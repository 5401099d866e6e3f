"""`cubeopt study watch`: a study as it stands, again and again until it ends."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cubeopt import settings
from cubeopt.cli import stage, watch_screen
from cubeopt.cli.options import Storage, connected
from cubeopt.cli.panes import Pen
from cubeopt.cli.printing import print_json, say
from cubeopt.cli.stage import Stage
from cubeopt.errors import CubeoptError, StorageLostError, UnknownNameError

if TYPE_CHECKING:
    from cubeopt.report.glance import Glance

_TICK_SECONDS = 0.2  # between two looks at the terminal's size
_ALIVE_SECONDS = 60.0  # without a change, after which a line says that it is still watched


def add_to(app: typer.Typer) -> None:
    """Put the command into the group *app*."""
    app.command(
        short_help="Watch a study in the terminal until it ends.",
        epilog="\b\nExample: cubeopt study watch cube8 && cubeopt study export cube8",
    )(watch)


def watch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")],
    once: Annotated[bool, typer.Option("--once", help="Print it as it stands, and leave.")] = False,
    interval: Annotated[
        float,
        typer.Option(min=0.2, max=3600.0, metavar="SECONDS", help="Between two looks."),
    ] = 2.0,
    storage: Storage = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a JSON object in a line whenever something changed; with --once one."
        ),
    ] = False,
) -> None:
    """Watch a study: budgets, rungs, the best, what runs where, what happened, warnings, time left.

    On a terminal the screen is drawn anew; elsewhere each change is a line. It ends with the
    study: exit code 0 when that is complete or stopped, 1 when it failed or was deleted.
    Ctrl-C leaves with 130, SIGTERM with 0. A storage that goes away is waited for.
    """
    with stage.leaving(), connected(settings.load(storage)) as engine:
        from cubeopt.report.follower import Follower

        follower = Follower(engine, name)
        first = follower.look()
        if once:
            _print_whole(first, as_json)
            return
        looks = _Looks(follower.look, first, interval)
        console = stage.printing_console()
        if as_json:
            last = _tell_json(looks)
        elif stage.redraws(console):
            last = _draw(looks)
            stage.print_lines(console, _lines(last, console.width, None))
        else:
            last = _tell(looks)
    raise typer.Exit(1 if last.state == "failed" else 0)


def _print_whole(shown: "Glance", as_json: bool) -> None:
    if as_json:
        print_json(shown.as_json())
        return
    console = stage.printing_console()
    stage.print_lines(console, _lines(shown, console.width, None))


def _lines(shown: "Glance", width: int, height: int | None, trouble: str | None = None):
    ...


class _Looks:
    """Looks at a study in a thread, so that a storage that keeps us waiting holds up no signal."""

    def __init__(self, look: "Callable[[], Glance]", first: "Glance", interval: float) -> None:
        self._look, self._interval = look, interval
        self._news = threading.Event()
        self.last, self.trouble, self._lost_at = first, None, 0.0
        self._error: Exception | None = None
        threading.Thread(target=self._go_on, daemon=True).start()
