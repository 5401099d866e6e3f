"""What is shown of a study in its one picture, decided once for all who paint it."""

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cubeopt.db.tables import StudyState
from cubeopt.report import baselines, pareto
from cubeopt.report.labels import Star, apart
from cubeopt.report.pareto import Across
from cubeopt.report.replicates import Replicates
from cubeopt.report.stroke import AXES, STYLES, Stroke, Style, limits_of, within
from cubeopt.report.summary import Row, Summary

_OF_A_ROW = frozenset(
    {
        *("number", "state", "kind", "replicate", "epoch", "value", "test_value", "attempts"),
        *("second_value", "feasible"),
    }
)


@dataclass(frozen=True)
class Level:
    """A baseline."""

    label: str
    value: float
    above: bool  # whether its label stands above its line


@dataclass(frozen=True)
class Picture:
    """All that the two painters paint."""

    title: str
    subtitle: str
    axis: str
    curves: list[Stroke]
    results: list[Stroke]
    levels: list[Level]
    rungs: list[int]
    stars: list[Star]
    last_epoch: int
    last_trial: int
    epoch_ticks: list[int]
    trial_ticks: list[int]
    logarithmic: bool
    limits: tuple[float, float]
    empty: str | None  # the sentence that stands there instead of curves
    across: Across | None = None  # with two objectives

    @property
    def epoch_range(self) -> tuple[float, float]:
        if self.logarithmic:
            return 0.92, self.last_epoch * 1.08
        return 0.5, self.last_epoch + 0.5

    @property
    def trial_range(self) -> tuple[float, float]:
        margin = 0.5 + 0.02 * self.last_trial
        return -margin, self.last_trial + margin

    @property
    def result_range(self) -> tuple[float, float]:
        return self.across.limits if self.across else self.trial_range

    @property
    def result_label(self) -> str:
        if self.across is None:
            return "trial"
        return self.across.label + (" (logarithmic)" if self.across.logarithmic else "")

    @property
    def result_title(self) -> str:
        if self.across is None:
            return "Result of each trial at its last epoch"
        return "Both objectives of each trial at its last epoch"

    @property
    def epoch_label(self) -> str:
        return "epoch (logarithmic)" if self.logarithmic else "epoch"


def picture(summary: Summary, rows: Sequence[Row], curves: Sequence[Row]) -> Picture:
    """What is shown of a study: *rows* of `trial_rows`, *curves* of `curves`."""
    values = [row["value"] for row in curves]
    levels = baselines.levels(summary)
    low, high = limits_of(values, [value for _, value in levels])
    outside = sum(not low <= value <= high for value in values)
    results = _result_strokes(summary, rows, (low, high))
    last_trial = max([row["number"] for row in rows], default=0)
    last_epoch = max([row["epoch"] for row in curves] + summary.rungs)
    logarithmic = last_epoch >= 4 * summary.rungs[-1]
    across = pareto.across(summary, rows, (low, high))
    return Picture(
        title=_title(summary),
        subtitle=_subtitle(summary, outside),
        axis=AXES.get(summary.metric, summary.metric),
        curves=_curve_strokes(summary, curves, {stroke.style: stroke.label for stroke in results}),
        results=results,
        levels=_placed(levels, high - low, _right_end(curves, last_epoch)),
        rungs=summary.rungs,
        stars=_stars(summary, rows, (low, high), across),
        last_epoch=last_epoch,
        last_trial=last_trial,
        epoch_ticks=_epoch_ticks(summary.rungs, last_epoch, logarithmic),
        trial_ticks=_even_ticks(0, last_trial),
        logarithmic=logarithmic,
        limits=(low, high),
        empty=None if curves else _nothing_yet(summary),
        across=across,
    )


def _title(summary: Summary) -> str:
    said = f"{summary.metric} on the validation split, {_way(summary.direction)} is better"
    if summary.second is not None:
        said += f", and {summary.second}, {_way(str(summary.second_direction))} is better"
    return f"Study {summary.name}: {said}"


def _way(direction: str) -> str:
    return "lower" if direction == "minimize" else "higher"


