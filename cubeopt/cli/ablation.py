"""`cubeopt ablate`: what each part of the cube is worth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cubeopt import settings
from cubeopt.cli.options import Gpu, Jobs, Json, side_by_side, stopping
from cubeopt.cli.printing import error_console, facts, print_json, table

if TYPE_CHECKING:
    from cubeopt.service.ablation import Report

_INTERRUPTED = 130


def add_to(app: typer.Typer) -> None:
    """Put the command on the top level of *app*."""
    app.command(
        short_help="Train a configuration without each of its parts, and compare.",
        epilog="\b\nExample: cubeopt ablate --config best.yaml --seeds 3 --epochs 10",
    )(ablate)


def ablate(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="YAML with a real_training section.")
    ],
    seeds: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Seeds, from 0, of each variant.")
    ] = 3,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each training; else the config's.")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one beside the whole cube; repeatable."),
    ] = None,
    jobs: Jobs = None,
    gpu: Gpu = None,
    as_json: Json = False,
) -> None:
    """Train a configuration whole, and without each part: what brings nothing shows it.

    Each expert left out, the gate frozen, emergence off, as few steps as lead through, twice as
    many; over the same seeds and batches, so differences are paired.
    """
    with stopping() as stop:
        from cubeopt.cli.bars import Bars
        from cubeopt.search import configuration
        from cubeopt.service import ablation
        from cubeopt.service.packs import Place

        spec, origin = configuration.read_training(config)
        if epochs is not None:
            spec = spec.with_values({"epochs": epochs})
        request = ablation.Request(
            spec=spec,
            variants=ablation.named(spec, variant or ()),
            seeds=range(seeds),
            metric=str((origin or {}).get("metric", "fvu")),
            place=Place(
                folder=settings.load().dataset_dir(spec.plan.dataset),
                gpu=gpu,
                jobs=side_by_side(jobs, gpu),
            ),
        )
        with Bars(error_console()) as bars:
            report = ablation.run(
                request, stop, lambda at: bars.show(at.variant, at.epoch, at.epochs)
            )
    if report is None:
        raise typer.Exit(_INTERRUPTED)
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)


def _print(report: "Report") -> None:
    facts(
        {
            "metric": f"{report.metric} on validation",
            "epochs": report.epochs,
            "seeds": ", ".join(map(str, report.seeds)),
        },
        as_json=False,
    )
    usage = [name for name in report.rows[0].metrics if name.startswith("validation/usage/")]
    shares = [name.removeprefix("validation/usage/") + " %" for name in usage]
    table(
        "each variant: mean and deviation over the seeds, mean difference to the whole cube and "
        "its standard error",
        [
            *("variant", report.metric, "deviation", "difference", "error", "weights"),
            *("seconds an epoch", *shares),
        ],
        [
            [
                *(row.variant, row.value, row.deviation, row.difference, row.error, row.weights),
                *(row.seconds, *(row.metrics.get(name) for name in usage)),
            ]
            for row in report.rows
        ],
        expendable=len(usage) + 1,
    )
