"""`cubeopt data`: look into files of embeddings, make a dataset of them."""

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli import fitness, teacher
from cubeopt.cli.options import Json, stopping
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table
from cubeopt.errors import InputError, StrictError

if TYPE_CHECKING:
    import threading

    from rich.progress import Progress, TaskID

    from cubeopt.data.building.unify import BuildOptions, BuildReport
    from cubeopt.data.reading.sources import LeftOut

_LINES = 20  # about what was left out, at most
_NAMES = 3  # of files, at most, in one such line
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)

app = typer.Typer(
    help="Look into files of embeddings, make a dataset of them.",
    epilog="\b\nExample: cubeopt data build ~/dialogues --out storage/data/dialogues",
    no_args_is_help=True,
)
Sample = Annotated[bool, typer.Option("--sample", help="Also the sample that ships with cubeopt.")]
Width = Annotated[int, typer.Option(min=1, metavar="N", help="Numbers in an embedding.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit code 1 when anything is left out or suspicious.")
]


class Tasks(StrEnum):
    """What --task takes; as in trial.py, which is not loaded for a help text."""

    RECONSTRUCT = "reconstruct"
    DIALOGUE = "dialogue"
    NLI = "nli"
    SENTIMENT = "sentiment"


class Normalisations(StrEnum):
    """What --normalise takes."""

    NONE = "none"
    L2 = "l2"
    STANDARDISE = "standardise"


class Dtypes(StrEnum):
    """What --dtype takes."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


@app.command(
    short_help="What each file holds, and what is wrong with it.",
    epilog="\b\nExample: cubeopt data inspect ~/cache/dialogue_dataset 'more/*.npy' --strict",
)
def inspect(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Files, folders to be searched, quoted globs."),
    ] = None,
    sample: Sample = False,
    width: Width = 768,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """What each file holds: kind, task, keys, shapes, dtypes, rows, problems. Executes nothing."""
    from cubeopt.data.reading import inspect as inspection

    rows = [each.as_json() for each in inspection.inspect(_paths(paths, sample), width)]
    bad = [row for row in rows if row["problems"]]
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            _print_file(row)
        usable = sum(row["usable_rows"] for row in rows)
        say(f"{len(rows)} files, {usable} usable rows, {len(bad)} files with problems")
    if strict and bad:
        first = f"{bad[0]['path']}: {bad[0]['problems'][0]}"
        raise StrictError(f"{len(bad)} files with problems (--strict); the first: {first}")


def _print_file(row: dict[str, Any]) -> None:
    known = "" if row["rows"] is None else f" of {row['rows']}"
    what = ", ".join(str(row[name]) for name in ("kind", "task", "corpus") if row[name])
    say(f"{cell(row['path'])}: {what or 'unknown'}, {row['usable_rows']}{known} rows usable")
    tensors = [
        f"{name} {'x'.join(map(str, shape))} {row['dtypes'][name]}"
        for name, shape in row["shapes"].items()
    ]
    others = [key for key in row["keys"] if key not in row["shapes"]]
    made = [f"teacher {row['teacher']}"] if row["teacher"] else []
    if tensors or others or made:
        say(f"    {cell(', '.join([*tensors, *others, *made]))}")
    for problem in row["problems"]:
        say(f"    problem: {cell(problem)}")
    for note in row["notes"]:
        say(f"    note: {cell(note)}")


app.command("embed", short_help=teacher.SHORT_HELP, epilog=teacher.EPILOG)(teacher.embed)


@app.command(
    short_help="Unify files into one dataset folder.",
    epilog="\b\nExample: cubeopt data build chat=~/dialogues --weight chat=2 --out ~/all",
)
def build(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]PATH...",
            help="Files, folders to be searched, quoted globs; NAME is the corpus they are of.",
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The dataset's folder. One in data/ of the storage is known to studies by name.",
        ),
    ] = "",
    task: Annotated[
        list[Tasks] | None,
        typer.Option(
            metavar="TASK",
            help="What to ask: reconstruct, dialogue, nli, sentiment; repeatable; else all "
            "that the files have.",
        ),
    ] = None,
    sample: Sample = False,
    width: Width = 768,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the split.")] = 0,
    fractions: Annotated[
        str, typer.Option(metavar="A,B,C", help="Of train, validation and test.")
    ] = "0.8,0.1,0.1",
    near: Annotated[
        str,
        typer.Option(metavar="COSINE", help="From which two sentences count as one; or off."),
    ] = "0.999",
    normalise: Annotated[
        Normalisations,
        typer.Option(
            metavar="HOW", help="none, l2 (rows of norm 1) or standardise; undone at serving."
        ),
    ] = Normalisations.NONE,
    dtype: Annotated[
        Dtypes, typer.Option(metavar="TYPE", help="Of the stored numbers: float32 or float16.")
    ] = Dtypes.FLOAT32,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=W", help="How often a corpus is drawn, beside 1; repeatable."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take only the files of this teacher model."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE=ROWS.jsonl", help="Labels of the rows of FILE; repeatable."),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Unify files into one dataset folder, split by group, with a manifest and a fingerprint.

    A study or configuration names its dataset: a folder in data/ of the storage by its name, any
    other by its path.
    """
    if not out:
        raise InputError("give --out DIR: the folder of the dataset")
    named = [_named(each) for each in paths or []]
    chosen = _paths([path for _, path in named], sample)
    folder = settings.expanded(out, "--out")
    shares, cosine = _fractions(fractions), _near(near)
    weights = dict(_weight(each) for each in weight or [])
    files = dict(_labels(each) for each in labels or [])
    from cubeopt.data.building.unify import BuildOptions
    from cubeopt.trial import Task

    options = BuildOptions(
        tasks=tuple(Task(each) for each in task) if task else None,
        width=width,
        seed=seed,
        fractions=shares,
        near=cosine,
        normalisation=str(normalise),
        dtype=str(dtype),
        weights=weights,
        teacher=teacher,
        labels=files,
        corpora={path: name for name, path in named if name},
        strict=strict,
    )
    report = _run(chosen, folder, options)
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(report)


