"""`cubeopt compare`: which of some configurations is better, and how sure that is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Gpu, Jobs, Json, side_by_side, stopping
from cubeopt.cli.printing import cell, error_console, facts, print_json, say, table

if TYPE_CHECKING:
    from cubeopt.service.comparison import Report, Request
    from cubeopt.service.verdict import Comparison

_NO_ANSWER, _INTERRUPTED = 1, 130


def add_to(app: typer.Typer) -> None:
    """Put the command on the top level of *app*."""
    app.command(
        short_help="Train configurations over the same seeds: which one is better?",
        epilog="\b\nExample: cubeopt compare narrow.yaml wide.yaml --seeds 8 --epochs 10",
    )(compare)


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE", help="Two or more, YAML, each with a real_training section."
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=2, max=100, metavar="N", help="Seeds, from 0, of each arm.")
    ] = 8,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each training; else the configs'.")
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="What is compared, on validation.")
    ] = "fvu",
    jobs: Jobs = None,
    gpu: Gpu = None,
    as_json: Json = False,
) -> None:
    """Train two or more configurations over the same seeds and batches, and compare them.

    Every arm is set against the first: the mean difference of the pairs with its interval, p by
    sign flips (with Holm's correction from three arms on), and the answer in plain words. A seed
    gives the weights, and is added to data_seed, so each pair has its own order of batches.
    """
    with stopping() as stop:
        from cubeopt.cli.bars import Bars
        from cubeopt.service import comparison, verdict

        request = _request(files, seeds, epochs, metric, side_by_side(jobs, gpu), gpu)
        console = error_console()
        if warning := verdict.too_few(seeds, len(files) - 1):
            console.print(f"cubeopt: {warning}", markup=False, highlight=False, soft_wrap=True)
        with Bars(console) as bars:
            report = comparison.run(
                request, stop, lambda at: bars.show(at.pack, at.epoch, at.epochs)
            )
    if report is None:
        raise typer.Exit(_INTERRUPTED)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    if not report.answered:
        raise typer.Exit(_NO_ANSWER)


def _request(
    files: list[Path], seeds: int, epochs: int | None, metric: str, jobs: int, gpu: int | None
) -> "Request":
    """All that can be wrong is found before the first training."""
    from cubeopt.service import arms
    from cubeopt.service.comparison import Request, metric_named
    from cubeopt.service.packs import Place

    judged = metric_named(metric)
    found = arms.read(files, epochs)
    data = arms.check_data(found, settings.load().dataset_dir)
    return Request(found, range(seeds), judged, data.fingerprint, Place(data.folder, gpu, jobs))


def _print(report: "Report") -> None:
    names = [cell(each.arm) for each in report.arms]
    facts(
        {
            "metric": f"{report.metric} on validation, "
            f"{'lower' if report.direction == 'minimize' else 'higher'} is better",
            "epochs": report.epochs,
            "arms": ", ".join(f"{each.arm} ({each.file})" for each in report.arms),
        },
        as_json=False,
    )
    table(
        "what differs between the arms",
        ["value", *names],
        [[name, *values] for name, values in report.differing.items()]
        + [["weights of a cube", *(each.weights for each in report.arms)]],
    )
    table(
        f"{report.metric} by seed, and the differences to {names[0]}",
        ["seed", *names, *(f"{name} - {names[0]}" for name in names[1:])],
        _by_seed(report),
        expendable=len(names) - 1,
    )
    table(
        "mean difference, its 95 % interval, p by sign flips"
        + (" and with Holm's correction" if len(names) > 2 else ""),
        ["arm", "pairs", "difference", "from", "to", "p", *(["p, Holm"] if len(names) > 2 else [])],
        [_numbers(each, len(names) > 2) for each in report.comparisons],
    )
    for line in (*(each.words for each in report.comparisons), *report.notes, *report.method):
        say(cell(line))


def _by_seed(report: "Report") -> list[list[Any]]:
    """A row for each seed, then mean and deviation; the epoch where a training diverged."""
    rows: list[list[Any]] = []
    for place, seed in enumerate(report.seeds):
        values = [
            f"diverged, epoch {arm.diverged[seed]}" if seed in arm.diverged else arm.values[place]
            for arm in report.arms
        ]
        rows.append([str(seed), *values, *(each.differences[place] for each in report.comparisons)])
    found = [each.evidence for each in report.comparisons]
    means = [None if each is None else each.mean for each in found]
    deviations = [None if each is None else each.deviation for each in found]
    rows.append(["mean", *(arm.mean for arm in report.arms), *means])
    rows.append(["deviation", *(arm.deviation for arm in report.arms), *deviations])
    return rows


def _numbers(each: "Comparison", corrected: bool) -> list[Any]:
    found = each.evidence
    who = f"{each.arm} - {each.first}"
    if found is None:
        whole = sum(difference is not None for difference in each.differences)
        return [who, whole, *[None] * (5 if corrected else 4)]
    row = [who, found.pairs, found.mean, found.low, found.high, found.p]
    return [*row, each.p] if corrected else row
