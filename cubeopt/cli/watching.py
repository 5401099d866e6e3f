"""`cubeopt study watch`: a study as it stands, again and again until it ends."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cubeopt import settings
from cubeopt.cli import stage, watch_screen
from cubeopt.cli.options import Storage, connected
from cubeopt.cli.panes import Pen, clock
from cubeopt.cli.printing import print_json, say
from cubeopt.cli.stage import Stage
from cubeopt.errors import CubeoptError, StorageLostError, UnknownNameError

if TYPE_CHECKING:
    from cubeopt.report.glance import Glance

_TICK_SECONDS = 0.2  # between two looks at the terminal's size
_REDRAW_SECONDS = 1.0  # of what says how long the storage has been away
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
            "--json", help="Print JSON: with --once one object, else one in a line for each change."
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
            stage.print_lines(
                console, watch_screen.screen(last, (console.width, None), Pen.of(console))
            )
        else:
            last = _tell(looks)
    raise typer.Exit(1 if last.state == "failed" else 0)


def _print_whole(shown: "Glance", as_json: bool) -> None:
    if as_json:
        print_json(shown.as_json())
        return
    console = stage.printing_console()
    stage.print_lines(console, watch_screen.screen(shown, (console.width, None), Pen.of(console)))


def _draw(looks: "_Looks") -> "Glance":
    """Draw each look, and anew when the terminal has another size, until the study has ended."""
    console = Console()
    pen = Pen.of(console)
    with Stage(console) as shown:
        while True:
            trouble = looks.trouble
            said = None if trouble is None else f"{trouble}; trying again, as of {looks.age()} ago"
            glance = looks.last
            shown.draw(partial(watch_screen.screen, glance, pen=pen, trouble=said))
            if glance.ended:
                return glance
            until = time.monotonic() + _REDRAW_SECONDS
            while not looks.news(_TICK_SECONDS) and not shown.resized:
                if looks.trouble is not None and time.monotonic() > until:
                    break


def _tell(looks: "_Looks") -> "Glance":
    """Say each change in a line, until the study has ended."""
    say(watch_screen.summary_line(looks.last))
    said_at, lost = time.monotonic(), None
    before = looks.last
    while not before.ended:
        looks.news(_TICK_SECONDS)
        now, trouble = looks.last, looks.trouble
        lines = watch_screen.changes(before, now)
        if trouble is not None and lost is None:
            lines.append(f"{trouble}; trying again")
        if trouble is None and lost is not None:
            lines.insert(0, "the storage is back")
        lost, before = trouble, now
        if not lines and trouble is None and time.monotonic() - said_at > _ALIVE_SECONDS:
            lines = [watch_screen.summary_line(now)]
        for line in lines:
            say(line)
            said_at = time.monotonic()
    say(watch_screen.summary_line(before))
    return before


def _tell_json(looks: "_Looks") -> "Glance":
    """A JSON object in a line for the first look, and for each in which something is new.

    One with the key "error" for a storage that has gone; the next is of it when it is back.
    """
    told, lost = None, None
    while True:
        now, trouble = looks.last, looks.trouble
        found = watch_screen.fingerprint(now)
        if trouble is not None and lost is None:
            _say_json({"study": now.study, "error": trouble})
        elif trouble is None and (found != told or lost is not None):
            _say_json(now.as_json())
            told = found
        lost = trouble
        if now.ended:
            return now
        looks.news(_TICK_SECONDS)


def _say_json(content: dict[str, Any]) -> None:
    say(json.dumps(content, default=str, allow_nan=False))


class _Looks:
    """Looks at a study in a thread, so that a storage that keeps us waiting holds up no signal."""

    def __init__(self, look: "Callable[[], Glance]", first: "Glance", interval: float) -> None:
        self._look, self._interval = look, interval
        self._news = threading.Event()
        self._looked = time.monotonic()
        self._error: Exception | None = None
        self.last = first
        self.trouble: str | None = None  # with the storage, now
        threading.Thread(target=self._go_on, daemon=True).start()

    def news(self, seconds: float) -> bool:
        """Wait *seconds* for another look; whether there was one. Raises what ended the looking."""
        new = self._news.wait(seconds)
        stage.check()
        self._news.clear()
        if self._error is not None:
            raise self._error
        return new

    def age(self) -> str:
        """How old the last look is."""
        return clock(time.monotonic() - self._looked)

    def _go_on(self) -> None:
        while not self.last.ended and self._error is None:
            time.sleep(self._interval)
            try:
                self.last = self._look()
                self._looked, self.trouble = time.monotonic(), None
            except StorageLostError as error:
                self.trouble = str(error)
            except UnknownNameError:
                self._error = CubeoptError(f"study {self.last.study!r} was deleted")
            except Exception as error:  # noqa: BLE001 - raised where it is seen
                self._error = error
            self._news.set()
