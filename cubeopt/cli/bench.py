"""`cubeopt bench`: what things cost on this machine."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Gpu, Json, Storage
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table
from cubeopt.errors import InputError

if TYPE_CHECKING:
    from cubeopt.bench import feeding
    from cubeopt.bench.measuring import Figure

_ROWS, _WIDTH = 10_000, 768  # of random content

app = typer.Typer(
    help="Measure what things cost on this machine.",
    epilog="\b\nExample: cubeopt bench data --rows 10000",
    no_args_is_help=True,
)


@app.callback()
def group() -> None:
    """Measure what things cost on this machine."""


@app.command(
    short_help="A batch of data, beside a DataLoader's and beside a training step.",
    epilog="\b\nExample: cubeopt bench data dialogue_combined --json",
)
def data(
    dataset: Annotated[
        str | None,
        typer.Argument(metavar="DATASET", help="A dataset by name or path; else random rows."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=16, max=1_000_000, metavar="N", help="Random rows to train on."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Rounds, each with every case.")
    ] = 7,
    gpu: Gpu = None,
    as_json: Json = False,
) -> None:
    """What a batch of 16 costs: from the feed, from torch's DataLoader, beside a training step.

    The cube is 8x8x8 with default sizes. On the CPU, in one thread, unless --gpu is given.
    """
    if dataset is not None and rows is not None:
        raise InputError("give either DATASET or --rows N")
    folder = settings.load().dataset_dir(dataset) if dataset is not None else None
    from rich.progress import Progress

    from cubeopt.bench import feeding
    from cubeopt.data.dataset import load
    from cubeopt.training.device import prepare

    device = prepare(gpu)
    loaded = load(folder) if folder else feeding.synthetic(rows or _ROWS, _WIDTH)
    console = error_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("rounds", total=None)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        report = feeding.measure(loaded, device, rounds, tell=show)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)


def _print(report: "feeding.Report") -> None:
    facts(
        {
            "dataset": report.dataset,
            "rows": ", ".join(f"{task} {count}" for task, count in report.train_rows.items()),
            "batch": f"{report.batch_size} x {report.embedding_size}",
            "rounds": report.rounds,
            **report.machine,
        },
        as_json=False,
    )
    table(
        "microseconds (median and quartiles)",
        ["task", "what", "median", "low", "high"],
        [
            [each.task, each.case, *(f"{x:.1f}" for x in (each.microseconds, each.low, each.high))]
            for each in report.timings
        ],
    )
    say("ratios within a round (median and quartiles)")
    for each in report.ratios:
        line = (
            f"{each.task}: {each.what}: {cell(each.value)} ({cell(each.low)} to {cell(each.high)})"
        )
        if each.goal is not None:
            line += f", goal {each.goal}: {'met' if each.met else 'missed'}"
        say(line)


@app.command(
    short_help="A step of training, beside the plain code's and beside the least it can cost.",
    epilog="\b\nExample: cubeopt bench train --rounds 5 --size '8x8x8, state 32'",
)
def train(
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Rounds, each with every case.")
    ] = 7,
    size: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this size, for example '15x15x15, state 32'."),
    ] = None,
    gpu: Gpu = None,
    as_json: Json = False,
) -> None:
    """What a step of training costs, as ratios within one run.

    Of one trial beside plain code for the same cube, beside the floor of arithmetic and traffic for
    several sizes, in packs and in processes. On the CPU, in one thread, unless --gpu is given.
    """
    from rich.status import Status

    from cubeopt.bench import stepping
    from cubeopt.training.device import prepare

    unknown = sorted(set(size or ()) - set(stepping.SHAPES))
    if unknown:
        raise InputError(f"--size {unknown[0]!r}: expected one of {'; '.join(stepping.SHAPES)}")
    shapes = {name: stepping.SHAPES[name] for name in size or stepping.SHAPES}
    with Status("measuring", console=error_console()) as status:
        report = stepping.measure(prepare(gpu), rounds, shapes, status.update)
    if as_json:
        print_json(report.as_json())
    else:
        _print_figures(report.machine, report.figures)


@app.command(
    short_help="The queue and the coordinator under load, beside plain Optuna.",
    epilog="\b\nExample: cubeopt bench service --workers 16 --trials 200 --rounds 1",
)
def service(
    workers: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Simulated workers, each a process.")
    ] = 64,
    trials: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Of a study of either.")
    ] = 320,
    rounds: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Rounds, each with every case.")
    ] = 3,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """What the service costs, as ratios within one run: simulated workers, the rest is real.

    Trials per second beside plain Optuna in as many processes on the same PostgreSQL, what a claim
    and a report cost beside 100 and 20,000 trials, and how long a device waits. In databases of its
    own, which are dropped afterwards.
    """
    from rich.status import Status

    from cubeopt.bench import service as bench

    with Status("measuring", console=error_console()) as status:
        report = bench.measure(settings.load(storage), workers, trials, rounds, status.update)
    if as_json:
        print_json(report.as_json())
    else:
        about = {"workers": workers, "trials": trials, "rounds": rounds}
        _print_figures({**about, **report.machine}, report.figures)


def _print_figures(about: Mapping[str, Any], figures: "Sequence[Figure]") -> None:
    facts(dict(about), as_json=False)
    for section in dict.fromkeys(each.section for each in figures):
        rows = [each for each in figures if each.section == section]
        table(
            f"{section} (median and quartiles)",
            ["what", "unit", "median", "low", "high", "goal", "met"],
            [
                [
                    each.what,
                    each.unit,
                    *map(cell, (each.value, each.low, each.high)),
                    each.goal,
                    each.met,
                ]
                for each in rows
            ],
        )
