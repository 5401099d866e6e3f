"""Charts of who went on: the rungs, short against full runs, promotions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cubeopt.report import agreement, labels, palette
from cubeopt.report.agreement import Agreement, Pair
from cubeopt.report.chart import (
    Axis,
    Chart,
    Label,
    Line,
    Mark,
    Marker,
    Points,
    blank,
    significant,
)
from cubeopt.report.labels import Star
from cubeopt.report.ladder import Arrival, Rung, Verdict
from cubeopt.report.measure import Measure, outside, placed
from cubeopt.report.progress import evenly
from cubeopt.report.promotions import Promoted

_DRAWN = 1200  # points of one kind at one rung
_PROMOTED = 30
_TABLE = 60  # rows of a table beside a chart; --json has all
_NAMED = 15  # promoted trials that have their number beside them
_HALF = 0.42  # of the width of a column


@dataclass(frozen=True)
class _Look:
    color: str
    marker: Marker
    size: float


_VERDICTS = {
    Verdict.CUT: _Look(palette.STATES["pruned"], "x", 6),
    Verdict.STAYED: _Look(palette.STATES["complete"], "circle", 7),
    Verdict.HERE: _Look(palette.STATES["running"], "circle-open", 8),
    Verdict.DIVERGED: _Look(palette.PURPLE, "triangle", 8),
    Verdict.ENDED: _Look(palette.BLUE, "diamond", 8),
    Verdict.FAILED: _Look(palette.STATES["failed"], "triangle", 8),
}


def ladder(rungs: Sequence[Rung], measure: Measure) -> Chart:
    """At each rung who stayed and who was cut, from left to right by trial number."""
    title = "Rung ladder: who stayed, who was cut"
    x = Axis(
        "rung, and what became of trials there",
        limits=(-0.5, len(rungs) - 0.5),
        ticks={place: _rung_name(rung) for place, rung in enumerate(rungs)},
    )
    values = [each.value for rung in rungs for each in rung.arrivals]
    known = [[each.value for each in r.arrivals if each.value is not None] for r in rungs]
    y = measure.axis(known, levels=False)
    if not values:
        return blank(
            title,
            x,
            y,
            f"No trial has come to a rung yet. {measure.goes_on_with}",
        )
    last = max(each.trial for rung in rungs for each in rung.arrivals) or 1
    marks: list[Mark] = []
    left_out = 0
    for verdict, look in _VERDICTS.items():
        chosen = [
            (place, each)
            for place, rung in enumerate(rungs)
            for each in evenly([e for e in rung.arrivals if e.verdict == verdict], _DRAWN)
        ]
        left_out += sum(e.verdict == verdict for r in rungs for e in r.arrivals) - len(chosen)
        if chosen:
            marks.append(_arrivals(verdict, look, chosen, last, y, measure))
    bars = [(place, rung.bar) for place, rung in enumerate(rungs) if rung.bar is not None]
    if bars:
        xs = [x for place, _ in bars for x in (place - _HALF, place + _HALF, None)]
        ys = [each for _, bar in bars for each in (bar, bar, None)]
        marks.append(Line("what the next must equal", palette.QUIET, xs, ys, 2.0, "dash"))
    cut = sum(rung.cut for rung in rungs)
    arrived = rungs[0].arrived
    notes = outside(values, y)
    if left_out:
        notes.append(f"{left_out:,} points are left out, evenly; the counts are of all")
    return Chart(
        title,
        f"Of {count_of(arrived, 'trial')} at the first rung the rungs cut {cut:,}; "
        f"{rungs[-1].stayed:,} completed the short run. At each rung trials stand from left to "
        "right by number.",
        x,
        y,
        marks,
        notes=notes,
        columns=(
            *("epoch", "arrived", "stayed", "cut", "diverged", "failed", "ended by a person"),
            *("still here", "worst that stayed", "best that was cut", "bar for the next"),
        ),
        rows=[
            (
                *(rung.epoch, rung.arrived, rung.stayed, rung.cut, rung.diverged, rung.failed),
                *(rung.ended, rung.here, rung.worst_stayed, rung.best_cut, rung.bar),
            )
            for rung in rungs
        ],
        height=460,
    )


def _rung_name(rung: Rung) -> str:
    counts = f"{rung.arrived:,} arrived\n{rung.stayed:,} stayed\n{rung.cut:,} cut"
    return f"epoch {rung.epoch}\n{counts}"


def _arrivals(
    verdict: Verdict,
    look: _Look,
    chosen: Sequence[tuple[int, Arrival]],
    last: int,
    y: Axis,
    measure: Measure,
) -> Points:
    high = measure.direction == "minimize"
    return Points(
        str(verdict),
        look.color,
        [round(place + _HALF * (2 * each.trial / last - 1), 4) for place, each in chosen],
        [significant(placed(each.value, y, high), 5) for _, each in chosen],
        look.marker,
        look.size if len(chosen) < 400 else 0.6 * look.size,
        1.0 if len(chosen) < 400 else 0.7,
        notes=[f"trial {each.trial}: {told(each.value)}, {verdict}" for _, each in chosen],
    )


def short_and_full(pairs: Sequence[Pair], found: Agreement, measure: Measure) -> Chart:
    """Whether short runs tell which full runs are good."""
    title = "Short against full runs"
    names = f"{measure.metric} at the end of the"
    x, y = Axis(f"{names} short run"), Axis(f"{names} full run, {measure.better}")
    if not pairs:
        return blank(
            title, x, y, "No full run is complete yet: there is nothing to compare short runs with."
        )
    xs, ys = [pair.short for pair in pairs], [pair.full for pair in pairs]
    marks: list[Mark] = [
        Points(
            "promoted trial",
            palette.BLUE,
            [significant(each) for each in xs],
            [significant(each) for each in ys],
            size=9,
            opacity=0.8,
            notes=[
                f"trial {pair.trial}: short {told(pair.short)}, full {told(pair.full)}"
                for pair in pairs
            ],
        )
    ]
    across, up = _around(xs), _around(ys)
    if len(pairs) <= _NAMED:
        stars = [Star(pair.short, pair.full, f"  {pair.trial}", pair.full) for pair in pairs]
        places = [(each - across[0]) / (across[1] - across[0]) for each in xs]
        for each in labels.apart(stars, places, up):
            marks.append(Label(each.x, each.label_y, each.label, "left"))
    return Chart(
        title,
        said(found),
        replace(x, limits=across),
        replace(y, limits=up),
        marks,
        columns=("trial", "short run", "full run"),
        rows=[(pair.trial, pair.short, pair.full) for pair in pairs[:_TABLE]],
        notes=_more(len(pairs)),
    )


def _around(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis with all *values*, and a margin."""
    margin = 0.08 * (max(values) - min(values)) or 0.05 * abs(values[0]) or 1.0
    return min(values) - margin, max(values) + margin


