"""`cubeopt workers`: who works, and how to send one home.

A group beside the command `worker`, which *is* one: a command that takes both options of its own
and subcommands would read `worker --gpu 0 drain NAME`.
"""

from typing import Annotated

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import print_json, say, table

app = typer.Typer(
    help="See who works, send one home.",
    epilog="\b\nExample: cubeopt workers list",
    no_args_is_help=True,
)


@app.command("list", epilog="\b\nExample: cubeopt workers list --all --json")
def list_(
    everyone: Annotated[bool, typer.Option("--all", help="Also those that have gone.")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """The workers that live, with what they hold."""
    from cubeopt.db import holdings, records
    from cubeopt.report import crew

    with connected(settings.load(storage)) as engine:
        held = holdings.read(engine, crew.LATELY)
        rows = crew.rows(records.workers(engine), held, everyone)
    if as_json:
        print_json(rows)
    elif rows:
        columns = ["name", "state", "device", "runs", "slots", "epochs_per_minute"]
        columns += ["samples_per_second", "silent_seconds", "started"]
        values = [[row[column] for column in columns] for row in rows]
        table("workers", columns, values, expendable=3)
    else:
        say("no worker lives; start one with: cubeopt worker --gpu 0   (or --cpu)")


@app.command(
    short_help="Ask a worker to give back what it holds, and to leave.",
    epilog="\b\nExample: cubeopt workers drain lab-3-4711",
)
def drain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `workers list` shows it.")],
    storage: Storage = None,
) -> None:
    """Ask a worker to give back what it holds within seconds, and to leave with code 0."""
    from cubeopt.db import recalls

    with connected(settings.load(storage)) as engine:
        asked = recalls.drain(engine, name)
    say(f"worker {name} was asked to leave" + ("" if asked else " already, or has gone"))
