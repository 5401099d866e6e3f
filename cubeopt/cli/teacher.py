"""`cubeopt data embed`: turn text into embeddings with a teacher."""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, check_device, stopping
from cubeopt.cli.printing import cell, error_console, facts, number, print_json, say, table
from cubeopt.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from cubeopt.data.teaching.embedding import EmbedReport

_LINES = 20  # about what was left out, at most
SHORT_HELP = "Turn files of text into files of embeddings."
EPILOG = "\b\nExample: cubeopt data embed ~/texts --model all-mpnet-base-v2 --out ~/embeddings"


def embed(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Files of text, or folders to be searched."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_PATH",
            help="Of sentence-transformers or transformers: a name, or a folder that holds one.",
        ),
    ] = "",
    out: Annotated[
        str, typer.Option(metavar="DIR", help="The folder of the files of embeddings.")
    ] = "",
    width: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Refuse a teacher that gives another width."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=65536, metavar="N", help="Texts embedded side by side.")
    ] = 64,
    gpu: Annotated[
        int | None, typer.Option("--gpu", min=0, metavar="N", help="Compute on this NVIDIA GPU.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Compute on the CPU; the default.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when anything is left out or suspicious.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn files of text into files of embeddings, with any teacher model.

    Equal texts are embedded once, and what was embedded is kept in the storage: after an
    interrupt the same command goes on from there. Build a dataset of DIR afterwards.
    """
    if not paths or not model or not out:
        raise InputError("give PATH..., --model NAME_OR_PATH and --out DIR")
    check_device(gpu, cpu or gpu is None)
    folder = settings.expanded(out, "--out")
    store = settings.load().storage_dir / "cache" / "embeddings"
    with stopping() as stop:
        import torch

        from cubeopt.data.teaching import embedding
        from cubeopt.training import device as devices

        # Unlike a small cube, a teacher gains by more than one thread.
        device = torch.device("cpu") if gpu is None else devices.prepare(gpu)
        options = embedding.EmbedOptions(model, device, width, batch_size, strict)
        with _bars() as bars:
            report = embedding.embed(paths, folder, store, options, _shown_by(bars), stop)
    if report.stopped:
        _leave(report)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)


def _leave(report: "EmbedReport") -> NoReturn:
    print(
        f"cubeopt: stopped; {report.embedded} new embeddings are kept, "
        "and the same command goes on from there",
        file=sys.stderr,
    )
    raise typer.Exit(130)


def _bars() -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = error_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _shown_by(bars: "Progress") -> Callable[[str, int, int], None]:
    """A bar for each stage, which says how many a second beyond those that were known before."""
    stages: dict[str, tuple[TaskID, int, float]] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in stages:
            bar = bars.add_task(what, total=total, completed=done, rate="")
            stages[what] = bar, done, time.monotonic()
        bar, before, since = stages[what]
        rate = (done - before) / max(time.monotonic() - since, 1e-3)
        bars.update(bar, completed=done, rate=f"{rate:.0f}/s" if rate else "")

    return show


def _print(report: "EmbedReport") -> None:
    seen = "no limit" if report.max_length is None else f"the first {report.max_length} tokens"
    facts(
        {
            "teacher": report.teacher,
            "identity": report.identity[:12],
            "width": report.width,
            "pooling": report.pooling,
            "sees": f"{seen}; {report.truncated} texts are longer" if report.truncated else seen,
            "texts": f"{report.texts} distinct: {report.from_cache} from the cache, "
            f"{report.embedded} embedded ({number(report.texts_per_second)} texts/s)"
            if report.texts
            else "none: every file stands there already",
            "folder": report.folder,
        },
        as_json=False,
    )
    table(
        "files",
        ["file", "task", "rows", "texts", "from_cache", "embedded", "truncated", "unchanged"],
        [
            [
                file.output.name,
                file.task,
                file.rows,
                file.texts,
                file.from_cache,
                file.embedded,
                file.truncated,
                file.unchanged,
            ]
            for file in report.files
        ],
        expendable=5,
    )
    for problem in report.problems:
        say(f"problem: {cell(problem)}")
    for row in report.left_out[:_LINES]:
        count = f" ({row.rows} rows)" if row.rows else ""
        lines = f", lines {', '.join(map(str, row.lines[:_LINES]))}" if row.lines else ""
        more = ", ..." if len(row.lines) > _LINES else ""
        say(f"left out: {cell(f'{row.path}: {row.reason}{count}{lines}{more}')}")
    if len(report.left_out) > _LINES:
        say(f"left out: and {len(report.left_out) - _LINES} more; --json has them all")
    folder = shlex.quote(str(report.folder))
    say(f"next: cubeopt data build {cell(folder)} --width {report.width} --out DIR")