class _Stopped(Exception):
    """Ctrl-C, on its way out of the build."""


def _run(paths: list[Path], folder: Path, options: "BuildOptions") -> "BuildReport":
    from cubeopt.data.building import unify

    with stopping() as stop, _bars() as bars:
        try:
            return unify.build(paths, folder, options, _Screen(bars, stop).show)
        except _Stopped:
            bars.stop()
            print(f"cubeopt: stopped; nothing was written to {folder}", file=sys.stderr)
            raise typer.Exit(130) from None


class _Screen:
    """A bar for each stage; the place where a build notices that it shall stop."""

    def __init__(self, bars: "Progress", stop: "threading.Event") -> None:
        self._bars, self._stop = bars, stop
        self._stages: dict[str, TaskID] = {}

    def show(self, what: str, done: int, total: int) -> None:
        """Say how far the stage *what* is."""
        if self._stop.is_set():
            raise _Stopped
        if what not in self._stages:
            self._stages[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._stages[what], completed=done)


def _bars() -> "Progress":
    from rich.progress import Progress

    console = error_console()
    return Progress(console=console, transient=True, disable=not console.is_terminal)


app.command(
    "check",
    short_help="Is a dataset fit for the cube? What is wrong, and what to do.",
    epilog="\b\nExample: cubeopt data check storage/data/dialogues",
)(fitness.check)


def _named(given: str) -> tuple[str | None, Path]:
    """[NAME=]PATH; a path that exists may hold the sign itself."""
    match = _NAMED.fullmatch(given)
    if match is None or Path(given).exists():
        return None, settings.expanded(given, "PATH")
    return match[1], settings.expanded(match[2], "PATH")


def _fractions(given: str) -> tuple[float, float, float]:
    try:
        train, validation, test = map(float, given.split(","))
    except ValueError:
        raise InputError(
            f"--fractions {given!r}: expected three numbers with commas, like 0.8,0.1,0.1"
        ) from None
    return train, validation, test


def _near(given: str) -> float | None:
    if given == "off":
        return None
    try:
        return float(given)
    except ValueError:
        raise InputError(f"--near {given!r}: expected a cosine like 0.999, or off") from None


def _weight(given: str) -> tuple[str, float]:
    name, sign, number = given.rpartition("=")
    try:
        return name, float(number if sign and name else "")
    except ValueError:
        raise InputError(f"--weight {given!r}: expected NAME=W, like dialogue=2") from None


def _labels(given: str) -> tuple[Path, Path]:
    for match in re.finditer("=", given):  # a path may hold the sign itself
        file, rows = (
            settings.expanded(part, "--labels")
            for part in (given[: match.start()], given[match.end() :])
        )
        if file.exists() and rows.exists():
            return file, rows
    raise InputError(f"--labels {given!r}: expected FILE=ROWS.jsonl, two files that exist")


def _print_report(report: "BuildReport") -> None:
    found = report.duplicates
    facts(
        {
            "dataset": report.folder,
            "fingerprint": report.fingerprint,
            "sources": f"{len(report.sources)} files",
            "sentences": f"{report.sentences} of {found.occurrences} in the files; "
            f"{found.exact} equal and {found.near} nearly equal to another",
            "unchanged": report.unchanged,
        },
        as_json=False,
    )
    table(
        "rows",
        ["task", "train", "validation", "test"],
        [[name, *counts.values()] for name, counts in report.counts.items()],
    )
    table(
        "corpora",
        ["corpus", "weight", "train", "validation", "test"],
        [[name, *row.values()] for name, row in report.corpora.items()],
    )
    if found.conflicting_labels:
        say(f"label unknown: {found.conflicting_labels} pairs have different labels in the files")
    for problem in report.problems[:_LINES]:
        say(f"problem: {cell(problem)}")
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
    from cubeopt.data.building import intake
    from cubeopt.data.reading import sources

    # Not the folder: its licence and README would be told as left out.
    chosen = list(paths or []) + (sorted(sources.sample_dir().rglob("*.pt")) if sample else [])
    if not chosen:
        raise InputError("give PATH... or --sample")
    intake.check_given(chosen)
    return chosen
