"""`cubeopt study`: create studies, look at them, steer them, take the winner out."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli import reporting, results
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import facts, print_json, say, table
from cubeopt.errors import InputError, StudyError

if TYPE_CHECKING:
    from cubeopt.db.records import StudyRecord
    from cubeopt.report.summary import Records
    from cubeopt.search.study import StudySpec

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
    source: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="STUDY", help="Its trials teach the sampler; repeatable."),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Put the study in FILE into the storage; workers start on it at once.

    With --from its sampler begins with what the trials of another study of the same data tell of
    the space of this one.
    """
    from cubeopt.search import advice, study

    spec = study.load(file, name)
    loaded = settings.load(storage)
    with connected(loaded) as engine:
        # torch is loaded only here, after the file has been found good.
        from cubeopt.service import studies

        record, made, taught = studies.create_once(engine, loaded, spec, source or [])
        if not made and not exist_ok:
            raise StudyError(
                f"a study {spec.name!r} exists already, made from an equal file; give this one "
                "another name with --name, or accept that one with --exist-ok"
            )
    row = _created(record, made, spec)
    notes = advice.notes(spec, sum(len(each.priors) for each in taught))
    if source and not made:
        notes.append(f"study {spec.name} exists: what teaches it was decided when it was made")
    if as_json:
        told = [
            {"study": each.study, "trials": len(each.priors), "left_out": each.left_out}
            for each in taught
        ]
        print_json({**row, "warm_start": told, "notes": notes})
        return
    if row["trials"] is None:
        row["trials"] = "as many as the budget has room for"
    facts(row, as_json)
    for each in taught:
        say(f"warm start: {each}")
    for note in notes:
        say(f"note: {note}")
    if made:
        say("next: cubeopt worker --gpu 0   (or --cpu)")


def _created(record: "StudyRecord", made: bool, spec: "StudySpec") -> dict[str, Any]:
    """What there is to say of a study that was just put into the storage, or found there."""
    return {
        "name": record.name,
        "created": made,
        "state": str(record.state),
        "trials": spec.trials(),
        **{name: limit for name, limit in spec.budget if name != "trials" and limit is not None},
        "metric": ", ".join(
            f"{metric} ({way})"
            for metric, way in zip(spec.objective.names, spec.objective.directions, strict=True)
        ),
        **({"constraints": ", ".join(map(str, spec.constraints))} if spec.constraints else {}),
        "dataset": record.dataset,
        "dataset_fingerprint": record.dataset_fingerprint,
    }


@app.command(
    short_help="Give a study that exists another space, budget, sampler or promotion.",
    epilog="\b\nExample: cubeopt study revise studies/cube8.yaml --name cube8-monday",
)
def revise(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Its study file, changed.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the name in the file.")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Give a study another file; search, sampler, promotion and budget may differ.

    Its trials stay. Those outside the new space teach the sampler no more, but count in all else.
    A complete study goes on if the new file leaves it something to do.
    """
    from cubeopt.search import study

    spec = study.load(file, name)
    with connected(settings.load(storage)) as engine:
        from cubeopt.service import revising

        done = revising.revise(engine, spec)
    if as_json:
        print_json(asdict(done))
        return
    if not done.changed:
        say(f"study {done.study} is like this already")
        return
    results.print_revised(done)


@app.command("list", epilog="\b\nExample: cubeopt study list --json")
def list_(storage: Storage = None, as_json: Json = False) -> None:
    """All studies, with what became of their trials."""
    from cubeopt.db import measures, records
    from cubeopt.report import summary
    from cubeopt.search import objective, study

    rows: list[dict[str, Any]] = []
    with connected(settings.load(storage)) as engine:
        for record in records.studies(engine):
            keys = objective.goal_of(record.spec).keys
            short = summary.summarize(
                record,
                records.trials(engine, record.id),
                records.runs(engine, record.id),
                measures.last(engine, record.id, keys),
            )
            rows.append(
                {
                    "name": short.name,
                    "state": short.state,
                    "trials": short.trials,
                    "budget": study.planned(record.spec),
                    "metric": short.metric,
                    "second": short.second,
                    "best": short.best.value if short.best else None,
                    "front": len(short.front) if short.second else None,
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
        *(row["name"], row["state"]),
        f"{ended} of {row['budget']}" if row["budget"] is not None else str(ended),
        trials["failed"],
        f"{row['metric']}, {row['second']}" if row["second"] else row["metric"],
        (f"a front of {row['front']}" if row["front"] else None) if row["second"] else row["best"],
        row["created"][:16].replace("T", " "),
    ]


@app.command(epilog="\b\nExample: cubeopt study show quickstart")
def show(name: Name, storage: Storage = None, as_json: Json = False) -> None:
    """The trials of a study, and its best run beside the baselines."""
    from cubeopt.report import summary

    found = _load(name, storage)
    short = summary.summarize(found.study, found.trials, found.runs, found.measured, found.attempts)
    if as_json:
        budgets, rows = results.budgets(found), results.rows(found)
        past = found.past.as_json()
        print_json({**short.as_json(), **past, "budgets": budgets, "runs": rows})
        return
    results.print_trials(found, short)
    results.print_best(short)
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
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="This trial's run, not the best.")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Write the best run's configuration as YAML, which `cubeopt train` trains again.

    Two objectives have several best runs: name one with --trial.
    """
    from cubeopt.report import winner
    from cubeopt.search import configuration

    found = _load(name, storage)
    content = winner.exported(found, trial)
    path = output or settings.load(storage).exports_dir / f"{name}.yaml"
    configuration.write(content, path, winner.heading(name, trial, path.name))
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
    short = summary.summarize(found.study, found.trials, found.runs, found.measured, found.attempts)
    shown = picture(
        short,
        results.rows(found),
        summary.curves(found.runs, found.epochs),
    )
    folder = output or settings.load(storage).reports_dir
    html, png = folder / f"{name}.html", folder / f"{name}.png"
    figures.write_html(shown, html)
    figures.write_png(shown, png)
    facts({"html": str(html.resolve()), "png": str(png.resolve())}, as_json)


reporting.add_to(app)


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
