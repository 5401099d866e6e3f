"""`cubeopt monitor`: one training by `cubeopt train`, live or afterwards, from its files alone."""

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cubeopt import settings
from cubeopt.cli import monitor_screen, stage
from cubeopt.cli.panes import Pen
from cubeopt.cli.printing import print_json, say
from cubeopt.cli.stage import Stage

if TYPE_CHECKING:
    from cubeopt.report.journal import Journal, Training

_TICK_SECONDS = 0.2  # between two looks at the terminal's size


def add_to(app: typer.Typer) -> None:
    """Put the command on the top level of *app*."""
    app.command(
        short_help="Watch one training by `cubeopt train`, live or afterwards.",
        epilog="\b\nExample: cubeopt monitor storage/experiments/first_8x8x8_training",
    )(monitor)


def monitor(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT_DIR",
            help="The training's folder, a checkpoint in it, or its --experiment-name.",
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Print it as it stands, and leave.")] = False,
    interval: Annotated[
        float,
        typer.Option(min=0.2, max=3600.0, metavar="SECONDS", help="Between two looks."),
    ] = 1.0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON: with --once one object, else one in a line for each epoch."
        ),
    ] = False,
) -> None:
    """Watch a training: loss terms, validation, gradients, gate, rate, speed, memory, findings.

    It reads the files that `cubeopt train` writes, needs no database and no GPU, and follows the
    log also when --resume rewrites it. On a terminal the screen is drawn anew; elsewhere each
    epoch is a line. It ends with the training: exit code 0, or 1 when that diverged.
    Ctrl-C leaves with 130, SIGTERM with 0.
    """
    with stage.leaving():
        from cubeopt.report.journal import Journal

        journal = Journal(folder, settings.load())
        console = stage.printing_console()
        if once:
            _print_whole(journal.look(), console, as_json)
            return
        if as_json:
            last = _tell_json(journal, interval)
        elif stage.redraws(console):
            last = _draw(journal, interval)
            _print_whole(last, console, as_json=False)
        else:
            last = _tell(journal, interval)
    raise typer.Exit(1 if last.state == "diverged" else 0)


def _print_whole(shown: "Training", console: Console, as_json: bool) -> None:
    if as_json:
        print_json(shown.as_json())
    else:
        lines = monitor_screen.screen(shown, (console.width, None), Pen.of(console))
        stage.print_lines(console, lines)


def _draw(journal: "Journal", interval: float) -> "Training":
    """Draw each look, and anew when the terminal has another size, until the training is over."""
    console = Console()
    pen = Pen.of(console)
    with Stage(console) as shown:
        while True:
            training = journal.look()
            shown.draw(partial(monitor_screen.screen, training, pen=pen))
            if training.over:
                return training
            until = time.monotonic() + interval
            while time.monotonic() < until and not shown.resized:
                stage.wait(min(_TICK_SECONDS, interval))


def _tell(journal: "Journal", interval: float) -> "Training":
    """Say each epoch and each finding in a line, until the training is over."""
    before = journal.look()
    say(monitor_screen.summary_line(before))
    while not before.over:
        stage.wait(interval)
        now = journal.look()
        for line in monitor_screen.changes(before, now):
            say(line)
        before = now
    say(monitor_screen.summary_line(before))
    return before


def _tell_json(journal: "Journal", interval: float) -> "Training":
    """A JSON object in a line for each look that finds something written."""
    told: tuple[Any, ...] | None = None
    while True:
        now = journal.look()
        if (found := monitor_screen.fingerprint(now)) != told:
            say(json.dumps(now.as_json(), default=str, allow_nan=False))
            told = found
        if now.over:
            return now
        stage.wait(interval)