def _subtitle(summary: Summary, outside: int) -> str:
    states = ", ".join(f"{some} {state}" for state, some in summary.trials.items() if some)
    count = sum(summary.trials.values())
    parts = [f"{count} trial{'' if count == 1 else 's'}: {states}" if count else "no trials yet"]
    if best := summary.best:
        test = f", test split {best.test_value:.4f}" if best.test_value is not None else ""
        mean = "" if best.seeds == 1 else f"mean of {best.seeds} seeds, "
        parts.append(
            f"best: trial {best.trial}, {best.kind} run of {best.epochs} epochs, {mean}"
            f"{summary.metric} {best.value:.4f}{test}"
        )
    if summary.second is not None:
        count = len(summary.front)
        parts.append(
            f"front of {summary.metric} and {summary.second}: "
            f"{count} run{'' if count == 1 else 's'}"
        )
    if outside:
        parts.append(
            f"{outside} {'value lies' if outside == 1 else 'values lie'} outside the picture"
        )
    return "   |   ".join(parts)


def _nothing_yet(summary: Summary) -> str:
    if sum(summary.trials.values()) == 0:
        return f"There is nothing yet. Start a worker: cubeopt worker --study {summary.name}"
    return (
        "No trial has finished an epoch yet. If none is running, start a worker: "
        f"cubeopt worker --study {summary.name}"
    )


def _right_end(curves: Sequence[Row], last_epoch: int) -> list[float]:
    """The values of the curves where the labels of the baselines stand."""
    return [row["value"] for row in curves if row["epoch"] > last_epoch / 3]


def _placed(
    levels: Sequence[tuple[str, float]], span: float, nearby: Sequence[float]
) -> list[Level]:
    """Labels above their lines, but below where the next line or the curves are too near."""
    by_value = sorted(levels, key=lambda level: level[1])
    higher = [*(value for _, value in by_value), math.inf][1:]
    placed = []
    for (label, value), above in zip(by_value, higher, strict=True):
        over = sum(0 <= each - value < 0.06 * span for each in nearby)
        under = sum(0 < value - each < 0.06 * span for each in nearby)
        placed.append(Level(label, value, above=above - value > 0.06 * span and over <= under))
    return placed


def _curve_strokes(
    summary: Summary, curves: Sequence[Row], labels: Mapping[Style, str]
) -> list[Stroke]:
    """One stroke a state; the full run of a trial starts where its short run ended."""
    drawn: dict[str, list[list[Row]]] = {name: [] for name in STYLES}
    short: list[Row] = []
    for (_, kind, nth), run in groupby(
        curves, key=lambda row: (row["trial"], row["kind"], row["replicate"])
    ):
        points = list(run)
        if kind == "full" and nth:
            drawn["full"].append(points)  # of another seed: it begins at nothing
        elif kind == "full":
            joint = [row for row in short[-1:] if row["trial"] == points[0]["trial"]]
            drawn["full"].append([*joint, *points])
        else:
            short = points
            drawn[_style_of(points[0])].append(points)
    strokes = []
    for name, runs in drawn.items():
        style = STYLES[name]
        stroke = Stroke(style, labels.get(style, style.label), [], [], [], _opacity(len(runs)))
        for points in runs:
            for row in points:
                stroke.xs.append(row["epoch"])
                stroke.ys.append(row["value"])
                note = f"trial {row['trial']}, epoch {row['epoch']}: {row['value']:.5g}"
                stroke.notes.append(f"{note} {summary.metric}")
            stroke.xs.append(math.nan)
            stroke.ys.append(math.nan)
            stroke.notes.append("")
        strokes.append(stroke)
    return [stroke for stroke in strokes if stroke.xs]


def _result_strokes(
    summary: Summary, rows: Sequence[Row], limits: tuple[float, float]
) -> list[Stroke]:
    """One stroke a state; what lies outside stands at the edge, what has no value at the worst."""
    worst = math.inf if summary.direction == "minimize" else -math.inf
    drawn: dict[str, list[Row]] = {name: [] for name in STYLES}
    for row in rows:
        there = row["value"] is not None or row["state"] in ("pruned", "failed")
        if there and pareto.place(summary, row) is not None:
            drawn[_result_style(row)].append(row)
    return [
        Stroke(
            STYLES[name],
            f"{_label(name, summary)} ({len(of_style)})",
            [pareto.place(summary, row) or 0 for row in of_style],
            [within(worst if row["value"] is None else row["value"], limits) for row in of_style],
            [_result_note(row) for row in of_style],
            1.0,
        )
        for name, of_style in drawn.items()
        if of_style
    ]


