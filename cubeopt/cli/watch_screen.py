"""A study at a glance as lines of text: for a terminal of any size, or a line for each change."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cubeopt.cli.panes import Pane, Pen, clock, column, fitted, grid, table, wrapped
from cubeopt.cli.printing import cell, number

if TYPE_CHECKING:
    from cubeopt.report.glance import Glance, Happened
    from cubeopt.report.ranking import Best

_STYLES = {
    "running": "cyan",
    "paused": "yellow",
    "complete": "green",
    "stopped": "yellow",
    "failed": "bold red",
    "waiting": "",
    "pruned": "",
}
_WORDS = {
    "started": "starts",
    "done": "complete",
    "preempted": "given back",
    "lost": "lost",
    "out_of_memory": "out of memory",
}
_BAR_WIDTH = 24
_UNITS = {"hours": "hours", "device_hours": "device-hours"}


def screen(
    shown: "Glance", size: tuple[int, int | None], pen: Pen, trouble: str | None = None
) -> list[Text]:
    """All of it as lines for a terminal of *size* (columns, rows or None: no end)."""
    return fitted(_title(shown, trouble), _panes(shown, pen, column(size)), size, pen)


def summary_line(shown: "Glance") -> str:
    """How a study stands, in a line."""
    trials = ", ".join(f"{count} {state}" for state, count in shown.trials.items() if count)
    best = shown.best
    result = f"; best trial {best.trial}, {shown.metric} {number(best.value)}" if best else ""
    because = f" ({cell(shown.reason)})" if shown.reason else ""
    return f"study {shown.study}: {shown.state}{because}; {trials or 'no trials yet'}{result}"


def changes(before: "Glance", now: "Glance") -> list[str]:
    """What is new since *before*, a line each, the oldest first."""
    known = {each.key for each in before.events}
    lines = [
        f"{_moment(each.at, now.at)} {event_line(each, now.metric)}"
        for each in now.events
        if each.key not in known
    ]
    found = f"{_moment(now.at, now.at)} "
    if now.best is not None and (before.best is None or _result(before.best) != _result(now.best)):
        lines.append(f"{found}new best: {_run(now.best)}, {now.metric} {number(now.best.value)}")
    for said in now.warnings:
        if said not in before.warnings:
            lines.append(f"{found}warning: {cell(said)}")
    were, are = ({each.name: each.state for each in glance.workers} for glance in (before, now))
    lines += [
        f"{found}worker {cell(name)} is silent"
        for name, state in are.items()
        if state == "silent" != were.get(name)
    ]
    if (before.state, before.reason) != (now.state, now.reason):
        because = f" ({cell(now.reason)})" if now.reason else ""
        lines.append(f"{found}the study is {now.state}{because}")
    return lines


def fingerprint(shown: "Glance") -> tuple[Any, ...]:
    """Equal for two looks between which nothing happened but that time passed."""
    return (
        *(shown.study, shown.state, shown.reason, shown.trials, shown.queue, shown.rungs),
        *(shown.best, shown.promotions, shown.warnings, [each.key for each in shown.events]),
        [(run.trial, run.kind, run.replicate, run.epoch, run.worker) for run in shown.running],
        [(each.name, each.state, each.runs, each.other_runs) for each in shown.workers],
        *(shown.other_workers, [each["limit"] for each in shown.budgets]),
    )


def event_line(event: "Happened", metric: str) -> str:
    """ "trial 12 pruned at epoch 2/5, fvu 0.51"."""
    seed = f", replicate {event.replicate}" if event.replicate else ""
    what = _WORDS.get(event.what, event.what)
    of = "full run of " if event.kind == "full" and event.what != "promoted" else ""
    where = f" at epoch {event.epoch}/{event.target_epochs}" if event.epoch else ""
    if event.what == "promoted":
        where = f" to {event.target_epochs} epochs"
    value = "" if event.value is None else f", {metric} {number(event.value)}"
    by = f" on {cell(event.worker)}" if event.worker and event.what in ("started", "lost") else ""
    detail = f": {cell(event.detail)}" if event.detail else ""
    return f"{of}trial {event.trial}{seed} {what}{where}{value}{by}{detail}"


def _title(shown: "Glance", trouble: str | None) -> list[Text]:
    line = Text.assemble(
        ("study ", "bold"),
        (cell(shown.study), "bold"),
        "  ",
        (shown.state, _STYLES[shown.state]),
        (f"  {_local(shown.at):%H:%M:%S}", "dim"),
    )
    lines = [line]
    if shown.reason:
        line.append(f"  {cell(shown.reason)}")
    if trouble:
        lines.append(Text(cell(trouble), "bold red"))
    return lines


def _panes(shown: "Glance", pen: Pen, width: int) -> list[Pane]:
    return [
        Pane("trials", _trials(shown), 100),
        Pane("budgets", _budgets(shown, pen), 95, least=5),
        Pane("rungs", _rungs(shown), 65, least=99),
        Pane("best", _best(shown), 80, least=3),
        Pane("baselines", _baselines(shown), 78),
        Pane("promotions", _promotions(shown), 40, least=3),
        Pane("rank correlation", _agreement(shown), 35),
        Pane("warnings", _warnings(shown, width), 75, side=1),
        Pane("running trials", _running(shown), 70, least=3, side=1),
        Pane("workers", _workers(shown), 50, least=3, side=1),
        Pane("events", _events(shown), 60, least=3, side=1),
    ]


def _trials(shown: "Glance") -> list[Text]:
    line = Text.assemble(("trials  ", "bold"))
    for state, count in shown.trials.items():
        if count:
            line.append(f"{count} {state}  ", _STYLES[state])
    if not any(shown.trials.values()):
        line.append("none yet  ", "dim")
    waits = [f"{count} {kind}" for kind, count in shown.queue.items()]
    line.append(f"queue: {', '.join(waits)}")
    return [line]


def _budgets(shown: "Glance", pen: Pen) -> list[Text]:
    ended = sum(shown.trials[state] for state in ("complete", "pruned", "failed"))
    rows: list[list[Any]] = []
    for each in shown.budgets:
        name, used, limit = each["name"], each["used"], each["limit"]
        said = f"{number(float(used))} of {number(float(limit))} {_UNITS.get(name, name)}"
        if name == "trials":
            said, used = f"{ended} of {limit:.0f} trials ended, {used:.0f} asked for", ended
        elif name == "epochs":
            said = f"{used:.0f} of {limit:.0f} epochs"
        share = f"{100.0 * used / limit:.0f}%"
        title = "" if rows else Text("budget", "bold")
        rows.append([title, pen.bar(used / limit, _BAR_WIDTH), share, said])
    lines = grid(rows, left=(0, 1, 3), indent=0)
    return [*lines, *_left(shown)]


def _left(shown: "Glance") -> list[Text]:
    found = shown.outlook
    if found is None:
        return []
    pace = "" if found.epochs_per_minute is None else f"{found.epochs_per_minute:.3g} epochs/min"
    line = Text.assemble(("left    ", "bold"))
    if found.seconds is None:
        said = [pace, f"time left unknown: {found.why_not}"]
    else:
        to_go = "" if found.epochs is None else f"some {found.epochs:.0f} epochs to go"
        said = [f"about {clock(found.seconds)} by the budget of {found.ends}", pace, to_go]
    line.append("; ".join(part for part in said if part))
    return [line]


def _rungs(shown: "Glance") -> list[Text]:
    header = ["rungs", "arrived", "stayed", "cut", "still here", "ended otherwise"]
    rows = [
        [f"  epoch {each.epoch}", each.arrived, each.stayed, each.cut, each.here, each.otherwise]
        for each in shown.rungs
    ]
    return table(header, rows)


def _best(shown: "Glance") -> list[Text]:
    if not shown.top:
        return [Text.assemble(("best  ", "bold"), ("no trial has a result yet", "dim"))]
    title = "front" if shown.second else "best"
    header = [title, "run", shown.metric, *([shown.second] if shown.second else []), "test", ""]
    rows = []
    for each in shown.top:
        second = [getattr(each, "second_value", None)] if shown.second else []
        values = ", ".join(f"{name} {cell(value)}" for name, value in sorted(each.params.items()))
        kind = f"{each.kind}, {each.epochs} epochs"
        if each.seeds > 1:
            kind += f", mean of {each.seeds} seeds"
        rows.append([f"  trial {each.trial}", kind, each.value, *second, each.test_value, values])
    return table(header, rows, left=(0, 1, len(header) - 1))


def _baselines(shown: "Glance") -> list[Text]:
    found = shown.baselines
    names = {
        "mean": "predict the mean",
        "identity": "copy the input",
        "pca": f"PCA to {found.get('pca_width')} numbers",
    }
    parts = [
        f"{label} {number(found[name])}"
        for name, label in names.items()
        if found.get(name) is not None
    ]
    if not parts:
        return []
    way = "lower" if shown.direction == "minimize" else "higher"
    return [
        Text.assemble(
            ("baselines  ", "bold"), f"{shown.metric} ({way} is better): {', '.join(parts)}"
        )
    ]


def _promotions(shown: "Glance") -> list[Text]:
    order = {"running": 0, "waiting": 1}
    rows = [
        [
            *(f"  trial {each.trial}", each.seed, Text(each.state, _STYLES[each.state])),
            *(each.epochs, each.value, each.test_value),
        ]
        for each in sorted(shown.promotions, key=lambda each: order.get(each.state, 2))
    ]
    header = ["promoted", "seed", "state", "epoch", shown.metric, "test"]
    return table(header, rows, left=(0, 2))


def _agreement(shown: "Glance") -> list[Text]:
    if not shown.promotions:
        return []
    said = f"{shown.pairs} trials have both, 4 are needed"
    if shown.rank_correlation is not None:
        said = f"{shown.rank_correlation:.2f} over {shown.pairs} trials"
    return [Text.assemble(("rank correlation  ", "bold"), f"of short and full runs: {said}")]


def _warnings(shown: "Glance", width: int) -> list[Text]:
    return [line for each in shown.warnings for line in wrapped(each, width, "yellow", "warning  ")]


def _running(shown: "Glance") -> list[Text]:
    if not shown.running:
        return []
    rows = [
        [
            f"  trial {run.trial}",
            run.kind + (f", replicate {run.replicate}" if run.replicate else ""),
            f"{run.epoch}/{run.target_epochs}",
            *(run.value, run.width, run.worker, clock(run.seconds)),
        ]
        for run in shown.running
    ]
    header = [
        *(f"running ({len(rows)})", "run", "epoch", shown.metric, "pack of", "worker", "since")
    ]
    return table(header, rows, left=(0, 1, 5))


def _workers(shown: "Glance") -> list[Text]:
    if not shown.workers and not shown.other_workers:
        if shown.ended:
            return []
        how = "none lives; start one: cubeopt worker --gpu 0   (or --cpu)"
        return [Text.assemble(("workers  ", "bold"), (how, "yellow"))]
    rows = [
        [
            f"  {cell(each.name)}" + ("" if each.state == "live" else f" ({each.state})"),
            *(each.device, each.runs, each.other_runs or None),
            *(each.epochs_per_minute, each.samples_per_second),
            Text(f"{clock(each.silent_seconds)} ago", "bold red" if each.state == "silent" else ""),
        ]
        for each in shown.workers
    ]
    header = ["workers", "device", "runs", "of others", "epochs/min", "samples/s", "last beat"]
    if not shown.other_workers:
        return table(header, rows, left=(0, 1))
    several = "others train" if shown.other_workers > 1 else "other trains"
    lines = table(header, rows, left=(0, 1)) or [Text("workers", "bold")]
    return [*lines, Text(f"  {shown.other_workers} {several} other studies", "dim")]


def _events(shown: "Glance") -> list[Text]:
    told = [each for each in reversed(shown.events) if each.what != "started"]
    lines = [
        Text.assemble(
            (f"  {_moment(each.at, shown.at)}  ", "dim"),
            (event_line(each, shown.metric), _event_style(each.what)),
        )
        for each in told
    ]
    return [Text("last events", "bold"), *lines] if lines else []


def _event_style(what: str) -> str:
    if what in ("failed", "error", "out_of_memory", "lost", "diverged"):
        return "red"
    return "green" if what in ("promoted", "done") else ""


def _run(best: "Best") -> str:
    return f"trial {best.trial}, {best.kind} run of {best.epochs} epochs"


def _result(best: "Best") -> tuple[int, str, float]:
    return best.trial, best.kind, best.value


def _local(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone()


def _moment(moment: str, now: str) -> str:
    """The time of day; the date too where that is another."""
    at, today = _local(moment), _local(now)
    return f"{at:%H:%M:%S}" if at.date() == today.date() else f"{at:%m-%d %H:%M}"
