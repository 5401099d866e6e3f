"""Charts of the searched space: which values decide, and where the good trials lie."""

from dataclasses import replace

from cubeopt.report import palette
from cubeopt.report.chart import Axis, Bars, Chart, Label, Line, Mark, Points, blank, significant
from cubeopt.report.coordinates import Coordinates, Scale
from cubeopt.report.importance import FEWEST, Importances
from cubeopt.report.measure import Measure, outside, placed
from cubeopt.report.progress import evenly
from cubeopt.report.search_charts import count_of, told
from cubeopt.report.tradeoff import Run, Tradeoff

_DRAWN, _TABLE = 1500, 60
_DECADE = 10.0  # from the least to the most of an axis, from where on it is logarithmic


def importances(found: Importances) -> Chart:
    """What decides, and what chance would give."""
    title = "Which searched values decide"
    count = len(found.rows)
    x = Axis("share of all (PED-ANOVA)", zero=True, form=".0%")
    y = Axis(
        "searched value",
        limits=(-0.6, max(1, count) - 0.4),
        ticks={place: row.name for place, row in enumerate(found.rows)},
        downwards=True,
    )
    if found.used < FEWEST:
        return blank(
            title,
            x,
            y,
            f"Importances need {FEWEST} trials that have ended; there are {found.used} so far.",
        )
    if not found.rows:
        return blank(title, x, y, "The best trials are spread as all others: nothing stands out.")
    most = max(max(row.share, row.chance) for row in found.rows)
    clear = [row for row in found.rows if row.share > row.chance]
    names = ", ".join(row.name for row in clear)
    marks: list[Mark] = [
        Bars(
            "importance",
            palette.BLUE,
            list(range(count)),
            [significant(row.share, 4) for row in found.rows],
            notes=[f"{row.name}: {row.share:.1%}, chance {row.chance:.1%}" for row in found.rows],
        ),
        Line(
            "what chance stays below, 19 times of 20",
            palette.VERMILION,
            [x for row in found.rows for x in (significant(row.chance, 4),) * 2 + (None,)],
            [y for place in range(count) for y in (place - 0.36, place + 0.36, None)],
            2.5,
        ),
    ]
    chosen = "" if found.used == found.trials else f" ({found.used:,} of them, evenly chosen)"
    return Chart(
        title,
        f"What tells the best {found.best} of {found.trials:,} ended trials{chosen} from all: "
        + (f"{names}." if clear else "nothing beyond what chance would show."),
        replace(x, limits=(0.0, 1.05 * most)),
        y,
        marks,
        notes=["the search itself crowds where it found good values; that counts here, too"],
        columns=("searched value", "share", "chance"),
        rows=[(row.name, row.share, row.chance) for row in found.rows],
        height=max(240, 110 + 34 * count),
    )


def tradeoff(found: Tradeoff, measure: Measure) -> Chart:
    """Both objectives of each complete run, and the front."""
    title = "Both objectives, and the front"
    seconds = [run.second for run in found.runs]
    log = bool(seconds) and min(seconds) > 0 and max(seconds) >= _DECADE * min(seconds)
    way = "lower" if found.direction == "minimize" else "higher"
    x = Axis(f"{found.second}, {way} is better" + (" (logarithmic)" if log else ""), log=log)
    y = measure.axis([[run.value for run in found.runs]])
    if not found.runs:
        return blank(title, x, y, "No trial has completed its short run yet.")
    marks: list[Mark] = list(measure.rules())
    for name, color, marker, size, runs in (
        ("short run", palette.STATES["complete"], "circle", 7, _of(found, "short", True)),
        ("full run", palette.BLUE, "star", 12, _of(found, "full", True)),
        ("breaks a constraint", palette.STATES["pruned"], "x", 7, _of(found, None, False)),
    ):
        if shown := evenly(runs, _DRAWN):
            marks.append(
                Points(
                    f"{name} ({len(runs):,})",
                    color,
                    [significant(run.second) for run in shown],
                    [significant(placed(run.value, y, True), 5) for run in shown],
                    marker,  # type: ignore[arg-type]
                    size,
                    notes=[f"trial {r.trial}: {told(r.value)}; {told(r.second)}" for r in shown],
                )
            )
    # From the run with the best second value on: for so much of the second, so much of the first.
    rising = found.direction == "minimize"
    front = sorted(found.front, key=lambda run: run.second_value, reverse=not rising)
    marks.append(
        Line(
            "the front",
            palette.VERMILION,
            [significant(run.second_value) for run in front],
            [significant(placed(run.value, y, True), 5) for run in front],
            2.0,
            steps=True,
        )
    )
    return Chart(
        title,
        f"{count_of(len(front), 'trial')} on the front: no other is better in both.",
        x,
        y,
        marks,
        notes=outside([run.value for run in found.runs], y),
        columns=("trial", measure.metric, found.second, "seeds"),
        rows=[(run.trial, run.value, run.second_value, run.seeds) for run in found.front[:_TABLE]],
    )


def _of(found: Tradeoff, kind: str | None, feasible: bool) -> list[Run]:
    return [
        run for run in found.runs if run.feasible == feasible and (kind is None or run.kind == kind)
    ]


def coordinates(found: Coordinates, measure: Measure) -> Chart:
    """The complete trials between parallel axes."""
    title = "Parallel coordinates"
    x = Axis(
        "searched value, and the result",
        limits=(-0.3, len(found.scales) - 0.7),
        ticks={place: scale.name for place, scale in enumerate(found.scales)},
    )
    y = Axis(
        "place in its range",
        limits=(-0.12, 1.12),
        ticks={0: "low end", 1: "high end"},
    )
    if not found.threads:
        return blank(title, x, y, "No trial has completed its short run yet.")
    marks: list[Mark] = []
    for best, name, color, width, opacity in (
        (False, "other complete trials", palette.SKY, 1.2, 0.45),
        (
            True,
            _best(found),
            palette.VERMILION,
            2.4,
            0.9,
        ),
    ):
        threads = [thread for thread in found.threads if thread.best == best]
        if threads:
            marks.append(
                Line(
                    name,
                    color,
                    [x for _ in threads for x in (*range(len(found.scales)), None)],
                    [y for each in threads for y in (*map(_rounded, each.places), None)],
                    width,
                    opacity=opacity,
                    notes=[
                        note
                        for each in threads
                        for note in [f"trial {each.trial}: {told(each.value)}"]
                        * (len(found.scales) + 1)
                    ],
                )
            )
    for place, scale in enumerate(found.scales):
        marks.append(Line("", palette.GREY, [place, place], [0, 1], 1.0, legend=False))
        marks += _ends(place, scale)
    drawn = len(found.threads)
    return Chart(
        title,
        f"{count_of(drawn, 'complete trial')}"
        + (f" of {found.complete:,}, the best and others evenly chosen" * (drawn < found.complete))
        + f"; on the axis {measure.metric} the best stands at the top.",
        x,
        y,
        marks,
        columns=("searched value", "low end", "high end", "scale"),
        rows=[
            (
                *(scale.name, scale.low, scale.high),
                ", ".join(scale.choices) if scale.choices else "log" if scale.log else "linear",
            )
            for scale in found.scales
        ],
        height=460,
    )


def _best(found: Coordinates) -> str:
    count = sum(thread.best for thread in found.threads)
    return "the best" if count == 1 else f"the best {count}"


def _ends(place: int, scale: Scale) -> list[Mark]:
    log = " log" if scale.log else ""
    return [Label(place, -0.06, scale.low), Label(place, 1.06, f"{scale.high}{log}")]


def _rounded(place: float | None) -> float | None:
    return None if place is None else round(place, 4)
