"""Charts of how a study went: result by result, curve by curve, and on which devices when."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cubeopt.db.tables import EndClass
from cubeopt.report import palette
from cubeopt.report import timeline as times
from cubeopt.report.chart import (
    Axis,
    Chart,
    Line,
    Mark,
    Marker,
    Points,
    Rule,
    Spans,
    blank,
    significant,
)
from cubeopt.report.measure import Measure, beyond, outside, placed
from cubeopt.report.progress import Curve, Result, evenly
from cubeopt.report.promotions import Promoted
from cubeopt.report.timeline import Stretch, Timeline

CURVES = 160  # that are drawn
_RESULTS = 2000  # of one state
_LANES, _SPANS = 40, 1500  # beyond either, workers are drawn as a whole
_WORKERS = 40
_PIXELS = 700  # of a chart's width; a gap below one of them is not seen
_FULL = palette.BLUE
_STATES: dict[str, tuple[Marker, float]] = {
    "pruned": ("x", 6),
    "complete": ("circle", 7),
    "running": ("circle-open", 8),
    "waiting": ("circle-open", 6),
    "failed": ("triangle", 8),
}
ENDS = {
    None: "goes on",
    "done": "done",
    "pruned": "cut",
    "preempted": "given back",
    "lost": "lost (lease expired)",
    "out_of_memory": "out of memory",
    "diverged": "diverged",
    "error": "error",
}
_TROUBLE: dict[str, Marker] = {
    EndClass.LOST: "x",
    EndClass.OUT_OF_MEMORY: "diamond",
    EndClass.ERROR: "triangle",
    EndClass.DIVERGED: "circle-open",
}


def history(results: Sequence[Result], promoted: Sequence[Promoted], measure: Measure) -> Chart:
    """The result of each trial, and the best so far."""
    title = "Results, trial by trial"
    last = max((row.trial for row in results), default=0)
    x = Axis("trial", limits=(-0.5 - 0.02 * last, last + 0.5 + 0.02 * last), whole=True)
    ended = [row for row in results if row.value is not None or row.state in ("pruned", "failed")]
    means = [(row.trial, row.mean) for row in promoted if row.mean is not None]
    by_epoch: dict[int, list[float]] = {}
    for row in ended:
        if row.value is not None:
            by_epoch.setdefault(row.epoch, []).append(row.value)
    y = measure.axis([*by_epoch.values(), [mean for _, mean in means]])
    if not by_epoch:
        return blank(title, x, y, _nothing_yet(measure))
    marks: list[Mark] = list(measure.rules())
    high = measure.direction == "minimize"
    left_out = 0
    for state, (marker, size) in _STATES.items():
        own = [row for row in ended if row.state == state]
        chosen = evenly(own, _RESULTS)
        left_out += len(own) - len(chosen)
        if chosen:
            marks.append(
                Points(
                    f"{state} ({len(own):,})",
                    palette.STATES[state] if state != "waiting" else palette.GREY,
                    [row.trial for row in chosen],
                    [significant(placed(row.value, y, high), 5) for row in chosen],
                    marker,
                    size if len(chosen) < 400 else 0.6 * size,
                    1.0 if len(chosen) < 400 else 0.6,
                    notes=[_told(row) for row in chosen],
                )
            )
    steps = _steps(results, last)
    if steps:
        xs, ys = [x for x, _ in steps], [significant(y) for _, y in steps]
        name = "best complete short run so far"
        marks.append(Line(name, palette.VERMILION, xs, ys, 2.0, steps=True))
    if means:
        marks.append(
            Points(
                f"promoted, mean of full runs ({len(means):,})",
                _FULL,
                [trial for trial, _ in means],
                [significant(placed(mean, y, high)) for _, mean in means],
                "star",
                13,
                notes=[f"trial {trial}, full runs: {mean:.5g}" for trial, mean in means],
            )
        )
    notes = outside([row.value for row in ended], y)
    if left_out:
        notes.append(f"{left_out:,} points are left out, evenly")
    best = steps[-1][1] if steps else None
    return Chart(
        title,
        f"{len(ended):,} of {len(results):,} trials have a result"
        + (f"; the best complete short run has {best:.5g}." if best is not None else "."),
        x,
        y,
        marks,
        notes=notes,
        columns=("trial", "best so far"),
        rows=[(trial, value) for trial, value in steps[-60:]],
    )


def _told(row: Result) -> str:
    value = "no finite value" if row.value is None else f"{row.value:.5g}"
    return f"trial {row.trial}, {row.state} at epoch {row.epoch}: {value}"


def _steps(results: Sequence[Result], last: int) -> list[tuple[int, float]]:
    """Where the best improves, and where it stands at the end."""
    found: list[tuple[int, float]] = []
    for row in results:
        if row.best is not None and (not found or row.best != found[-1][1]):
            found.append((row.trial, row.best))
    if found and found[-1][0] != last:
        found.append((last, found[-1][1]))
    return found


def curves(rows: Sequence[Curve], of: int, rungs: Sequence[int], measure: Measure) -> Chart:
    """The learning curves *rows*, chosen from *of* runs."""
    title = "Learning curves"
    last = max([epoch for row in rows for epoch in row.epochs] + list(rungs))
    log = last >= 4 * rungs[-1]
    x = Axis(
        "epoch (logarithmic)" if log else "epoch",
        log=log,
        limits=(0.92, last * 1.08) if log else (0.5, last + 0.5),
        ticks={each: str(each) for each in _epochs(rungs, last)} if log else None,
        whole=True,
    )
    values = [value for row in rows for value in row.values]
    by_epoch: dict[int, list[float]] = {}
    for row in rows:
        for epoch, value in zip(row.epochs, row.values, strict=True):
            by_epoch.setdefault(epoch, []).append(value)
    y = measure.axis(by_epoch.values())
    if not values:
        return blank(title, x, y, _nothing_yet(measure))
    marks: list[Mark] = [
        *measure.rules(),
        *(Rule(rung, upright=True, dash="dot", color=palette.GREY) for rung in rungs),
    ]
    for name, color, width, chosen in _by_state(_joined(rows)):
        if chosen:
            marks.append(
                Line(
                    f"{name} ({len(chosen):,})",
                    color,
                    [x for row in chosen for x in (*row.epochs, None)],
                    [y for row in chosen for y in (*map(significant, row.values), None)],
                    width,
                    opacity=min(1.0, max(0.35, 20 / len(chosen))),
                    notes=[note for row in chosen for note in _notes(row)],
                )
            )
    of_all = "" if len(rows) == of else f"; of {of:,} runs {len(rows):,} are drawn"
    return Chart(
        title,
        f"{measure.metric} on the validation split after each epoch; dotted: the rungs{of_all}.",
        x,
        y,
        marks,
        notes=beyond(values, y),
        columns=("trial", "run", "seed of it", "state", "epochs", "first", "last"),
        rows=[
            (
                *(row.trial, row.kind, row.replicate, row.state, row.epochs[-1]),
                *(row.values[0], row.values[-1]),
            )
            for row in rows[:60]
            if row.epochs
        ],
        height=460,
    )


def _joined(rows: Sequence[Curve]) -> list[Curve]:
    """*rows*, the full run that goes on from a short one beginning where that ended."""
    short = {row.trial: row for row in rows if row.kind == "short" and row.epochs}
    found = []
    for row in rows:
        before = short.get(row.trial)
        if row.kind == "full" and not row.replicate and before and row.epochs:
            epochs = [before.epochs[-1], *row.epochs]
            row = replace(row, epochs=epochs, values=[before.values[-1], *row.values])
        found.append(row)
    return found


def _by_state(rows: Sequence[Curve]) -> list[tuple[str, str, float, list[Curve]]]:
    short = [row for row in rows if row.kind == "short" and row.epochs]
    return [
        *(
            (
                f"short run, {state}",
                palette.STATES[state] if state != "waiting" else palette.GREY,
                1.3,
                [row for row in short if row.state == state],
            )
            for state in _STATES
        ),
        ("full run", _FULL, 2.6, [row for row in rows if row.kind == "full" and row.epochs]),
    ]


def _notes(row: Curve) -> list[str]:
    head = f"trial {row.trial}, {row.kind} run"
    points = zip(row.epochs, row.values, strict=True)
    return [*(f"{head}, epoch {epoch}: {value:.5g}" for epoch, value in points), ""]


def _epochs(rungs: Sequence[int], last: int) -> list[int]:
    decades = [size * 10**power for power in range(7) for size in (1, 2, 5)]
    between = [tick for tick in decades if rungs[-1] * 1.3 < tick < last / 1.3]
    return sorted({1, *rungs, *between, last})


def timeline(found: Timeline, measure: Measure) -> Chart:
    """What ran where: attempts by worker and slot, or where those are too many, by worker."""
    title = "What ran where, over time"
    unit, size = _unit(found.until)
    x = Axis(f"{unit} since the first attempt", zero=True)
    if found.since is None:
        return blank(title, x, Axis("worker"), _nothing_yet(measure))
    lanes = sum(found.slots.values())
    drawn = _slots if lanes <= _LANES and len(found.stretches) <= _SPANS else _workers
    sketch = drawn(found, size)
    counts = times.ends(found.stretches)
    told = ", ".join(f"{count:,} {ENDS.get(end, end)}" for end, count in counts.items())
    devices = {each.worker: each.device for each in found.stretches}
    slots = found.slots
    return Chart(
        title,
        f"{len(found.stretches):,} attempts by {len(slots):,} "
        f"{'worker' if len(slots) == 1 else 'workers'} in {found.until / size:.3g} {unit} since "
        f"{found.since:%Y-%m-%d %H:%M %Z}: {told}.",
        Axis(x.title, zero=True, limits=(0, found.until / size * 1.01 or 1.0)),
        Axis(
            sketch.title,
            limits=(-0.7, sketch.lanes - 0.3),
            ticks=sketch.ticks,
            downwards=True,
        ),
        sketch.marks,
        notes=sketch.notes,
        columns=("worker", "device", "slots", "attempts", "ended badly"),
        rows=[
            (
                *(worker, devices[worker], slots[worker]),
                sum(each.worker == worker for each in found.stretches),
                sum(each.worker == worker and each.ended in _TROUBLE for each in found.stretches),
            )
            for worker in list(slots)[:60]
        ],
        height=max(260, 130 + round(sketch.pixels * sketch.lanes)),
    )


@dataclass(frozen=True)
class _Sketch:
    """What one of the two forms of a timeline draws."""

    title: str
    lanes: int
    pixels: float  # of a lane
    ticks: dict[float, str]
    marks: list[Mark]
    notes: list[str]


def _slots(found: Timeline, size: float) -> _Sketch:
    """Each attempt in the lane of its slot, coloured by how it ended."""
    first, ticks, lane = {}, {}, 0
    for worker, slots in found.slots.items():
        first[worker] = lane
        ticks[lane + (slots - 1) / 2] = _short(worker)
        lane += slots
    marks: list[Mark] = [
        Rule(each - 0.5, dash="solid", color=palette.FAINT) for each in first.values() if each
    ]
    for end, name in ENDS.items():
        own = [each for each in found.stretches if each.ended == end]
        if own:
            marks.append(
                Spans(
                    name,
                    palette.ENDS[end],
                    [first[each.worker] + each.slot for each in own],
                    [significant(each.start / size, 7) for each in own],
                    [significant(each.end / size, 7) for each in own],
                    notes=[_attempt(each) for each in own],
                )
            )
    places = {id(each): first[each.worker] + each.slot for each in found.stretches}
    marks += _troubles(found.stretches, places, size)
    return _Sketch(
        "worker, one lane for each slot", lane, 22 if lane < 12 else 15, ticks, marks, []
    )


def _workers(found: Timeline, size: float) -> _Sketch:
    """When each worker held runs; what ended badly is marked."""
    names = found.workers
    latest = {each.worker: each.end for each in found.stretches}
    kept = sorted(names, key=lambda name: -latest[name])[:_WORKERS]
    place = {name: nth for nth, name in enumerate(each for each in names if each in kept)}
    own = [each for each in found.stretches if each.worker in place]
    shortest = found.until / _PIXELS
    held = times.busy(own, shortest)
    marks: list[Mark] = [
        Spans(
            "holds runs",
            palette.SKY,
            [place[each.worker] for each in held],
            [significant(each.start / size, 7) for each in held],
            [significant(each.end / size, 7) for each in held],
            notes=[f"{each.worker} holds runs for {each.end - each.start:.0f} s" for each in held],
        )
    ]
    bad = [each for each in own if each.ended in _TROUBLE]
    shown = evenly(bad, _SPANS)
    marks += _troubles(shown, {id(each): place[each.worker] for each in shown}, size)
    notes = [f"too many to draw each attempt; gaps of less than {shortest:.2g} s are closed"]
    if len(names) > len(kept):
        notes.append(f"the {_WORKERS} of {len(names):,} workers that were there last are drawn")
    if len(shown) < len(bad):
        notes.append(f"of {len(bad):,} bad ends {len(shown):,} are drawn")
    ticks: dict[float, str] = {nth: _short(name) for name, nth in place.items()}
    return _Sketch("worker", len(place), 22 if len(place) < 12 else 15, ticks, marks, notes)


def _troubles(some: Sequence[Stretch], places: dict[int, int], size: float) -> list[Mark]:
    """The ends that nobody planned, at their moment."""
    marks: list[Mark] = []
    for end, marker in _TROUBLE.items():
        own = [each for each in some if each.ended == end]
        if own:
            marks.append(
                Points(
                    f"ended: {ENDS[str(end)]}",
                    palette.ENDS[str(end)] if end != EndClass.LOST else palette.VERMILION,
                    [significant(each.end / size, 7) for each in own],
                    [places[id(each)] for each in own],
                    marker,
                    9,
                    notes=[_attempt(each) for each in own],
                )
            )
    return marks


def _attempt(each: Stretch) -> str:
    """What the page shows of an attempt under the mouse."""
    seed = f" {each.replicate}" if each.replicate else ""
    said = (
        f"trial {each.trial}, {each.kind} run{seed}, attempt {each.attempt}: {ENDS[each.ended]}\n"
        f"{each.worker} on {each.device}, {each.end - each.start:.1f} s from epoch "
        f"{each.from_epoch}"
    )
    return said if each.error is None else f"{said}\n{each.error[:120]}"


def _short(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def _unit(seconds: float) -> tuple[str, float]:
    """The unit of an axis so long, and its seconds."""
    for name, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 3 * size:
            return name, size
    return "seconds", 1.0


def _nothing_yet(measure: Measure) -> str:
    return f"Nothing has been trained yet. {measure.goes_on_with}"
