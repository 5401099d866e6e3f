"""`cubeopt bench`: what things cost on this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Gpu, Json, Storage, connected, stopping
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table
from cubeopt.errors import InputError

if TYPE_CHECKING:
    from cubeopt.bench import feeding, searching
    from cubeopt.bench.measuring import Figure

_INTERRUPTED = 130
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


@app.command(
    short_help="How soon our search comes near the best of a table, beside Optuna's.",
    epilog="\b\nExample: cubeopt bench search --seeds 50 --workers 4",
)
def search(
    file: Annotated[
        Path | None,
        typer.Option("--table", metavar="FILE", help="Learning curves; else those that ship."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Replays of each method.")
    ] = 50,
    workers: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="That train at the same time.")
    ] = 4,
    as_json: Json = False,
) -> None:
    """Replay a table of real learning curves in simulated time, with our search and Optuna's.

    The time counts until a training to the last epoch is within 1 % of the best of the table.
    """
    with stopping() as stop:
        from rich.progress import Progress

        from cubeopt.bench import curves, searching

        loaded = curves.read(file or curves.COMMITTED)
        console = error_console()
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("replays", total=None)

            def show(done: int, total: int) -> None:
                progress.update(bar, completed=done, total=total)

            report = searching.measure(loaded, seeds, workers, stop, show)
    if report is None:
        raise typer.Exit(_INTERRUPTED)
    if as_json:
        print_json(report.as_json())
    else:
        _print_search(report)


def _print_search(report: "searching.Report") -> None:
    facts({**report.table, "seeds": report.seeds, "workers": report.workers}, as_json=False)
    columns = ["method", "median", "low", "high", "of the best other", "missed", "at any epoch"]
    table(
        "simulated seconds until a last epoch is within 1 % of the best (median and quartiles)",
        [*columns, "epochs"],
        [
            [
                *(each.method, each.seconds, each.low, each.high, report.ratio_of(each)),
                *(f"{100.0 * each.missed:.0f} %", each.any_epoch, each.epochs),
            ]
            for each in report.outcomes
        ],
    )
    table(
        "the best value so far, % worse than the best of the table (median)",
        ["method", *(f"after {look:.3g} s" for look in report.looks)],
        [[each.method, *map(_percent, each.regret)] for each in report.outcomes],
    )
    ours, met = cell(report.ratio), "met" if report.met else "missed"
    say(f"ours / {report.best_other}: {ours}, goal at most {report.goal}: {met}")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


@app.command(
    short_help="Make the table of learning curves that `bench search` replays.",
    epilog="\b\nExample: cubeopt bench curves curves -o curves.json.xz",
)
def curves(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A study that pruned nothing.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the table goes.")
    ] = Path("curves.json.xz"),
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write every learning curve of a study without rungs, with what an epoch of each shape takes.

    studies/curves.yaml says how the table that ships was made.
    """
    loaded = settings.load(storage)
    with connected(loaded) as engine:
        from rich.status import Status

        from cubeopt.bench import collecting
        from cubeopt.bench import curves as tables

        with Status("reading", console=error_console()) as status:
            found, left_out = collecting.collect(engine, loaded, name, status.update)
    tables.write(found, output)
    row = {
        "file": str(output.resolve()),
        "bytes": output.stat().st_size,
        "configurations": len(found.rows),
        "epochs": found.epochs,
        "failed, left out": left_out,
        "best": found.best,
    }
    facts(row, as_json)
