"""`cubeopt study report`: a study as one page that can be mailed, its images, its rows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import facts, print_json, say


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
        Path | None, typer.Option(metavar="DIR", help="Write each figure into this folder, too.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A comparison to show: `cubeopt compare ... --json`."),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write all there is to say of a study into one file that needs no network.

    The question, the space, what was tried and cut, the winner beside the baselines, what decides,
    what ran where, and the commands that give it all again. It may be written while the study runs.
    """
    from cubeopt.report import compared, headlines, material, study_page

    against = None if compare is None else compared.read(compare)
    loaded = settings.load(storage)
    with connected(loaded) as engine:
        found = material.load(engine, name)
    whole = study_page.report(found, against)
    path = output or loaded.reports_dir / f"{name}-report.html"
    study_page.write(whole, path)
    images = study_page.write_images(whole, png) if png is not None else []
    written: dict[str, Any] = {
        "html": str(path.resolve()),
        "png": [str(each.resolve()) for each in images],
    }
    if as_json:
        print_json({**written, **whole.as_json()})
        return
    facts({"html": written["html"], "png": f"{len(images)} in {png}" if images else "-"}, False)
    if whole.protocol.goes_on:
        at = headlines.moment(whole.protocol.written)
        say(f"study {name} is {whole.protocol.state}: this is how it was at {at}")
