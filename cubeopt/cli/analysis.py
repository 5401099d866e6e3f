"""`cubeopt analyze`: what does a trained cube do?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table
from cubeopt.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from cubeopt.emergence.analysis import Tell
    from cubeopt.emergence.record import Emergence


def add_to(app: typer.Typer) -> None:
    """Put the command on the top level of *app*."""
    app.command(
        short_help="What does a trained cube do? Experts, tasks, flow.",
        epilog="\b\nExample: cubeopt analyze storage/experiments/best -o cube.html",
    )(analyze)


def analyze(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Its folder; of an experiment, its newest one is taken.",
            show_default=False,
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead: a run of this study.")
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Of this trial: its full run, else its short one."),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --trial: the checkpoint of this epoch."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PAGE.html", help="Also as a page.")
    ] = None,
    as_json: Json = False,
    storage: Storage = None,
) -> None:
    """What does a trained cube do? Which expert decides where, whether cells specialise by task,
    and how a change of the input travels to the output; in words, tables and on a page in 3D.

    It looks at up to 256 validation rows of the dataset that the cube was trained on, on the CPU in
    one thread. Leaves with 2 when that dataset is not here, with 1 when the checkpoint is damaged.
    """
    loaded = settings.load(storage)
    folder = _folder(checkpoint, study, trial, epoch, loaded)
    from cubeopt.emergence.analysis import analyse
    from cubeopt.report import cube_page

    with _bar() as tell:
        found = analyse(folder, loaded, tell)
    if output is not None:
        cube_page.write(found, output)
    page = None if output is None else str(output.resolve())
    if as_json:
        print_json({**found.as_json(), "page": page})
    else:
        _print(found, page)


def _folder(
    checkpoint: Path | None,
    study: str | None,
    trial: int | None,
    epoch: int | None,
    loaded: settings.Settings,
) -> Path:
    if (checkpoint is None) == (study is None) or (study is None) != (trial is None):
        raise InputError("give either a checkpoint's folder, or --study NAME and --trial N")
    if checkpoint is not None:
        if epoch is not None:
            raise InputError("--epoch goes with --study and --trial")
        return _newest(checkpoint)
    assert study is not None
    assert trial is not None
    from cubeopt.report import cube_runs

    with connected(loaded) as engine:
        return cube_runs.newest(engine, loaded.checkpoints_dir, study, trial, epoch)


def _newest(folder: Path) -> Path:
    """*folder*, or the newest checkpoint of the experiment that it is."""
    inside = folder / "checkpoints"
    if not inside.is_dir():
        return folder
    found = sorted(inside.glob("step_*"))
    if not found:
        raise CheckpointError(f"no checkpoint in {inside}")
    return found[-1]


@contextmanager
def _bar() -> "Iterator[Tell]":
    from rich.progress import Progress

    console = error_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=1.0)

        def tell(what: str, share: float) -> None:
            bars.update(bar, completed=share, description=what)

        yield tell


def _print(found: "Emergence", page: str | None) -> None:
    from cubeopt.report import cube

    facts({**cube.facts(found), **({} if page is None else {"page": page})}, as_json=False)
    say("")
    for each in found.findings:
        mark = "problem" if each.trouble else "note"
        say(f"{mark}: {cell(f'{each.kind} {each.subject}'.strip())}: {cell(each.sentence)}")
    say("")
    _print_rows(
        "step by step: mean shares, bits, root mean squares; cells that a change has reached",
        cube.step_rows(found),
    )
    say("")
    _print_rows(
        "how far a change of the input reaches, by distance from the cells written (1: as far as "
        "those moved)",
        cube.ring_rows(found),
    )


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    table(title, list(rows[0]), [list(row.values()) for row in rows], expendable=len(rows[0]) - 2)