def said(found: Agreement) -> str:
    """The rank correlation in words."""
    if found.pairs < agreement.FEWEST:
        return (
            f"{count_of(found.pairs, 'trial')} with both runs complete: a rank correlation needs "
            f"{agreement.FEWEST}."
        )
    if found.spearman is None:
        return "All values are equal: there is no rank correlation."
    ends = agreement.interval(found)
    reach = f" (95 % interval {ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
    judged = (
        "short runs hardly tell which full runs are good"
        if found.spearman < agreement.LOW
        else "short runs tell which full runs are good"
    )
    return (
        f"Rank correlation {found.spearman:.2f}{reach} over {found.pairs} trials: {judged}. "
        "They are those that were promoted, so the weak ones are not among them."
    )


def promotions(rows: Sequence[Promoted], measure: Measure) -> Chart:
    """The promoted trials beside the baselines: each seed, the mean, and the short run before."""
    title = "Promoted trials and baselines"
    shown = rows[:_PROMOTED]
    x = Axis(
        "promoted trial, the best first",
        limits=(-0.6, max(len(shown), 1) - 0.4),
        ticks={place: str(row.trial) for place, row in enumerate(shown)},
    )
    known = [value for row in shown for value in (row.short, *_values(row)) if value is not None]
    y = measure.axis([known])
    if not known:
        return blank(
            title, x, y, "No trial is promoted yet: a full run begins when short runs have ended."
        )
    marks: list[Mark] = list(measure.rules())
    high = measure.direction == "minimize"
    for name, color, marker, size, points in (
        ("short run", palette.GREY, "circle-open", 8, _shorts(shown)),
        ("a seed, not complete", palette.STATES["running"], "circle-open", 8, _open(shown)),
        ("a seed's full run", palette.BLUE, "circle", 8, _complete(shown)),
        ("mean of the seeds", palette.VERMILION, "bar", 26, _means(shown)),
    ):
        if points:
            marks.append(
                Points(
                    name,
                    color,
                    [place for place, _, _ in points],
                    [significant(placed(value, y, high)) for _, value, _ in points],
                    marker,  # type: ignore[arg-type]
                    size,
                    notes=[note for _, _, note in points],
                )
            )
    best = rows[0]
    spread = "" if best.spread is None else f" ± {best.spread:.2g}"
    return Chart(
        title,
        f"{count_of(len(rows), 'trial')} promoted"
        + (
            f"; the best mean is trial {best.trial}'s: {told(best.mean)}{spread}."
            if best.mean is not None
            else "; no full run is complete yet."
        ),
        x,
        y,
        marks,
        notes=[
            *outside(known, y),
            *(
                [f"the best {_PROMOTED} of {len(rows):,} are drawn"]
                if len(rows) > len(shown)
                else []
            ),
        ],
        columns=("trial", "short run", "mean", "spread", "test mean", "seeds", "not in the mean"),
        rows=[
            (
                *(row.trial, row.short, row.mean, row.spread, row.test_mean),
                *(len(row.seeds), row.missing or None),
            )
            for row in shown
        ],
    )


