"""`cubeopt db`: the PostgreSQL server and its schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import facts, say

if TYPE_CHECKING:
    from cubeopt.db.engine import Engine

app = typer.Typer(
    help="Start, stop and look at the database.",
    epilog="\b\nExample: cubeopt db up && cubeopt db status",
    no_args_is_help=True,
)


@app.command(
    short_help="Start the server, bring its schema up to date.",
    epilog="\b\nExample: cubeopt db up",
)
def up(storage: Storage = None, as_json: Json = False) -> None:
    """Start the embedded server if no address is set, and bring the schema up to date."""
    from cubeopt.db import engine

    with connected(settings.load(storage)) as opened:
        row = {"storage": engine.described(opened), "revision": engine.revision(opened)}
    facts(row, as_json)


@app.command(epilog="\b\nExample: cubeopt db stop")
def stop() -> None:
    """Stop the embedded server; what it stores stays in its folder."""
    from cubeopt.db import embedded

    folder = settings.load().pg_dir
    say(f"stopped the server of {folder}" if embedded.stop(folder) else "no server is running")


@app.command(
    short_help="Whether the server answers, and where. Starts nothing.",
    epilog="\b\nExample: cubeopt db status --json",
)
def status(storage: Storage = None, as_json: Json = False) -> None:
    """Whether the server answers, where it is, and the revision of its schema. Starts nothing."""
    from cubeopt.db import embedded, engine

    loaded = settings.load(storage)
    row: dict[str, object] = {"running": True, "data": None, "storage": None, "revision": None}
    address = loaded.database_url
    if address is None:
        server = embedded.status(loaded.pg_dir)
        row |= {"running": server.running, "data": str(server.data_dir)}
        address = server.url
    if address is not None:
        with _opened(address) as opened:
            row |= {"storage": engine.described(opened), "revision": engine.revision(opened)}
    facts(row, as_json)
    if not row["running"]:
        raise typer.Exit(1)


@app.command(epilog="\b\nExample: cubeopt db migrate --storage postgresql://cubeopt@db.lab/cubeopt")
def migrate(storage: Storage = None, as_json: Json = False) -> None:
    """Bring the schema to the newest revision that this version knows."""
    from cubeopt.db import embedded, engine

    loaded = settings.load(storage)
    with _opened(loaded.database_url or embedded.address(loaded.pg_dir)) as opened:
        before, after = engine.migrate(opened)
    facts({"before": before, "after": after}, as_json)


@contextmanager
def _opened(address: str) -> Iterator["Engine"]:
    """The database as it is, its schema untouched."""
    from cubeopt.db import engine

    opened = engine.create(address)
    try:
        yield opened
    finally:
        opened.dispose()
