"""`cubeopt study`: create studies, look at them, steer them, take the winner out."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import cell, facts, print_json, say, table
from cubeopt.errors import InputError, StudyError

if TYPE_CHECKING:
    from cubeopt.report.summary import Records, Summary

app = typer.Typer(
    help="Create studies, look at them, steer them, take the winner out.",
    epilog="\b\nExample: cubeopt study create studies/quickstart.yaml",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")]


@app.command(
    short_help="Put a study into the storage.",
    epilog="\b\nExample: cubeopt study create studies/cube8.yaml --name cube8-monday",
)
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study file (YAML).")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the name in the file.")
    ] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Fine if it exists, made from the same file.")
    ] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Put the study in FILE into the storage; workers start on it at once."""
    from cubeopt.search import advice, study

    spec = study.load(file, name)
    loaded = settings.load(storage)
    with connected(loaded) as engine:
        # torch is loaded only here, after the file has been found good.
        from cubeopt.service import studies

        record, made = studies.existing(engine, spec), False
        if record is None:
            try:
                record, made = studies.create(engine, loaded, spec), True
            except StudyError:
                record = studies.existing(engine, spec)
                if record is None:
                    raise
        if not made and not exist_ok:
            raise StudyError(
                f"a study {spec.name!r} exists already, made from an equal file; give this one "
                "another name with --name, or accept that one with --exist-ok"
            )
    row = {
        "name": record.name,
        "created": made,
        "state": str(record.state),
        "trials": spec.trials(),
        "metric": f"{record.metric} ({record.direction})",
        "dataset": record.dataset,
        "dataset_fingerprint": record.dataset_fingerprint,
    }
    notes = advice.notes(spec)
    if as_json:
        print_json({**row, "notes": notes})
        return
    facts(row, as_json)
    for note in notes:
        say(f"note: {note}")
    if made:
        say("next: cubeopt worker --gpu 0   (or --cpu)")


@app.command("list", epilog="\b\nExample: cubeopt study list --json")
def list_(storage: Storage = None, as_json: Json = False) -> None:
    """All studies, with what became of their trials."""
    from cubeopt.db import records
    from cubeopt.report import summary
    from cubeopt.search import study

    rows: list[dict[str, Any]] = []
    with connected(settings.load(storage)) as engine:
        for record in records.studies(engine):
            short = summary.summarize(
                record, records.trials(engine, record.id), records.runs(engine, record.id)
            )
            rows.append(
                {
                    "name": short.name,
                    "state": short.state,
                    "trials": short.trials,
                    "budget": study.planned(record.spec),
                    "metric": short.metric,
                    "best": short.best.value if short.best else None,
                    "created": short.created,
                }
            )
    if as_json:
        print_json(rows)
    elif rows:
        table(
            "studies",
            ["name", "state", "ended", "failed", "metric", "best", "created"],
            [_listed(row) for row in rows],
        )
    else:
        say("no studies yet; make one with: cubeopt study create studies/quickstart.yaml")


def _listed(row: dict[str, Any]) -> list[Any]:
    trials = row["trials"]
    ended = trials["complete"] + trials["pruned"] + trials["failed"]
    return [
        *(row["name"], row["state"], f"{ended} of {cell(row['budget'])}", trials["failed"]),
        *(row["metric"], row["best"], row["created"][:16].replace("T", " ")),
    ]


@app.command(epilog="\b\nExample: cubeopt study show quickstart")
def show(name: Name, storage: Storage = None, as_json: Json = False) -> None:
    """The trials of a study, and its best run beside the baselines."""
    from cubeopt.report import summary

    found = _load(name, storage)
    short = summary.summarize(found.study, found.trials, found.runs, found.attempts)
    if as_json:
        rows = summary.trial_rows(found.trials, found.runs, found.attempts)
        print_json({**short.as_json(), "budgets": _budgets(found), "runs": rows})
        return
    _print_trials(found, short)
    _print_best(short)
    for warning in short.warnings:
        say(f"warning: {warning}")


@app.command(
    short_help="Write the best run's configuration as YAML.",
    epilog="\b\nExample: cubeopt study export quickstart -o best.yaml",
)
def export(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The file; else exports/NAME.yaml in the storage.",
        ),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write the best run's configuration as YAML, which `cubeopt train` trains again."""
    from cubeopt.report import winner
    from cubeopt.search import configuration

    found = _load(name, storage)
    content = winner.exported(found)
    path = output or settings.load(storage).exports_dir / f"{name}.yaml"
    header = (
        f"The best run of study {name}, as exported by cubeopt.\n"
        f"Train it again, from nothing, to the same value on the same kind of machine:\n"
        f"  cubeopt train --config {path.name} --experiment-name {name}-again --cpu"
    )
    configuration.write(content, path, header)
    origin = content[configuration.PROVENANCE_SECTION]
    row = {
        "file": str(path.resolve()),
        **{key: origin[key] for key in ("trial", "metric", "value", "test_value", "epochs")},
    }
    facts(row, as_json)


