"""`cubeopt study`: create studies, look at them, take the winner out."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage
from cubeopt.cli.printing import facts, print_json, say, table

if TYPE_CHECKING:
    from cubeopt.report.summary import Records, Summary

app = typer.Typer(
    help="Create studies, look at them, take the winner out.",
    epilog="Example: cubeopt study create studies/quickstart.yaml",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")]


@app.command(epilog="Example: cubeopt study create studies/cube8.yaml --name cube8-monday")
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study file (YAML).")],
    name: Annotated[str | None, typer.Option(help="Instead of the name in the file.")] = None,
    exist_ok: Annotated[
        bool, typer.Option("--exist-ok", help="Fine if it exists, made from the same file.")
    ] = False,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Put the study in FILE into the storage; workers start on it at once."""
    from cubeopt.db import engine
    from cubeopt.search import study

    spec = study.load(file, name)
    loaded = settings.load(storage)
    connected = engine.connect(loaded)
    # torch is loaded only here, after the file has been found good.
    from cubeopt.service import studies

    record = studies.existing(connected, spec) if exist_ok else None
    made = record is None
    if record is None:
        record = studies.create(connected, loaded, spec)
    row = {
        "name": record.name,
        "created": made,
        "state": str(record.state),
        "trials": spec.budget.trials,
        "metric": f"{record.metric} ({record.direction})",
        "dataset": record.dataset,
        "dataset_fingerprint": record.dataset_fingerprint,
    }
    facts(row, as_json)
    if not as_json and made:
        say("next: cubeopt worker --gpu 0   (or --cpu)")


@app.command("list", epilog="Example: cubeopt study list --json")
def list_(storage: Storage = None, as_json: Json = False) -> None:
    """All studies, with what became of their trials."""
    from cubeopt.db import engine, records
    from cubeopt.report import summary

    connected = engine.connect(settings.load(storage))
    rows: list[dict[str, Any]] = []
    for record in records.studies(connected):
        short = summary.summarize(
            record, records.trials(connected, record.id), records.runs(connected, record.id)
        )
        rows.append(
            {
                "name": short.name,
                "state": short.state,
                "trials": short.trials,
                "metric": short.metric,
                "best": short.best.value if short.best else None,
                "created": short.created,
            }
        )
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("no studies yet; make one with: cubeopt study create studies/quickstart.yaml")
        return
    columns = ["name", "state", *rows[0]["trials"], "metric", "best", "created"]
    table(
        "studies",
        columns,
        [
            [
                *(row["name"], row["state"], *row["trials"].values(), row["metric"]),
                *(row["best"], row["created"][:16].replace("T", " ")),
            ]
            for row in rows
        ],
    )


@app.command(epilog="Example: cubeopt study show quickstart")
def show(name: Name, storage: Storage = None, as_json: Json = False) -> None:
    """The trials of a study, and its best run beside the baselines."""
    from cubeopt.report import summary

    found = _load(name, storage)
    short = summary.summarize(found.study, found.trials, found.runs)
    if as_json:
        rows = summary.trial_rows(found.trials, found.runs, found.attempts)
        print_json({**short.as_json(), "runs": rows})
        return
    _print_trials(found, short)
    _print_best(short)
    for warning in short.warnings:
        say(f"warning: {warning}")


@app.command(epilog="Example: cubeopt study export quickstart -o best.yaml")
def export(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The file; else exports/NAME.yaml in the storage."),
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


@app.command(epilog="Example: cubeopt study figure quickstart")
def figure(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The folder; else reports/ in the storage."),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Draw the study: learning curves, rungs, baselines; as a page (HTML) and a picture (PNG)."""
    from cubeopt.report import figures, summary
    from cubeopt.report.picture import picture

    found = _load(name, storage)
    short = summary.summarize(found.study, found.trials, found.runs)
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


def _load(name: str, storage: str | None) -> "Records":
    from cubeopt.db import engine
    from cubeopt.report import summary

    connected = engine.connect(settings.load(storage))
    found = summary.load(connected, name)
    connected.dispose()
    return found


def _print_trials(found: "Records", short: "Summary") -> None:
    from cubeopt.report import summary

    counted = ", ".join(f"{count} {state}" for state, count in short.trials.items() if count)
    say(f"study {short.name}: {short.state}" + _because(short.state_reason))
    rows_of = short.dataset
    say(
        f"dataset {rows_of['name']} ({rows_of['fingerprint'][:12]}): "
        f"{rows_of['train_rows']} train, {rows_of['validation_rows']} validation, {rows_of['test_rows']} test rows"
    )
    rows = summary.trial_rows(found.trials, found.runs, found.attempts)
    if not rows:
        say("no trials yet; start a worker with: cubeopt worker --gpu 0   (or --cpu)")
        return
    hidden = {"test_value"}
    columns = [key for key in rows[0] if key not in hidden]
    titles = {"number": "trial", "value": short.metric}
    table(
        f"trials: {counted}",
        [titles.get(key, key) for key in columns],
        [[row.get(key) for key in columns] for row in rows],
    )


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _print_best(short: "Summary") -> None:
    """The winner beside the baselines, on the same validation split."""
    rows: list[list[Any]] = []
    if short.best is not None:
        best = asdict(short.best)
        label = f"trial {best['trial']}, {best['kind']} run of {best['epochs']} epochs"
        rows.append([f"best: {label}", best["value"], best["test_value"]])
    names = {
        "mean": "predict the mean",
        "identity": "copy the input",
        "pca": f"PCA-{short.baselines['pca_width']}",
    }
    rows += [
        [label, short.baselines[key], None]
        for key, label in names.items()
        if short.baselines[key] is not None
    ]
    arrow = "lower" if short.direction == "minimize" else "higher"
    table(
        f"{short.metric} ({arrow} is better)",
        ["", "validation", "test"],
        rows,
    )
