"""A chart as a value: what is drawn, said once for the painters of pages and of images.

Coordinates are numbers; an axis whose places have names says so by its ticks. Where a line's y is
None the pen is lifted. Every chart has the same facts as a table, for those who cannot see it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cubeopt.report import palette

Dash = Literal["solid", "dot", "dash"]
Marker = Literal["circle", "circle-open", "x", "triangle", "diamond", "star", "bar"]


@dataclass(frozen=True)
class Axis:
    """One of the two axes, with its unit in the title."""

    title: str
    log: bool = False
    zero: bool = False  # zero belongs into the picture, and has a line
    limits: tuple[float, float] | None = None  # else as far as the marks go
    ticks: Mapping[float, str] | None = None  # names of places; else numbers
    whole: bool = False  # ticks at whole numbers only
    downwards: bool = False  # rises from top to bottom
    form: str = ""  # of its numbers: ".0%"


@dataclass(frozen=True)
class Line:
    """Points that are joined; None lifts the pen."""

    name: str
    color: str
    xs: Sequence[float | None]
    ys: Sequence[float | None]
    width: float = 2.0
    dash: Dash = "solid"
    opacity: float = 1.0
    steps: bool = False  # level up to the next point
    notes: Sequence[str] = ()
    legend: bool = True


@dataclass(frozen=True)
class Points:
    """Points that are not joined."""

    name: str
    color: str
    xs: Sequence[float]
    ys: Sequence[float]
    marker: Marker = "circle"
    size: float = 7.0
    opacity: float = 1.0
    notes: Sequence[str] = ()
    legend: bool = True


@dataclass(frozen=True)
class Bars:
    """Bars from zero to the right, one at each place of the y axis."""

    name: str
    color: str
    places: Sequence[float]
    lengths: Sequence[float]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Spans:
    """Stretches from left to right at places of the y axis, as of time."""

    name: str
    color: str
    places: Sequence[float]
    starts: Sequence[float]
    ends: Sequence[float]
    height: float = 0.8
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Rule:
    """A line across the chart, level or upright, with its name at its end."""

    value: float
    label: str = ""
    upright: bool = False
    color: str = palette.QUIET
    dash: Dash = "dash"
    above: bool = True  # where the label of a level one stands


@dataclass(frozen=True)
class Label:
    """A few words at a place."""

    x: float
    y: float
    text: str
    anchor: Literal["left", "center", "right"] = "center"
    top: bool = False  # at the upper end of the chart; y does not count


Mark = Line | Points | Bars | Spans | Rule | Label


@dataclass(frozen=True)
class Chart:
    """A picture with its title, the sentence that says what it shows, and its facts as rows."""

    title: str
    sentence: str
    x: Axis
    y: Axis
    marks: Sequence[Mark] = ()
    empty: str | None = None  # what stands there instead of marks, and what to do
    notes: Sequence[str] = ()  # what is left out, and other things to know
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = field(default=())
    height: int = 420  # pixels

    @property
    def named(self) -> bool:
        """Whether it needs a legend."""
        return any(
            isinstance(mark, Line | Points | Spans | Bars)
            and mark.name
            and getattr(mark, "legend", True)
            for mark in self.marks
        )


def blank(title: str, x: Axis, y: Axis, what_to_do: str) -> Chart:
    """The chart of something that is not there yet."""
    return Chart(title, what_to_do, x, y, empty=what_to_do, height=260)


def significant(value: float, digits: int = 6) -> float:
    """*value* as it is drawn: more digits are not seen, but sent."""
    return float(f"{value:.{digits}g}")
