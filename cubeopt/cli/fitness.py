"""`cubeopt data check`: is a dataset fit for the cube?"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table
from cubeopt.errors import StrictError

if TYPE_CHECKING:
    from cubeopt.data.fitness.fitness import Progress

Dataset = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Its folder, or its name in data/ of the storage."),
]


def check(
    dataset: Dataset,
    mlp: Annotated[
        bool, typer.Option("--mlp", help="Also train small autoencoders; takes minutes.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Of each autoencoder.")] = 3,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PAGE.html", help="The page; else in reports/ of the storage."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Leave with exit code 1 when there is a problem.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Is a dataset fit for the cube? What is wrong, what to do, and every figure behind it."""
    from cubeopt.data import dataset as datasets
    from cubeopt.data.fitness import fitness
    from cubeopt.report import data_page

    loaded = settings.load()
    folder = loaded.dataset_dir(dataset)
    held = datasets.load(folder)
    with _bars() as progress:
        found = fitness.check(held, mlp, seeds, progress)
    page = output or loaded.reports_dir / f"data-{folder.name}.html"
    rows = found.as_json()
    data_page.write(folder.name, rows, page)
    if as_json:
        print_json({**rows, "page": str(page.resolve())})
    else:
        _print(rows, page)
    if strict and found.problems:
        raise StrictError(
            f"{folder}: {_count(len(found.problems), 'problem')} (--strict); the first: "
            f"{found.problems[0].what}"
        )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


@contextmanager
def _bars() -> "Iterator[Progress]":
    from rich.progress import Progress

    console = error_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        known: dict[str, Any] = {}

        def show(what: str, share: float) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=1.0)
            bars.update(known[what], completed=share)

        yield show


def _print(fit: dict[str, Any], page: Path) -> None:
    from cubeopt.report import data_page

    geometry, width = fit["geometry"], fit["code_width"]
    facts(
        {
            "dataset": fit["folder"],
            "verdict": data_page.verdict(fit["findings"])[0],
            "sentences": ", ".join(f"{n} {split}" for split, n in fit["sentences"].items()),
            f"variance in {width} numbers": geometry["explained"][width - 1],
            "effective rank": geometry["effective_rank"],
            "mean pairwise cosine": geometry["mean_cosine"],
            "page": str(page.resolve()),
        },
        as_json=False,
    )
    for finding in fit["findings"]:
        say(f"{finding['severity']}: {cell(finding['what'])}; {cell(finding['advice'])}")
    for title, columns, rows in _tables(fit):
        if rows:
            say("")
            table(title, columns, rows)


def _tables(fit: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    yield (
        f"unseen sentences and back ({fit['fitted_on']} fitted, {fit['measured_on']} measured)",
        ["by", "numbers", "mse", "cosine", "fvu"],
        [
            [row[key] for key in ("name", "width", "mse", "cosine", "fvu")]
            for row in (
                *fit["reconstruction"],
                *({"name": f"network, noise {each['noise']}", **each} for each in fit["networks"]),
            )
        ],
    )
    yield (
        "near copies: sentences whose nearest neighbour is as near",
        ["split", "looked at", "compared with"]
        + [f"{where} {name}" for where in ("own", "other") for name in ("0.999", "0.99", "0.95")],
        [
            [
                row["split"],
                row["looked_at"],
                row["compared_with"],
                *row["within"].values(),
                *row["across"].values(),
            ]
            for row in fit["neighbours"]
        ],
    )
    yield (
        "cosine of question and answer",
        ["task", "label", "pairs", "true", "shuffled"],
        [
            [row[key] for key in ("task", "label", "pairs", "true", "shuffled")]
            for row in fit["likeness"]
        ],
    )
    yield from _task_tables(fit)


def _task_tables(fit: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    yield (
        "the answer from the question",
        ["task", "by", "mse", "cosine", "fvu"],
        [
            [task["task"], *(row[key] for key in ("name", "mse", "cosine", "fvu"))]
            for task in fit["difficulty"]
            for row in task["scores"]
        ],
    )
    yield (
        "the right answer among others",
        ["task", "by", "candidates", "questions", "first", "mean 1/rank"],
        [
            [task["task"]]
            + [row[key] for key in ("name", "candidates", "questions", "top1", "mrr")]
            for task in fit["difficulty"]
            for row in task["retrieval"]
        ],
    )
    keys = ["task", "name", "width", "train", "validation", "accuracy", "error", "majority"]
    yield (
        "labels read by a linear probe",
        keys,
        [[row[key] for key in keys] for row in fit["readings"]],
    )
    keys = ["split", "sentences", "groups", "shift", "unexplained"]
    yield (
        "splits against training",
        keys,
        [[row[key] for key in keys] for row in fit["drift"]["parts"]],
    )
    told = fit["drift"]["told"]
    keys = ["train", "validation", "groups", "auc", "low", "high"]
    yield (
        "training or validation? a classifier's AUC, and its range by chance",
        keys,
        [[told[key] for key in keys]] if told else [],
    )
    yield (
        "rows by split",
        ["of", "name", "train", "validation", "test"],
        [
            [row["what"], row["name"], *row["rows"].values()]
            for row in fit["drift"]["shares"]
            if any(row["rows"].values())
        ],
    )
