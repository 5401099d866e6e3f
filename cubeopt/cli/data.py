"""`cubeopt data`: look into files of embeddings, make a dataset of them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cubeopt import settings
from cubeopt.cli.options import Json
from cubeopt.cli.printing import facts, print_json, say, table

app = typer.Typer(
    help="Look into files of embeddings, make a dataset of them.",
    epilog="Example: cubeopt data build ~/cache/dialogue_dataset --out storage/data/dialogues",
    no_args_is_help=True,
)
Paths = Annotated[
    list[Path] | None, typer.Argument(metavar="PATH...", help="Files, or folders to be searched.")
]
Sample = Annotated[bool, typer.Option("--sample", help="Also the sample that ships with cubeopt.")]


class Tasks(StrEnum):
    """What --task takes."""

    ANSWER = "answer"
    RECONSTRUCT = "reconstruct"
    BOTH = "both"


@app.command(epilog="Example: cubeopt data inspect ~/cache/dialogue_dataset")
def inspect(
    paths: Paths = None,
    sample: Sample = False,
    width: Annotated[int, typer.Option(min=1, help="Numbers in an embedding.")] = 768,
    as_json: Json = False,
) -> None:
    """What each file holds: kind, keys, shapes, dtypes, rows, problems. Executes nothing."""
    from cubeopt.data import inspect as inspection

    rows = [each.as_json() for each in inspection.inspect(_paths(paths, sample), width)]
    if as_json:
        print_json(rows)
        return
    table(
        f"{len(rows)} files",
        ["file", "kind", "keys", "shapes", "dtypes", "rows", "usable", "problems"],
        [
            [
                *(Path(row["path"]).name, row["kind"], ", ".join(row["keys"])),
                *(_joined(row["shapes"]), _joined(row["dtypes"]), row["rows"]),
                *(row["usable_rows"], "; ".join(row["problems"]) or "none"),
            ]
            for row in rows
        ],
    )


@app.command(epilog="Example: cubeopt data build --sample --out storage/data/quickstart")
def build(
    paths: Paths = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The dataset's folder, or a name below data/ in the storage."),
    ] = None,
    task: Annotated[Tasks, typer.Option(help="What the cube shall be asked.")] = Tasks.BOTH,
    sample: Sample = False,
    width: Annotated[int, typer.Option(min=1, help="Numbers in an embedding.")] = 768,
    seed: Annotated[int, typer.Option(min=0, help="Of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Unify files into one dataset folder, split by group, with a manifest and a fingerprint."""
    if out is None:
        raise typer.BadParameter("give --out DIR: the folder of the dataset")
    from rich.progress import Progress

    from cubeopt.cli.printing import error_console
    from cubeopt.data import unify
    from cubeopt.trial import Task

    tasks = list(Task) if task is Tasks.BOTH else [Task(task)]
    named = out.parent == Path() and not out.exists()
    folder = settings.load().data_dir / out if named else out
    with Progress(console=error_console(), transient=True) as progress:
        bars = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done)

        report = unify.build(_paths(paths, sample), folder, tasks, width, seed, progress=show)
    if as_json:
        print_json(report.as_json())
        return
    facts(
        {
            "dataset": report.folder,
            "fingerprint": report.fingerprint,
            "sources": f"{len(report.sources)} files",
            "unchanged": report.unchanged,
        },
        as_json=False,
    )
    table(
        "rows",
        ["task", "train", "validation", "test"],
        [[name, *counts.values()] for name, counts in report.counts.items()],
    )
    for each in report.left_out:
        count = "" if each.rows is None else f" ({each.rows} rows)"
        say(f"left out: {each.path}: {each.reason}{count}")


def _paths(paths: list[Path] | None, sample: bool) -> list[Path]:
    from cubeopt.data import sources

    chosen = list(paths or []) + ([sources.sample_dir()] if sample else [])
    if not chosen:
        raise typer.BadParameter("give PATH... or --sample")
    return chosen


def _joined(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