def _label(name: str, summary: Summary) -> str:
    """In a study that has ended nothing is running."""
    ended = summary.state in (StudyState.COMPLETE, StudyState.STOPPED, StudyState.FAILED)
    return "unfinished" if name == "running" and ended else STYLES[name].label


def _style_of(row: Row) -> str:
    """A waiting run that has values was given back by a worker: it goes on."""
    return "running" if row["state"] == "waiting" else row["state"]


def _stars(
    summary: Summary, rows: Sequence[Row], limits: tuple[float, float], across: Across | None
) -> list[Star]:
    """One for each promoted trial; over several seeds it stands at the mean."""
    stars = []
    for each in summary.replicates:
        full = [row for row in rows if (row["number"], row["kind"]) == (each.trial, "full")]
        if each.seeds == 1:
            value, label = full[0]["value"], _star_label(full[0])
        else:
            full = [row for row in full if row["state"] == "complete" and row["value"] is not None]
            value, label = each.value, _mean_label(each)
        places = [x for row in full if (x := pareto.place(summary, row)) is not None]
        if value is not None and len(places) == len(full):
            y = within(value, limits)
            name = label if across is None else _short_label(each)
            stars.append(Star(statistics.fmean(places), y, name, label_y=y))
    # By trial, names are as long as the panel is wide; across, stars far apart do not touch.
    shares = [across.share(star.x) if across else 0.0 for star in stars]
    return apart(stars, shares, limits)


def _result_style(row: Row) -> str:
    if row["state"] == "complete" and row.get("feasible") is False:
        return "infeasible"
    return "full" if row["kind"] == "full" else _style_of(row)


def _star_label(row: Row) -> str:
    state = "" if row["state"] == "complete" else f" ({row['state']})"
    return f"trial {row['number']}: {row['value']:.3f}{state}"


def _mean_label(each: Replicates) -> str:
    spread = "" if each.spread is None else f" ± {each.spread:.3f}"
    return f"trial {each.trial}: {each.value:.3f}{spread}, {each.complete} of {each.seeds} seeds"


def _short_label(each: Replicates) -> str:
    """Where both axes say what the values are."""
    missing = "" if each.complete == each.seeds else f", {each.complete} of {each.seeds} seeds"
    return f"trial {each.trial}{missing if each.seeds > 1 else ''}"


def _opacity(count: int) -> float:
    """Many curves shine through each other."""
    return min(1.0, max(0.2, 20 / max(count, 1)))


def _result_note(row: Row) -> str:
    reached = "no value" if row["value"] is None else f"{row['value']:.5g}"
    told = "" if row["test_value"] is None else f", test split {row['test_value']:.5g}"
    if row.get("second_value") is not None:
        told += f"; {row['second_value']:.6g}"
    if row.get("feasible") is False:
        told += "; breaks a constraint"
    kind = f"{row['kind']} run {row['replicate'] or ''}".rstrip()
    head = f"<b>trial {row['number']}</b>, {kind}, {row['state']}, epoch {row['epoch']}"
    params = [
        f"{name}: {html.escape(f'{value:.4g}' if isinstance(value, float) else str(value))}"
        for name, value in row.items()
        if name not in _OF_A_ROW
    ]
    return "<br>".join([head, f"{reached}{told}", *params])


def _even_ticks(first: int, last: int) -> list[int]:
    """At most a dozen whole numbers from *first* to *last* or just beyond."""
    step = next(
        size * 10**power
        for power in range(12)
        for size in (1, 2, 5)
        if (last - first) / (size * 10**power) <= 12
    )
    ticks = list(range(first, last + 1, step))
    return ticks if len(ticks) > 1 or last == first else [first, last]


def _epoch_ticks(rungs: Sequence[int], last: int, logarithmic: bool) -> list[int]:
    if not logarithmic:
        return sorted({1, last, *_even_ticks(0, last)[1:], *rungs})
    decades = [size * 10**power for power in range(7) for size in (1, 2, 5)]
    between = [tick for tick in decades if rungs[-1] * 1.3 < tick < last / 1.3]
    return sorted({1, *rungs, *between, last})