@app.command(
    short_help="Draw a study as a page (HTML) and a picture (PNG).",
    epilog="\b\nExample: cubeopt study figure quickstart",
)
def figure(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="The folder; else reports/ in the storage."
        ),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Draw the study: learning curves, rungs, baselines; as a page (HTML) and a picture (PNG)."""
    from cubeopt.report import figures, summary
    from cubeopt.report.picture import picture

    found = _load(name, storage)
    short = summary.summarize(found.study, found.trials, found.runs, found.attempts)
    shown = picture(
        short,
        summary.trial_rows(found.trials, found.runs, found.attempts),
        summary.curves(found.runs, found.epochs),
    )
    folder = output or settings.load(storage).reports_dir
    html, png = folder / f"{name}.html", folder / f"{name}.png"
    figures.write_html(shown, html)
    figures.write_png(shown, png)
    facts({"html": str(html.resolve()), "png": str(png.resolve())}, as_json)


@app.command(
    short_help="Hold a study; its runs are given back and wait.",
    epilog="\b\nExample: cubeopt study pause cube8",
)
def pause(name: Name, storage: Storage = None) -> None:
    """Hold a study: workers give its runs back within seconds; `resume` goes on from there."""
    _steer(name, "pause", storage)


@app.command(
    short_help="Let a paused, stopped or failed study go on.",
    epilog="\b\nExample: cubeopt study resume cube8",
)
def resume(name: Name, storage: Storage = None) -> None:
    """Let a paused, stopped or failed study go on where it was."""
    _steer(name, "resume", storage)


@app.command(
    short_help="End a study before its budget is spent.",
    epilog="\b\nExample: cubeopt study stop cube8",
)
def stop(name: Name, storage: Storage = None) -> None:
    """End a study before its budget is spent; its results stay, workers give its runs back."""
    _steer(name, "stop", storage)


@app.command(
    short_help="Remove a study, its rows and its checkpoints.",
    epilog="\b\nExample: cubeopt study delete cube8 --yes",
)
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Remove a study for good: rows here and in Optuna's tables, checkpoints. Says what it was."""
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(f"deleting {name!r} cannot be undone; confirm it with --yes")
        if not typer.confirm(f"delete study {name}, its rows and its checkpoints?"):
            say("nothing was deleted")
            raise typer.Exit(1)
    loaded = settings.load(storage)
    with connected(loaded) as engine:
        from cubeopt.service import studies

        facts(studies.delete(engine, loaded, name), as_json)


def _steer(name: str, order: str, storage: str | None) -> None:
    from cubeopt.db import orders, records

    with connected(settings.load(storage)) as engine:
        moved = orders.steer(engine, name, orders.Order(order))
        state = records.study(engine, name).state
    say(f"study {name} is {state}" + ("" if moved else " already"))


def _load(name: str, storage: str | None) -> "Records":
    from cubeopt.report import summary

    with connected(settings.load(storage)) as engine:
        return summary.load(engine, name)


def _print_trials(found: "Records", short: "Summary") -> None:
    from cubeopt.report import summary

    say(f"study {short.name}: {short.state}" + _because(short.state_reason))
    data = short.dataset
    say(
        f"dataset {data['name']} ({data['fingerprint'][:12]}): {data['train_rows']} train, "
        f"{data['validation_rows']} validation, {data['test_rows']} test rows"
    )
    for each in found.budgets:
        say(str(each))
    rows = summary.trial_rows(found.trials, found.runs, found.attempts)
    if not rows:
        say("no trials yet; start a worker with: cubeopt worker --gpu 0   (or --cpu)")
        return
    titles = {"number": "trial", "kind": "run", "state": "state", "epoch": "epoch"}
    titles["value"] = short.metric
    if any(row["replicate"] for row in rows):
        titles["replicate"] = "replicate"
    if any(row["attempts"] > 1 for row in rows):
        titles["attempts"] = "attempts"
    searched = _in_order({name for trial in found.trials for name in trial.params})
    counted = ", ".join(f"{count} {state}" for state, count in short.trials.items() if count)
    table(
        f"trials: {counted}",
        [*titles.values(), *searched],
        [[row.get(key) for key in (*titles, *searched)] for row in rows],
        expendable=len(searched),
    )


def _budgets(found: "Records") -> list[dict[str, Any]]:
    return [
        {"name": each.name, "limit": each.limit, "used": each.used, "left": each.left}
        for each in found.budgets
    ]


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _print_best(short: "Summary") -> None:
    """The winner beside the baselines, on the same validation split."""
    rows: list[list[Any]] = []
    best, baselines = short.best, short.baselines
    if best is not None:
        label = f"best: trial {best.trial}, {best.kind} run of {best.epochs} epochs"
        if best.seeds > 1:
            label += f", mean of {best.seeds} seeds"
        rows.append([label, best.value, best.test_value])
    names = {
        "mean": "predict the mean",
        "identity": "copy the input",
        "pca": f"PCA to {baselines['pca_width']} numbers",
    }
    rows += [[label, baselines[key], None] for key, label in names.items()]
    arrow = "lower" if short.direction == "minimize" else "higher"
    table(
        f"{short.metric} ({arrow} is better)",
        ["", "validation", "test"],
        [row for row in rows if row[1] is not None],
    )
    if any(each.seeds > 1 for each in short.replicates):
        table(
            "promoted trials over their seeds",
            ["trial", "seeds", "complete", "mean", "spread", "test", "not in the mean"],
            [
                [
                    *(each.trial, each.seeds, each.complete, each.value, each.spread),
                    *(each.test_value, each.missing or None),
                ]
                for each in short.replicates
            ],
        )
    if best is not None:
        values = [f"{name} {cell(best.params[name])}" for name in _in_order(best.params)]
        say(f"the best trial's values: {', '.join(values)}")
    told = short.short_and_full
    if told.spearman is not None:
        pairs = f"{told.pairs} trials"
        say(f"rank correlation of short and full runs: {told.spearman:.2f} over {pairs}")


def _in_order(names: Iterable[str]) -> list[str]:
    """*names* as configurations order them; the database does not keep the order of a file."""
    from cubeopt.trial import TrialSpec

    known = list(TrialSpec().flat())
    return sorted(names, key=known.index)
