"""Small multiples of trainings in plotly's JSON: a panel for each quantity, a line for each track.

What a finding is about is marked where it shows: a line at its first epoch, a band to its last, and
a flag above the plot with the number that its sentence has.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cubeopt.report import palette
from cubeopt.report.training import Sign, Track, Trainings
from cubeopt.training.diagnosis import Kind

_COLORS = (
    *(palette.BLUE, palette.VERMILION, palette.GREEN, palette.ORANGE),
    *(palette.PURPLE, palette.SKY, palette.GREY),
)
_DASHES = ("solid", "dash")
HEIGHT = 220  # pixels, without flags
_CROWDED = 8  # signs in a panel: with more only their numbers stand at the marks
_FLAG, _FLAGS = 18, 4  # pixels of a row of flags, and how many rows there are
_GOOD, _BAD = (palette.GREEN, "#00694A"), (palette.VERMILION, "#A33A00")  # and behind white text
_LOG_FLOOR = 1e-12  # a norm of 0 has no place on a logarithmic axis
_POINTS, _FEWEST = 1200, 100  # in a panel, and at least in a line: a screen has no more columns
Pick = Callable[[Sign], bool]
_Point = tuple[int, float]


@dataclass(frozen=True)
class Line:
    """One quantity of one track."""

    label: str
    name: str  # of the metric
    track: Track
    color: str
    dash: str


@dataclass(frozen=True)
class Panel:
    """One small chart, as plotly takes it, and what it does not show."""

    id: str
    title: str
    figure: dict[str, Any]
    lacks: str  # a sentence, or ""


@dataclass(frozen=True)
class Quantity:
    """What a panel shows: a metric by name, what it is called, and in which unit."""

    name: str
    title: str
    unit: str
    log: bool = False
    factor: float = 1.0
    beside: str = ""  # another metric, drawn dotted
    picks: Pick = lambda sign: False


def color(nth: int) -> tuple[str, str]:
    """The colour and the dash of the track at place *nth*."""
    return _COLORS[nth % len(_COLORS)], _DASHES[nth // len(_COLORS) % len(_DASHES)]


def panel(id: str, quantity: Quantity, shown: Trainings) -> Panel:
    """*quantity* of every track that has it."""
    lines, without = [], []
    for nth, track in enumerate(shown.tracks):
        tint, dash = color(nth)
        if not track.has(quantity.name):
            without.append(track.label)
            continue
        lines.append(Line(track.label, quantity.name, track, tint, dash))
        if quantity.beside and track.has(quantity.beside):
            name = f"{track.label}, validation"
            lines.append(Line(name, quantity.beside, track, tint, "dot"))
    signs = [sign for sign in shown.signs if quantity.picks(sign)]
    lacks = f"not measured: {', '.join(without)}" if without else ""
    drawn = figure(quantity, lines, signs)
    _draw_promotions(drawn, shown.tracks, named=id.startswith("objective"))
    beyond = [] if quantity.log else _limit(drawn, lines)
    says = "; ".join(filter(None, [lacks, *beyond]))
    return Panel(id, quantity.title, drawn, says)


def thinned(points: list[_Point], lines: int) -> list[_Point]:
    """*points*, or every so many of them and the last one, where a screen could not show all."""
    stride = -(-len(points) // max(_FEWEST, _POINTS // max(1, lines)))
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def _limit(figure: dict[str, Any], lines: Sequence[Line]) -> list[str]:
    """Give a training that diverges no more than half of the axis; what it then leaves, in words.

    All else would be a flat line beside it.
    """
    calm: list[float] = []
    wild: dict[str, list[float]] = {}
    for line, trace in zip(lines, figure["data"], strict=True):
        kinds = (Kind.DIVERGING, Kind.DIVERGED)
        first = min((s.first for s in line.track.signs if s.kind in kinds), default=math.inf)
        for epoch, value in zip(trace["x"], trace["y"], strict=True):
            (calm if epoch < first else wild.setdefault(line.label, [])).append(value)
    if not calm or not wild:
        return []
    low, high = min(calm), max(calm)
    span = (high - low) or abs(high) or 1.0
    least, most = low - span, high + span
    beyond = {
        label: max(values, key=lambda value: abs(value - high))
        for label, values in wild.items()
        if min(values) < least or max(values) > most
    }
    if not beyond:
        return []
    reached = [value for values in wild.values() for value in values]
    ends = [max(least, min(reached)), min(most, max(reached))]
    ends = [min(low, ends[0]) - 0.05 * span, max(high, ends[1]) + 0.05 * span]
    figure["layout"]["yaxis"] |= {"range": ends, "autorange": False}
    return [f"{label} leaves the picture, to {value:.4g}" for label, value in beyond.items()]


def figure(quantity: Quantity, lines: Sequence[Line], signs: Sequence[Sign]) -> dict[str, Any]:
    """*lines* over the epochs, with *signs* marked."""
    layout: dict[str, Any] = {
        "height": HEIGHT,
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero", "zeroline": False},
        "yaxis": {
            "title": {"text": quantity.unit, "standoff": 8},
            "automargin": True,
            "type": "log" if quantity.log else "linear",
            "zeroline": not quantity.log,
        },
        "showlegend": False,
        "margin": {"l": 62, "r": 12, "t": 10, "b": 44},
        "shapes": [],
        "annotations": [],
    }
    if quantity.log:
        layout["yaxis"]["exponentformat"] = "power"
    drawn = {"data": [_trace(quantity, line, len(lines)) for line in lines], "layout": layout}
    _draw_signs(drawn, signs)
    return drawn


def _trace(quantity: Quantity, line: Line, beside: int) -> dict[str, Any]:
    values = line.track.metrics[line.name]
    least = _LOG_FLOOR if quantity.log else -math.inf
    points = [
        (epoch, max(value * quantity.factor, least))
        for epoch, value in zip(line.track.epochs, values, strict=True)
        if value is not None
    ]
    points = thinned(points, beside)
    few = len(points) <= 30
    return {
        "type": "scatter",
        "name": line.label,
        "x": [epoch for epoch, _ in points],
        "y": [rounded(value) for _, value in points],
        "mode": "lines+markers" if few else "lines",
        "line": {"color": line.color, "width": 2, "dash": line.dash},
        "marker": {"color": line.color, "size": 5},
        "hovertemplate": f"%{{y:.4g}} in epoch %{{x}}<extra>{_plain(line.label)}</extra>",
    }


def _draw_signs(figure: dict[str, Any], signs: Sequence[Sign]) -> None:
    """A line at the first epoch of each, a band to its last, and above the plot a flag: its number
    and its name.
    """
    layout = figure["layout"]
    last = max((x for trace in figure["data"] for x in trace["x"]), default=1)
    rows = _FLAG * min(len(signs), _FLAGS)
    layout["margin"]["t"] += rows
    layout["height"] += rows
    for nth, sign in enumerate(sorted(signs, key=lambda each: each.first)):
        tint, dark = _GOOD if sign.kind == Kind.CONVERGED else _BAD
        pen = {"color": tint, "width": 1.5, "dash": "dot"}
        ends = {"x0": sign.first, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"].append({"type": "line", **ends, "x1": sign.first, "line": pen})
        if sign.last > sign.first:
            band = {"fillcolor": tint, "opacity": 0.07, "line": {"width": 0}}
            layout["shapes"].append({"type": "rect", **ends, "x1": sign.last, **band})
        words = sign.kind if len(signs) < _CROWDED else ""
        layout["annotations"].append(
            {
                "x": sign.first,
                "yref": "paper",
                "y": 1,
                "yshift": _FLAG * (nth % _FLAGS),
                "text": f"{sign.number} {words}".strip(),
                "name": "sign",
                "showarrow": False,
                "xanchor": "right" if sign.first > last / 2 else "left",
                "yanchor": "bottom",
                "bgcolor": dark,
                "font": {"color": "#FFFFFF", "size": 11},
                "borderpad": 1,
            }
        )


def _draw_promotions(figure: dict[str, Any], tracks: Iterable[Track], named: bool) -> None:
    """Where a short run became a full one."""
    borders = sorted({t.promoted_after for t in tracks if t.promoted_after is not None})
    for epoch in borders:
        pen = {"color": palette.GREY, "width": 1, "dash": "longdash"}
        x = epoch + 0.5  # after the last epoch of the short run, before the next
        line = {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": pen}
        figure["layout"]["shapes"].append(line | {"layer": "below"})
        if named:
            note = {"x": x, "yref": "paper", "y": 1, "yanchor": "top", "xanchor": "left"}
            note |= {"text": "promoted", "name": "promotion", "showarrow": False, "xshift": 3}
            figure["layout"]["annotations"].append(note | {"font": {"size": 11}})


def draw_rungs(figure: dict[str, Any], rungs: Iterable[int]) -> None:
    """Where trials are compared."""
    for epoch in rungs:
        pen = {"color": palette.FAINT, "width": 1, "dash": "dot"}
        ends = {"x0": epoch, "x1": epoch, "yref": "paper", "y0": 0, "y1": 1}
        figure["layout"]["shapes"].append({"type": "line", **ends, "line": pen, "layer": "below"})


def draw_baselines(figure: dict[str, Any], shown: Trainings) -> None:
    """What a training has to be better than."""
    last = max((track.epochs[-1] for track in shown.tracks if track.epochs), default=1)
    for name, value in shown.baselines.items():
        figure["data"].append(
            {
                "type": "scatter",
                "name": name,
                "x": [0, last],
                "y": [value, value],
                "mode": "lines",
                "line": {"color": palette.GREY, "width": 1.2, "dash": "dash"},
                "hovertemplate": f"{_plain(name)}: %{{y:.4g}}<extra></extra>",
            }
        )
        figure["layout"]["annotations"].append(
            {
                **{"x": 1, "xref": "paper", "xanchor": "right", "y": value, "yanchor": "bottom"},
                **{"text": _plain(name), "name": "baseline", "showarrow": False},
                "font": {"size": 11},
            }
        )


def rounded(value: float | None) -> float | None:
    """With six significant digits: a screen shows four, and a page shall stay small."""
    return None if value is None else float(f"{value:.6g}")


def _plain(text: str) -> str:
    """*text* without what plotly reads as markup or as a place for a number."""
    for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "% {")):
        text = text.replace(sign, written)
    return text
