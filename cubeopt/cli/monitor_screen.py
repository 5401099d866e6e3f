"""A training as lines of text: for a terminal of any size, or a line for each epoch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cubeopt.cli.panes import Pane, Pen, clock, column, fitted, table, wrapped
from cubeopt.cli.printing import cell, number

if TYPE_CHECKING:
    from cubeopt.report.journal import Training
    from cubeopt.training.diagnosis import Finding

Values = Sequence[float | None]
_STYLES = {"training": "cyan", "silent": "bold yellow", "ended": "green", "diverged": "bold red"}
_BAR_WIDTH = 24
_GOOD = "converged"  # the one finding that is no warning
_JUDGED = ("fvu", "cosine", "top1", "mrr", "effective_rank", "specialisation", "gate_entropy")
_BASELINES = {"mean": "predict the mean", "identity": "copy the input", "ridge": "ridge regression"}
_COURSE = {  # label, and by what to divide
    "learning_rate": ("learning rate", 1.0),
    "samples_per_second": ("samples/s", 1.0),
    "epoch_seconds": ("seconds an epoch", 1.0),
    "peak_memory_bytes": ("peak memory, GB", 1e9),
    "device_utilisation": ("device busy, %", 1.0),
}


def screen(shown: "Training", size: tuple[int, int | None], pen: Pen) -> list[Text]:
    """All of it as lines for a terminal of *size* (columns, rows or None: no end)."""
    return fitted(_title(shown), _panes(shown, pen, column(size)), size, pen)


def summary_line(shown: "Training") -> str:
    """How a training stands, in a line."""
    of = "" if shown.target_epochs is None else f" of {shown.target_epochs}"
    value = "" if shown.value is None else f", {shown.metric} {number(shown.value)}"
    return f"training {shown.name}: {shown.state}, epoch {shown.epoch}{of}{value}"


def changes(before: "Training", now: "Training") -> list[str]:
    """What is new since *before*, a line each."""
    lines = []
    if now.epochs[: len(before.epochs)] != before.epochs:
        lines.append(f"the log was rewritten: it goes on after epoch {now.epoch}")
    first = before.epoch if now.epoch >= before.epoch else now.epoch
    lines += [_epoch_line(now, place) for place, epoch in enumerate(now.epochs) if epoch > first]
    known = {(each.kind, each.subject) for each in before.findings}
    lines += [_finding(each) for each in now.findings if (each.kind, each.subject) not in known]
    if now.state != before.state:
        lines.append(_how(now))
    return lines


def fingerprint(shown: "Training") -> tuple[Any, ...]:
    """Equal for two looks between which nothing was written."""
    return shown.state, shown.epochs, shown.checkpoint, shown.metrics.get("epoch_seconds")


def _epoch_line(shown: "Training", place: int) -> str:
    names = (
        *("train/loss/total", f"validation/{shown.metric}", "validation/cosine"),
        *("train/gradient_norm/all", "learning_rate", "samples_per_second"),
    )
    parts = [
        f"{name.rpartition('/')[2].replace('all', 'gradient')} {number(value)}"
        for name in dict.fromkeys(names)
        if (value := _at(shown, name, place)) is not None
    ]
    usage = [
        f"{name} {value:.1f}%"
        for name, values in shown.named("validation/usage/").items()
        if (value := values[place]) is not None
    ]
    return f"epoch {shown.epochs[place]}: {'  '.join([*parts, *usage])}"


def _at(shown: "Training", name: str, place: int) -> float | None:
    values = shown.metrics.get(name)
    return None if values is None else values[place]


def _how(shown: "Training") -> str:
    """What the state means for who watches."""
    if shown.state == "ended":
        tested = (shown.result or {}).get("metrics", {}).get(f"test/{shown.metric}")
        test = "" if tested is None else f"; test {shown.metric} {number(tested)}"
        return f"the training has ended{test}"
    if shown.state == "diverged":
        return "the training has diverged and ended: a number is NaN or infinite"
    if shown.state == "silent":
        took = (
            "" if shown.epoch_seconds is None else f"; an epoch took {clock(shown.epoch_seconds)}"
        )
        return (
            f"nothing was written for {clock(shown.silent_seconds or 0.0)}{took}: it may have "
            "stopped (cubeopt train ... --resume goes on)"
        )
    return "the training goes on"


def _title(shown: "Training") -> list[Text]:
    line = Text.assemble(
        ("training ", "bold"),
        (cell(shown.name), "bold"),
        "  ",
        (str(shown.state), _STYLES[shown.state]),
    )
    if shown.state == "training" and shown.epoch == 0:
        line.append("  no epoch has ended yet")
    lines = [line]
    if shown.state != "training":
        lines.append(Text(_how(shown), _STYLES[shown.state]))
    return lines


def _panes(shown: "Training", pen: Pen, width: int) -> list[Pane]:
    cells = max(6, min(40, width - 60))  # of a course

    def courses(header: Sequence[str], rows: Mapping[str, Values]) -> list[Text]:
        """A line for each: its course, its last, its least and its greatest value."""
        found = [
            [f"  {name}", Text(pen.spark(values, cells), "cyan"), *_ends(values)]
            for name, values in rows.items()
            if any(value is not None for value in values)
        ]
        return table([*header, "course", "last", "least", "most"], found, left=(0, 1))

    course = {
        label: [None if v is None else v / unit for v in shown.metrics[name]]
        for name, (label, unit) in _COURSE.items()
        if name in shown.metrics
    }
    return [
        Pane("progress", _progress(shown, pen), 100, least=2),
        Pane("findings", _findings(shown.findings, width), 95, least=2),
        Pane("losses", _losses(shown, pen, cells), 90, least=4),
        Pane("validation", courses(["validation"], _validation(shown)), 85, least=3),
        Pane("gate usage", _usage(shown, pen, cells), 80, least=4, side=1),
        Pane("speed and memory", courses(["pace"], course), 70, least=3, side=1),
        Pane("baselines", _compared(shown), 75, least=3, side=1),
        Pane(
            "gradient norms",
            courses(["gradient norms"], shown.named("train/gradient_norm/")),
            60,
            least=3,
            side=1,
        ),
    ]


def _progress(shown: "Training", pen: Pen) -> list[Text]:
    line = Text.assemble(("epoch  ", "bold"))
    if shown.target_epochs:
        line.append_text(pen.bar(shown.epoch / shown.target_epochs, _BAR_WIDTH))
        line.append(f"  {shown.epoch} of {shown.target_epochs}")
    else:
        line.append(str(shown.epoch))
    if shown.seconds_left is not None:
        line.append(f"  about {clock(shown.seconds_left)} left")
    if shown.checkpoint is not None:
        line.append(f"  checkpoint {shown.checkpoint}", "dim")
    if shown.best is None or shown.value is None:
        return [line]
    best = Text.assemble(
        (f"{shown.metric}  ", "bold"),
        f"{number(shown.value)} on validation, best {number(shown.best)} in epoch ",
        str(shown.best_epoch),
    )
    return [line, best]


def _findings(findings: Sequence["Finding"], width: int) -> list[Text]:
    return [
        line
        for each in reversed(findings)
        for line in wrapped(
            _finding(each), width, "green" if each.kind == _GOOD else "yellow", "found  "
        )
    ]


def _finding(finding: "Finding") -> str:
    epochs = f"epoch {finding.first}"
    if finding.last > finding.first:
        epochs = f"epochs {finding.first} to {finding.last}"
    return f"{epochs}: {f'{finding.kind} {finding.subject}'.rstrip()}: {finding.sentence}"


def _losses(shown: "Training", pen: Pen, cells: int) -> list[Text]:
    """Each term of the training's loss as it is and as it counts, and that of the validation."""
    terms = shown.named("train/loss/")
    rows = [
        [
            f"  {term}",
            Text(pen.spark(values, cells), "cyan"),
            shown.last(f"train/loss/{term}"),
            shown.last(f"train/weight/{term}"),
            shown.last(f"train/weighted/{term}"),
            shown.last(f"validation/loss/{term}"),
        ]
        for term, values in terms.items()
        if any(values) or term == "total"
    ]
    header = ["losses", "course", "loss", "weight", "weighted", "validation"]
    return table(header, rows, left=(0, 1))


