"""Small multiples of trainings as values: a panel for each quantity, a curve for each track.

What a finding is about is marked where it shows, by a flag with the number that its sentence has.
`multiples_page` and `multiples_image` paint them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cubeopt.report import palette
from cubeopt.report.training import Sign, Track, Trainings
from cubeopt.training.diagnosis import Kind

_COLORS = (
    *(palette.BLUE, palette.VERMILION, palette.GREEN, palette.ORANGE),
    *(palette.PURPLE, palette.SKY, palette.GREY),
)
_DASHES: tuple["Dash", ...] = ("solid", "dash")
_CROWDED = 8  # signs in a panel: with more only their numbers stand at the marks
_LOG_FLOOR = 1e-12  # a norm of 0 has no place on a logarithmic axis
_POINTS, _FEWEST = 1200, 100  # in a panel, and at least in a line: a screen has no more columns
Dash = Literal["solid", "dash", "dot"]
Pick = Callable[[Sign], bool]
_Point = tuple[int, float]


@dataclass(frozen=True)
class Line:
    """One quantity of one track."""

    label: str
    name: str  # of the metric
    track: Track
    color: str
    dash: Dash


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


@dataclass(frozen=True)
class Curve:
    """A line as it is drawn: no more points than are seen."""

    label: str
    color: str
    dash: Dash
    epochs: Sequence[int]
    values: Sequence[float]
    below: int = 0  # as many others lie right over it

    @property
    def width(self) -> float:
        """Pixels; one below others looks out from under them."""
        return 2.0 + 2.0 * min(3, self.below)


@dataclass(frozen=True)
class Flag:
    """A finding, from its first epoch to its last."""

    number: int
    first: int
    last: int
    words: str  # beside the number; "" where too many stand side by side
    good: bool


@dataclass(frozen=True)
class Panel:
    """One small chart over the epochs, and what it does not show."""

    id: str
    title: str
    unit: str
    curves: Sequence[Curve]
    flags: Sequence[Flag] = ()  # by their first epochs
    promotions: Sequence[float] = ()  # where short runs became full ones
    rungs: Sequence[int] = ()  # where trials are compared
    baselines: Mapping[str, float] = field(default_factory=dict)  # what to be better than
    last: int = 1  # the newest epoch of all tracks
    log: bool = False
    zero: bool = False  # the axis begins there
    limits: tuple[float, float] | None = None  # of the axis; else as far as the curves go
    chief: bool = False  # stands above all others: larger, and says what its lines are
    lacks: str = ""  # a sentence


def color(nth: int) -> tuple[str, Dash]:
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
    drawn = curves(quantity, lines)
    lacks = f"not measured: {', '.join(without)}" if without else ""
    limits, beyond = (None, []) if quantity.log else _limits(lines, drawn)
    borders = {t.promoted_after for t in shown.tracks if t.promoted_after is not None}
    return Panel(
        id,
        quantity.title,
        quantity.unit,
        drawn,
        flags([sign for sign in shown.signs if quantity.picks(sign)]),
        promotions=[epoch + 0.5 for epoch in sorted(borders)],  # before the full run's first epoch
        last=max((track.epochs[-1] for track in shown.tracks if track.epochs), default=1),
        log=quantity.log,
        limits=limits,
        lacks="; ".join(filter(None, [lacks, *beyond])),
    )


def curves(quantity: Quantity, lines: Sequence[Line]) -> list[Curve]:
    """*lines* as they are drawn beside each other."""
    least = _LOG_FLOOR if quantity.log else -math.inf
    drawn = []
    for line in lines:
        points = [
            (epoch, max(value * quantity.factor, least))
            for epoch, value in zip(line.track.epochs, line.track.metrics[line.name], strict=True)
            if value is not None
        ]
        points = thinned(points, len(lines))
        epochs, values = [epoch for epoch, _ in points], [_rounded(value) for _, value in points]
        drawn.append(Curve(line.label, line.color, line.dash, epochs, values))
    courses = [(each.dash, each.epochs, each.values) for each in drawn]
    return [
        replace(curve, below=courses[nth + 1 :].count(courses[nth]))
        for nth, curve in enumerate(drawn)
    ]


def flags(signs: Sequence[Sign]) -> list[Flag]:
    """The marks of *signs* in a panel."""
    few = len(signs) < _CROWDED
    return [
        Flag(
            *(sign.number, sign.first, sign.last, str(sign.kind) if few else ""),
            good=sign.kind == Kind.CONVERGED,
        )
        for sign in sorted(signs, key=lambda each: each.first)
    ]


def thinned(points: list[_Point], lines: int) -> list[_Point]:
    """*points*, or every so many of them and the last one, where a screen could not show all."""
    stride = -(-len(points) // max(_FEWEST, _POINTS // max(1, lines)))
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def rounded(value: float | None) -> float | None:
    """With six significant digits: a screen shows four, and a page shall stay small."""
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _limits(
    lines: Sequence[Line], drawn: Sequence[Curve]
) -> tuple[tuple[float, float] | None, list[str]]:
    """Give a training that diverges no more than half of the axis; what it then leaves, in words.

    All else would be a flat line beside it.
    """
    calm: list[float] = []
    wild: dict[str, list[float]] = {}
    for line, curve in zip(lines, drawn, strict=True):
        first = _wild_from(line.track.signs)
        for epoch, value in zip(curve.epochs, curve.values, strict=True):
            (calm if epoch < first else wild.setdefault(line.label, [])).append(value)
    if not calm or not wild:
        return None, []
    low, high = min(calm), max(calm)
    span = (high - low) or abs(high) or 1.0
    least, most = low - span, high + span
    beyond = {
        label: max(values, key=lambda value: abs(value - high))
        for label, values in wild.items()
        if min(values) < least or max(values) > most
    }
    if not beyond:
        return None, []
    reached = [value for values in wild.values() for value in values]
    ends = max(least, min(reached)), min(most, max(reached))
    limits = min(low, ends[0]) - 0.05 * span, max(high, ends[1]) + 0.05 * span
    return limits, [f"{label} leaves the picture, to {far:.4g}" for label, far in beyond.items()]


def _wild_from(signs: Iterable[Sign]) -> float:
    """The epoch from which a track diverges."""
    kinds = (Kind.DIVERGING, Kind.DIVERGED)
    return min((sign.first for sign in signs if sign.kind in kinds), default=math.inf)
