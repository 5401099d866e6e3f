"""How a colouring of the cells is painted: its scale, and each cell's colour and size.

Decided once for all who paint: plotly, matplotlib, the pages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cubeopt.report.cube import NO_LEAD, Colouring, Frame
from cubeopt.report.palette import BLUE, EXPERTS, FAINT, GREY, VERMILION

# Viridis, which colour-blind eyes see as a rise from dark to light (van der Walt and Smith 2015).
_RISING = (
    *("#440154", "#482878", "#3E4A89", "#31688E", "#26828E", "#1F9E89", "#35B779"),
    *("#6DCD59", "#B4DE2C", "#FDE725"),
)
_AROUND = (BLUE, "#F2F2F2", VERMILION)
_BAND = 0.06  # of the scale: below it, where nothing came
_SMALL, _LARGE = 0.3, 1.25  # times the usual size of a cell


@dataclass(frozen=True)
class Scale:
    """A colour bar: what the numbers from *low* to *high* look like."""

    low: float
    high: float
    stops: Sequence[tuple[float, str]]  # share of the way, colour
    ticks: Sequence[float]
    labels: Sequence[str]
    title: str


def scale(colouring: Colouring) -> Scale:
    """The colour bar of *colouring*."""
    if colouring.scale == "category":
        return _categories(colouring)
    title = colouring.unit
    low, high = _ends(colouring)
    if colouring.scale == "log":
        below = low - _BAND * (high - low)
        first = round((low - below) / (high - below), 6)
        stops = [(0.0, FAINT), (first, FAINT), *_spread(_RISING, first)]
        ticks = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
        ticks = ticks if len(ticks) > 1 else [low, high]
        labels = [f"{10.0**tick:.2g}" for tick in ticks]
        return Scale(below, high, stops, [(below + low) / 2, *ticks], ["none", *labels], title)
    colours = _AROUND if colouring.scale == "diverging" else _RISING
    ticks = [low + share * (high - low) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return Scale(low, high, _spread(colours), ticks, [f"{tick:.3g}" for tick in ticks], title)


def colours(colouring: Colouring, frame: Frame) -> list[float]:
    """Where each cell is on the scale."""
    if colouring.scale != "log":
        return [each or 0.0 for each in frame.values]
    low, high = _ends(colouring)
    nothing = low - _BAND * (high - low) / 2
    return [
        float(f"{max(low, math.log10(each)):.3f}") if each else float(f"{nothing:.3f}")
        for each in frame.values
    ]


def sizes(colouring: Colouring, frame: Frame) -> list[float]:
    """Of each cell, times the usual one."""
    if not colouring.sized:
        return [1.0] * len(frame.values)
    low, high = _ends(colouring)
    shares = [
        0.0
        if not each
        else (max(low, math.log10(each)) - low) / (high - low)
        if colouring.scale == "log"
        else math.sqrt(abs(each) / high)
        for each in frame.values
    ]
    return [round(_SMALL + (_LARGE - _SMALL) * min(1.0, share), 2) for share in shares]


def _ends(colouring: Colouring) -> tuple[float, float]:
    """The ends of the scale, in powers of ten where it is logarithmic."""
    low, high = colouring.low, colouring.high
    if colouring.scale == "log":
        low, high = math.log10(low), math.log10(high)
    return low, high if high - low > 1e-9 else low + 1.0


def _categories(colouring: Colouring) -> Scale:
    names = colouring.categories
    stops = []
    for place, name in enumerate(names):
        colour = GREY if name == NO_LEAD else EXPERTS[name]
        stops += [(place / len(names), colour), ((place + 1) / len(names), colour)]
    ticks = [float(place) for place in range(len(names))]
    return Scale(-0.5, len(names) - 0.5, stops, ticks, names, colouring.title)


def _spread(colours: Sequence[str], first: float = 0.0) -> list[tuple[float, str]]:
    last = len(colours) - 1
    return [
        (round(first + (1.0 - first) * place / last, 6), each) for place, each in enumerate(colours)
    ]