_Points = list[tuple[float, float, str]]  # place, value, note


def _values(row: Promoted) -> list[float | None]:
    return [seed.value for seed in row.seeds]


def _shorts(rows: Sequence[Promoted]) -> _Points:
    return [
        (place - 0.22, row.short, f"trial {row.trial}, short run: {told(row.short)}")
        for place, row in enumerate(rows)
        if row.short is not None
    ]


def _seeds(rows: Sequence[Promoted], complete: bool) -> _Points:
    return [
        (
            round(place + 0.24 * (nth - (len(row.seeds) - 1) / 2) / max(1, len(row.seeds) - 1), 3),
            seed.value,
            f"trial {row.trial}, seed {seed.seed}, {seed.state} at epoch {seed.epoch} of "
            f"{seed.target_epochs}: {told(seed.value)}",
        )
        for place, row in enumerate(rows)
        for nth, seed in enumerate(row.seeds)
        if seed.value is not None and (seed.state == "complete") == complete
    ]


def _open(rows: Sequence[Promoted]) -> _Points:
    return _seeds(rows, complete=False)


def _complete(rows: Sequence[Promoted]) -> _Points:
    return _seeds(rows, complete=True)


def _means(rows: Sequence[Promoted]) -> _Points:
    return [
        (place, row.mean, f"trial {row.trial}, mean of its seeds: {told(row.mean)}")
        for place, row in enumerate(rows)
        if row.mean is not None and len(row.seeds) > 1
    ]


def told(value: float | None) -> str:
    """A value in a note."""
    return "no finite value" if value is None else f"{value:.5g}"


def count_of(number: int, word: str) -> str:
    """ "1 trial", "5,000 trials"."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _more(count: int) -> list[str]:
    return [f"the table has the first {_TABLE} of {count:,}"] if count > _TABLE else []
