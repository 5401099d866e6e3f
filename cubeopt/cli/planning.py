"""`cubeopt study plan`: what a study will cost, before anything is spent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Cpu, Gpu, Json, check_device, stopping
from cubeopt.cli.printing import error_console, facts, print_json, table

if TYPE_CHECKING:
    from cubeopt.search.forecast import Epochs
    from cubeopt.search.study import StudySpec
    from cubeopt.service.planning import Plan

_NUMBERS = 4  # of a weight, as service.planning counts them; a thinned checkpoint has one
_INTERRUPTED = 130


def add_to(app: typer.Typer) -> None:
    """Put the command beside the others of `cubeopt study`."""
    app.command(
        short_help="Say what a study will cost, before anything is spent.",
        epilog="\b\nExample: cubeopt study plan studies/cube8.yaml --gpu 0 --workers 2",
    )(plan)


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study file (YAML).")],
    gpu: Gpu = None,
    cpu: Cpu = False,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Workers like this machine's, side by side.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Trials, epochs with and without pruning, and time and memory from real steps.

    Nothing is written, and no storage is asked. Each shape that the search can draw is trained for
    some steps on this machine, in packs as wide as pay.
    """
    check_device(gpu, cpu)
    with stopping() as stop:
        from rich.status import Status

        from cubeopt.search import study

        spec = study.load(file)
        folder = settings.load().dataset_dir(spec.base_trial.plan.dataset)
        with Status("measuring", console=error_console()) as status:
            from cubeopt.service import planning

            def show(done: int, total: int) -> None:
                status.update(f"measuring shape {min(done + 1, total)} of {total}")

            made = planning.plan(spec, folder, gpu, stop, show)
    if made is None:
        raise typer.Exit(_INTERRUPTED)
    row = _summary(spec, made, planning.epochs(spec, made, workers), workers)
    if as_json:
        print_json({**row, "shapes": _shapes(spec, made)})
    else:
        _print(spec, made, row)


def _summary(spec: "StudySpec", made: "Plan", epochs: "Epochs", workers: int) -> dict[str, Any]:
    seconds = made.epoch_seconds / workers
    snapshots = epochs.full / spec.base_trial.plan.save_checkpoint_every  # thinned: weights alone
    return {
        "study": spec.name,
        "trials": round(epochs.trials),
        "ends_with": f"budget.{epochs.ends}",
        "epochs_short_unpruned": round(epochs.unpruned, 1),
        "epochs_short_pruned": round(epochs.pruned, 1),
        "epochs_full": round(epochs.full, 1),
        "trials_at_rungs": {
            str(epoch): round(came, 1)
            for epoch, came in zip(spec.rungs.epochs, epochs.reaching, strict=True)
        },
        "workers": workers,
        "hours": (epochs.pruned + epochs.full) * seconds / 3600.0,
        "hours_without_pruning": (epochs.unpruned + epochs.full) * seconds / 3600.0,
        "memory_gb": max(cost.bytes for cost in made.costs) / 1e9,
        "checkpoints_gb": (epochs.trials + snapshots / _NUMBERS) * made.checkpoint_bytes / 1e9,
        "trials_of_unmeasured_shapes": made.unmeasured,
    }


def _shapes(spec: "StudySpec", made: "Plan") -> list[dict[str, Any]]:
    base = spec.base_trial.shape.model_dump(mode="json")
    rows = []
    for cost in made.costs:
        own = cost.share.shape.model_dump(mode="json")
        rows.append(
            {
                "values": {name: own[name] for name in sorted(set(spec.search) & set(base))},
                "share": cost.share.share,
                "pack": cost.width,
                "step_ms": cost.step_ms,
                "epoch_seconds": cost.epoch_seconds,
                "memory_gb": cost.bytes / 1e9,
                "checkpoint_mb": cost.checkpoint_bytes / 1e6,
            }
        )
    return rows


def _print(spec: "StudySpec", made: "Plan", row: dict[str, Any]) -> None:
    workers = row["workers"]
    at = ", ".join(f"{came:g} at {epoch}" for epoch, came in row["trials_at_rungs"].items())
    facts(
        {
            "study": spec.name,
            "trials": row["trials"],
            "ends with": row["ends_with"],
            "epochs, short": f"{row['epochs_short_pruned']:g} "
            f"({row['epochs_short_unpruned']:g} without pruning)",
            "epochs, full runs": f"{row['epochs_full']:g}",
            "trials at each rung": at,
            f"hours, {workers} worker{'s' * (workers > 1)}": f"{row['hours']:.3g} "
            f"({row['hours_without_pruning']:.3g} without pruning)",
            "memory of a worker, GB": row["memory_gb"],
            "checkpoints, GB": row["checkpoints_gb"],
        },
        as_json=False,
    )
    rows = [
        [
            ", ".join(f"{name} {value}" for name, value in shape["values"].items()) or "the base's",
            *(value for name, value in shape.items() if name != "values"),
        ]
        for shape in _shapes(spec, made)
    ]
    columns = ["shape", "share of trials", "pack", "ms a step", "seconds an epoch"]
    table("of one trial, by shape", [*columns, "memory GB", "checkpoint MB"], rows)
    if made.unmeasured:
        share = f"{100.0 * made.unmeasured:.0f} %"
        facts(
            {"not measured": f"shapes of {share} of the trials; taken as the others' mean"}, False
        )