def _validation(shown: "Training") -> dict[str, Values]:
    """The metrics of the validation; those of each task after that of all."""
    found = shown.named("validation/")
    return {
        name: found[name]
        for first in _JUDGED
        for name in found
        if name == first or name.startswith(f"{first}/")
    }


def _usage(shown: "Training", pen: Pen, cells: int) -> list[Text]:
    """Which share of the choices each expert has, in percent, from 0 to 100."""
    rows = []
    for name, values in shown.named("validation/usage/").items():
        last = shown.last(f"validation/usage/{name}")
        if last is not None:
            bar = pen.bar(last / 100.0, 12, "green" if last >= 1.0 else "bold red")
            rows.append([f"  {name}", Text(pen.spark(values, cells), "cyan"), bar, f"{last:.1f}%"])
    return table(["gate usage", "course", "now", ""], rows, left=(0, 1, 2))


def _compared(shown: "Training") -> list[Text]:
    """The result beside the baselines on the same rows, as result.json has them."""
    if shown.result is None:
        return []
    metrics = list(dict.fromkeys((shown.metric, "fvu", "cosine")))
    scores = {shown.name: {s: _own(shown.result, s) for s in ("validation", "test")}}
    for each in shown.result.get("baselines", []):
        label = _BASELINES.get(each["name"], f"PCA to {each.get('width')} numbers")
        scores[label] = {split: each.get(split, {}) for split in ("validation", "test")}
    rows = [
        [f"  {label}", *(splits[s].get(m) for m in metrics for s in ("validation", "test"))]
        for label, splits in scores.items()
    ]
    header = [f"{metric}, {split}" for metric in metrics for split in ("val.", "test")]
    return table(["beside baselines", *header], rows)


def _own(result: Mapping[str, Any], split: str) -> dict[str, Any]:
    prefix = f"{split}/"
    return {
        name.removeprefix(prefix): value
        for name, value in result.get("metrics", {}).items()
        if name.startswith(prefix)
    }


def _ends(values: Values) -> tuple[float | None, float | None, float | None]:
    known = [value for value in values if value is not None]
    return values[-1] if values[-1] is not None else known[-1], min(known), max(known)
