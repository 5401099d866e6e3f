"""`cubeopt study report`: a study as one page that can be mailed, its images, its rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import facts, print_json, say
from cubeopt.errors import CubeoptError
from cubeopt.settings import Settings

if TYPE_CHECKING:
    from cubeopt.db.engine import Engine
    from cubeopt.report.study_page import Cube, Report


def add_to(app: typer.Typer) -> None:
    """Put the command among those of `cubeopt study`."""
    app.command(
        short_help="Write a study as one page that can be mailed, and as images.",
        epilog="\b\nExample: cubeopt study report quickstart -o report.html --png figures",
    )(report)


def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The page; else reports/NAME-report.html in the storage.",
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write every figure as an image into this folder, too."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A comparison to show: `cubeopt compare ... --json`."),
    ] = None,
    cube: Annotated[
        bool, typer.Option("--cube/--no-cube", help="Look into the winner's cube, too.")
    ] = True,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write all there is to say of a study into one file that needs no network.

    The question, the space, what was tried and cut, the winner beside the baselines, what decides,
    what ran where, the winner's training and its cube in 3D, and the commands that give it all
    again. It may be written while the study runs. The cube needs the winner's checkpoint and
    dataset on this machine; without them the page says so.
    """
    from cubeopt.report import compared, headlines, study_images, study_page

    against = None if compare is None else compared.read(compare)
    loaded = settings.load(storage)
    with connected(loaded) as engine:
        whole = study_page.read(engine, name, against)
        looked = _cube(engine, whole, loaded) if cube else study_page.Cube()
    path = output or loaded.reports_dir / f"{name}-report.html"
    study_page.write(whole, path, looked)
    images = study_images.write(whole, png, looked) if png is not None else []
    without = looked.reason if looked.found is None else None
    written: dict[str, Any] = {
        "html": str(path.resolve()),
        "png": [str(each.resolve()) for each in images],
    }
    if as_json:
        print_json({**written, "no_cube": without, **whole.as_json()})
        return
    rows = {"html": written["html"], "cube": without or "in the page"}
    if images:
        rows["png"] = f"in {png}: {', '.join(each.name for each in images)}"
    facts(rows, False)
    if whole.protocol.goes_on:
        at = headlines.moment(whole.protocol.written)
        say(f"study {name} is {whole.protocol.state}: this is how it was at {at}")


def _cube(engine: "Engine", whole: "Report", loaded: Settings) -> "Cube":
    """The winner's cube, or why it cannot be looked into."""
    from cubeopt.report import study_page

    try:
        folder = study_page.winners_checkpoint(engine, loaded.checkpoints_dir, whole)
        from cubeopt.emergence.analysis import analyse

        return study_page.Cube(analyse(folder, loaded))
    except CubeoptError as error:
        return study_page.no_cube(error)
