"""`cubeopt db`: the PostgreSQL server and its schema."""

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage
from cubeopt.cli.printing import facts, say

app = typer.Typer(
    help="Start, stop and look at the database.",
    epilog="Example: cubeopt db up && cubeopt db status",
    no_args_is_help=True,
)


@app.command(epilog="Example: cubeopt db up")
def up(storage: Storage = None, as_json: Json = False) -> None:
    """Start the embedded server if no address is set, and bring the schema up to date."""
    from cubeopt.db import engine

    connected = engine.connect(settings.load(storage))
    row = {"storage": engine.described(connected), "revision": engine.revision(connected)}
    connected.dispose()
    facts(row, as_json)


@app.command(epilog="Example: cubeopt db stop")
def stop() -> None:
    """Stop the embedded server; what it stores stays in its folder."""
    from cubeopt.db import embedded

    folder = settings.load().pg_dir
    say(f"stopped the server of {folder}" if embedded.stop(folder) else "no server is running")


@app.command(epilog="Example: cubeopt db status --json")
def status(storage: Storage = None, as_json: Json = False) -> None:
    """Whether the server answers, where it is, and the revision of its schema. Starts nothing."""
    from cubeopt.db import embedded, engine

    loaded = settings.load(storage)
    row: dict[str, object] = {"running": True, "data": None}
    address = loaded.database_url
    if address is None:
        server = embedded.status(loaded.pg_dir)
        row = {"running": server.running, "data": str(loaded.pg_dir)}
        if not server.running:
            facts(row, as_json)
            raise typer.Exit(1)
        address = embedded.address(loaded.pg_dir)
    connected = engine.create(address)
    row |= {"storage": engine.described(connected), "revision": engine.revision(connected)}
    connected.dispose()
    facts(row, as_json)


@app.command(epilog="Example: cubeopt db migrate --storage postgresql://cubeopt@db.lab/cubeopt")
def migrate(storage: Storage = None, as_json: Json = False) -> None:
    """Bring the schema to the newest revision that this version knows."""
    from cubeopt.db import embedded, engine

    loaded = settings.load(storage)
    connected = engine.create(loaded.database_url or embedded.address(loaded.pg_dir))
    before, after = engine.migrate(connected)
    connected.dispose()
    facts({"before": before, "after": after}, as_json)
