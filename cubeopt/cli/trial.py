"""`cubeopt trial`: the story of one trial, and what a person may do to it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cubeopt import settings
from cubeopt.cli.options import Json, Storage, connected
from cubeopt.cli.printing import cell, facts, print_json, say, table

if TYPE_CHECKING:
    from cubeopt.report.summary import Row

app = typer.Typer(
    help="Look at one trial of a study, retry it, end it, add one.",
    epilog="\b\nExample: cubeopt trial show quickstart 3",
    no_args_is_help=True,
)
Study = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")]
Number = Annotated[int, typer.Argument(min=0, metavar="NUMBER", help="The trial's number.")]


@app.command(
    short_help="The whole story of a trial.",
    epilog="\b\nExample: cubeopt trial show quickstart 3 --json",
)
def show(study: Study, number: Number, storage: Storage = None, as_json: Json = False) -> None:
    """The whole story of a trial: values, rungs, attempts, and why each of them ended."""
    from cubeopt.db import records
    from cubeopt.report import summary
    from cubeopt.report.story import story

    with connected(settings.load(storage)) as engine:
        told = story(summary.load(engine, study), number, records.workers(engine))
    if as_json:
        print_json(told)
        return
    say(f"trial {number} of study {study}: {told['state']}" + _because(told["reason"]))
    values = ", ".join(f"{name} {cell(value)}" for name, value in told["params"].items())
    say(f"values: {values}; seed {told['seed']}")
    nth = " replicate" if any(run["replicate"] for run in told["runs"]) else ""
    seeds = f"{nth} seed" if nth else ""
    value = "value second_value" if told["second"] else "value"
    shown = f"kind{seeds} state epoch target_epochs {value} test_value width failures"
    _print("runs", told["runs"], shown)
    _print("rungs", told["rungs"], f"epoch {value} rank of verdict")
    _print("constraints", told["constraints"], f"kind{nth} constraint value met")
    if told["attempts"]:
        shown = f"kind{nth} attempt worker device from_epoch started seconds end"
        _print("attempts", told["attempts"], shown)
    else:
        say("no attempt yet")
    for line in told["unlike"]:
        say(f"warning: {line}")
    for attempt in told["attempts"]:
        if attempt["error"]:
            say(f"{attempt['kind']} run, attempt {attempt['attempt']} ({attempt['end']}):")
            for line in attempt["error"].rstrip().splitlines():
                say(f"    {cell(line)}")


@app.command(
    short_help="Let a failed trial be tried again.",
    epilog="\b\nExample: cubeopt trial retry quickstart 3",
)
def retry(study: Study, number: Number, storage: Storage = None) -> None:
    """Let a failed trial be tried again, from its checkpoint, with all its retries."""
    from cubeopt.db import interventions, records

    with connected(settings.load(storage)) as engine:
        moved = interventions.retry(engine, study, number)
        state = records.study(engine, study).state
    say(f"trial {number} of study {study} waits" + ("" if moved else " already"))
    if state != "running":
        say(f"the study is {state}; let it go on with: cubeopt study resume {study}")


@app.command(
    short_help="End a trial that waits or runs.",
    epilog="\b\nExample: cubeopt trial prune quickstart 3",
)
def prune(study: Study, number: Number, storage: Storage = None) -> None:
    """End a trial that waits or runs; its worker lets go of it within seconds."""
    from cubeopt.db import interventions

    with connected(settings.load(storage)) as engine:
        moved = interventions.prune(engine, study, number)
    say(f"trial {number} of study {study} is pruned" + ("" if moved else " already"))


@app.command(
    short_help="Have values of your own tried next.",
    epilog="\b\nExample: cubeopt trial enqueue quickstart learning_rate=0.01 state_size=8",
)
def enqueue(
    study: Study,
    values: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE...", help="Searched values; the sampler adds the rest."),
    ],
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Have values of your own tried next, as one of the trials of the study's budget."""
    from cubeopt.search import wish

    wished = wish.read(values)
    with connected(settings.load(storage)) as engine:
        from cubeopt.service import studies

        number, params = studies.enqueue(engine, study, wished)
    facts({"study": study, "trial": number, **params}, as_json)


def _because(reason: dict[str, Any] | None) -> str:
    if not reason:
        return ""
    cause = f": {cell(reason['error'])}" if reason.get("error") else ""
    by = f" by {reason['by']}" if reason.get("by") else ""
    return f" ({reason['end'].replace('_', ' ')}{by} at epoch {reason['epoch']}{cause})"


def _print(title: str, rows: "list[Row]", names: str) -> None:
    columns = names.split()
    if rows:
        table(title, columns, [[_short(row[name]) for name in columns] for row in rows])


def _short(value: Any) -> Any:
    """A moment to the second; anything else as it is."""
    if isinstance(value, str) and len(value) > 19 and value[10:11] == "T":
        return value[:19].replace("T", " ")
    return value
