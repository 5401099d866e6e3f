"""`cubeopt data`: look into files of embeddings, make a dataset of them."""

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table
from cubeopt.errors import DataError, InputError

if TYPE_CHECKING:
    from cubeopt.data.sources import LeftOut
    from cubeopt.data.unify import BuildReport

_LINES = 20  # about what was left out, at most
_NAMES = 3  # of files, at most, in one such line

app = typer.Typer(
    help="Look into files of embeddings, make a dataset of them.",
    epilog="\b\nExample: cubeopt data build ~/dialogues --out storage/data/dialogues",
    no_args_is_help=True,
)
Paths = Annotated[
    list[Path] | None, typer.Argument(metavar="PATH...", help="Files, or folders to be searched.")
]
Sample = Annotated[bool, typer.Option("--sample", help="Also the sample that ships with cubeopt.")]
Width = Annotated[int, typer.Option(min=1, metavar="N", help="Numbers in an embedding.")]


class Tasks(StrEnum):
    """What --task takes."""

    ANSWER = "answer"
    RECONSTRUCT = "reconstruct"
    BOTH = "both"


@app.command(
    short_help="What each file holds, and what is wrong with it.",
    epilog="\b\nExample: cubeopt data inspect ~/cache/dialogue_dataset",
)
def inspect(
    paths: Paths = None, sample: Sample = False, width: Width = 768, as_json: Json = False
) -> None:
    """What each file holds: kind, keys, shapes, dtypes, rows, problems. Executes nothing."""
    from cubeopt.data import inspect as inspection

    rows = [each.as_json() for each in inspection.inspect(_paths(paths, sample), width)]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        _print_file(row)
    usable, bad = (
        sum(row["usable_rows"] for row in rows),
        sum(bool(row["problems"]) for row in rows),
    )
    say(f"{len(rows)} files, {usable} usable rows, {bad} files with problems")


def _print_file(row: dict[str, Any]) -> None:
    known = "" if row["rows"] is None else f" of {row['rows']}"
    say(f"{cell(row['path'])}: {row['kind'] or 'unknown'}, {row['usable_rows']}{known} rows usable")
    tensors = [
        f"{name} {'x'.join(map(str, shape))} {row['dtypes'][name]}"
        for name, shape in row["shapes"].items()
    ]
    others = [key for key in row["keys"] if key not in row["shapes"]]
    if tensors or others:
        say(f"    {cell(', '.join([*tensors, *others]))}")
    for problem in row["problems"]:
        say(f"    problem: {cell(problem)}")


@app.command(
    short_help="Unify files into one dataset folder.",
    epilog="\b\nExample: cubeopt data build --sample --out storage/data/quickstart",
)
def build(
    paths: Paths = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The dataset's folder. One in data/ of the storage is known to studies by name.",
        ),
    ] = "",
    task: Annotated[
        Tasks, typer.Option(metavar="TASK", help="What to ask: answer, reconstruct or both.")
    ] = Tasks.BOTH,
    sample: Sample = False,
    width: Width = 768,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Unify files into one dataset folder, split by group, with a manifest and a fingerprint.

    A study or configuration names its dataset: a folder in data/ of the storage by its name, any
    other by its path.
    """
    if not out:
        raise InputError("give --out DIR: the folder of the dataset")
    chosen, folder = _paths(paths, sample), settings.expanded(out, "--out")
    from rich.progress import Progress

    from cubeopt.data import unify
    from cubeopt.trial import Task

    tasks = list(Task) if task is Tasks.BOTH else [Task(task)]
    console = error_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bars = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done)

        report = unify.build(chosen, folder, tasks, width, seed, progress=show)
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(report)


def _print_report(report: "BuildReport") -> None:
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
    lines = _left_out(report.left_out)
    for line in lines[:_LINES]:
        say(f"left out: {cell(line)}")
    if len(lines) > _LINES:
        say(f"left out: and {len(lines) - _LINES} lines more; manifest.json has them all")


def _left_out(rows: "Sequence[LeftOut]") -> list[str]:
    """A line for each thing left out or, when these are too many, for each reason."""
    groups: dict[object, list[LeftOut]] = defaultdict(list)
    for row in rows:
        groups[row.reason if len(rows) > _LINES else row].append(row)
    return [_left_out_line(group) for group in groups.values()]


def _left_out_line(group: "Sequence[LeftOut]") -> str:
    files = list(dict.fromkeys(str(row.path) for row in group))
    named = ", ".join(files[:_NAMES])
    more = f" and {len(files) - _NAMES} more files" if len(files) > _NAMES else ""
    count = sum(row.rows or 0 for row in group)
    counted = f" ({count} rows)" if count else ""
    return f"{group[0].reason}{counted}: {named}{more}"


def _paths(paths: list[Path] | None, sample: bool) -> list[Path]:
    from cubeopt.data import sources

    chosen = list(paths or []) + ([sources.sample_dir()] if sample else [])
    if not chosen:
        raise InputError("give PATH... or --sample")
    for path in chosen:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    return chosen
