"""A chart painted by matplotlib, as a PNG: plotly's own images need a browser."""

import io
import math
import textwrap
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FormatStrFormatter,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from cubeopt.report import palette
from cubeopt.report.chart import Axis, Bars, Chart, Label, Line, Mark, Points, Rule, Spans

WIDTH = 1200  # pixels
_HEADER, _LINE, _SCALE = 64, 17, 1.25  # pixels above the axes; of a line of text; of the height
_DPI, _EDGE = 100, 14  # pixels of an inch, and free at the edges
_LETTERS = 165  # in a line
_TICKS = 8  # at most, on a logarithmic axis
_CROWDED = 16  # names on an axis that no longer stand side by side
_DASHES = {"solid": "-", "dot": ":", "dash": "--"}
_MARKERS = {
    "circle": "o",
    "circle-open": "o",
    "x": "x",
    "triangle": "^",
    "diamond": "D",
    "star": "*",
    "bar": "_",
}
_ALIGN = {"left": "left", "center": "center", "right": "right"}


def png(chart: Chart) -> bytes:
    """*chart* as an image, with its title, sentence and notes."""
    notes = (f"{note[:1].upper()}{note[1:]}." for note in chart.notes)
    said = [*([chart.sentence] if chart.sentence != chart.empty else []), *notes]
    canvas = sheet(chart.title, said, _SCALE * chart.height)
    axes = canvas.subplots()
    if chart.empty:
        axes.set_axis_off()
        said_there = "\n".join(_lines(chart.empty, 70))
        there = axes.text(0.5, 0.5, said_there, transform=axes.transAxes, fontsize=13)
        there.set(ha="center", va="center", color=palette.INK)
    else:
        for mark in chart.marks:
            _add(mark, axes)
        _prepare(axes, chart)
    return content(canvas)


def sheet(title: str, said: Sequence[str], below: float, width: int = WIDTH) -> Figure:
    """An image with *title* and the sentences *said*, and *below* them so many pixels left free."""
    lines = [line for sentence in said for line in _lines(sentence, width * _LETTERS // WIDTH)]
    header = _HEADER + _LINE * len(lines)
    height = header + below
    canvas = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(canvas)
    left = _EDGE / width
    canvas.text(left, 1 - 24 / height, literal(title), fontsize=14, color=palette.INK)
    below_it = canvas.text(left, 1 - 34 / height, literal("\n".join(lines)), va="top")
    below_it.set(fontsize=9.5, color=palette.QUIET, linespacing=1.3)
    canvas.set_layout_engine(
        "constrained",
        rect=(0, 0, 1, 1 - (header - 12) / height),
        w_pad=_EDGE / _DPI,
        h_pad=8 / _DPI,
    )
    return canvas


def content(canvas: Figure) -> bytes:
    """*canvas* as a PNG."""
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png")
    return buffer.getvalue()


def _lines(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


@singledispatch
def _add(mark: Mark, axes: Axes) -> None:
    raise AssertionError(f"no painter of {type(mark).__name__}")


@_add.register
def _(mark: Line, axes: Axes) -> None:
    axes.plot(
        [float("nan") if x is None else x for x in mark.xs],
        [float("nan") if y is None else y for y in mark.ys],
        color=mark.color,
        linewidth=mark.width,
        linestyle=_DASHES[mark.dash],
        alpha=mark.opacity,
        label=literal(mark.name) if mark.legend else None,
        drawstyle="steps-post" if mark.steps else "default",
        zorder=2 + mark.width / 4,
    )


@_add.register
def _(mark: Points, axes: Axes) -> None:
    axes.plot(
        mark.xs,
        mark.ys,
        color=mark.color,
        linestyle="none",
        marker=_MARKERS[mark.marker],
        markersize=mark.size * (1.25 if mark.marker == "star" else 0.85),
        markerfacecolor="none" if mark.marker == "circle-open" else mark.color,
        markeredgewidth=2.4 if mark.marker == "bar" else 1.2,
        alpha=mark.opacity,
        label=literal(mark.name) if mark.legend else None,
        clip_on=False,
        zorder=4,
    )


@_add.register
def _(mark: Bars, axes: Axes) -> None:
    label = literal(mark.name)
    axes.barh(mark.places, mark.lengths, height=0.62, color=mark.color, label=label, zorder=2)


@_add.register
def _(mark: Spans, axes: Axes) -> None:
    lengths = [end - start for start, end in zip(mark.starts, mark.ends, strict=True)]
    axes.barh(
        mark.places,
        lengths,
        left=mark.starts,
        height=mark.height,
        color=mark.color,
        label=literal(mark.name),
        zorder=2,
    )


@_add.register
def _(mark: Rule, axes: Axes) -> None:
    pen: dict[str, Any] = {
        "color": mark.color,
        "linewidth": 1.3,
        "linestyle": _DASHES[mark.dash],
        "zorder": 1,
    }
    if mark.upright:
        axes.axvline(mark.value, **pen)
        where, across = (mark.value, 1.0), axes.get_xaxis_transform()
        offset, ha, va = (0, 3), "center", "bottom"
    else:
        axes.axhline(mark.value, **pen)
        where, across = (1.0, mark.value), axes.get_yaxis_transform()
        offset, ha, va = (0, 3 if mark.above else -3), "right", "bottom" if mark.above else "top"
    axes.annotate(
        literal(mark.label),
        where,
        xycoords=across,
        xytext=offset,
        textcoords="offset points",
        ha=ha,
        va=va,
        color=palette.INK,
        fontsize=9.5,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
        zorder=5,
    )


@_add.register
def _(mark: Label, axes: Axes) -> None:
    across = axes.get_xaxis_transform() if mark.top else axes.transData
    axes.annotate(
        literal(mark.text),
        (mark.x, 1.0 if mark.top else mark.y),
        xycoords=across,
        xytext=(0, 3 if mark.top else 0),
        textcoords="offset points",
        ha=_ALIGN[mark.anchor],
        va="bottom" if mark.top else "center",
        fontsize=9.5,
        color=palette.INK,
        zorder=5,
    )


def literal(text: str) -> str:
    """A dollar sign is one, and no formula; a name that begins with an underscore has a legend."""
    escaped = text.replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{escaped}" if escaped.startswith("_") else escaped


def _prepare(axes: Axes, chart: Chart) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=palette.INK)
    axes.grid(color="#EEEEEE", zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(literal(chart.x.title), color=palette.INK)
    axes.set_ylabel(literal(chart.y.title), color=palette.INK)
    for axis, across in ((chart.x, True), (chart.y, False)):
        _scale(axes, axis, across)
    if chart.named:
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)


def _scale(axes: Axes, axis: Axis, across: bool) -> None:
    its = axes.xaxis if across else axes.yaxis
    if axis.log:
        (axes.set_xscale if across else axes.set_yscale)("log")
    if axis.limits is not None:
        (axes.set_xlim if across else axes.set_ylim)(*axis.limits)
    elif axis.zero and not axis.log:
        low, high = axes.get_xlim() if across else axes.get_ylim()
        (axes.set_xlim if across else axes.set_ylim)(min(low, 0.0), max(high, 0.0))
    if axis.zero:
        pen: dict[str, Any] = {"color": palette.GREY, "linewidth": 1.2, "zorder": 1}
        axes.axvline(0, **pen) if across else axes.axhline(0, **pen)
    if axis.downwards:
        axes.invert_yaxis()
    if axis.ticks is not None:
        its.set_ticks(list(axis.ticks), [literal(name) for name in axis.ticks.values()])
        its.set_minor_locator(NullLocator())
        if across and len(axis.ticks) > _CROWDED:
            axes.tick_params(axis="x", labelrotation=90)
    else:
        _numbers(axis, its)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from *low* to *high* for a logarithmic axis, at most so many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in (range(1, 10), (1, 2, 3, 5, 7), (1, 2, 5), (1,)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    if len(ticks) < 2:
        inside = MaxNLocator(most).tick_values(low, high)
        return [float(tick) for tick in inside if low <= tick <= high]
    return ticks[:: -(-len(ticks) // most)]


def _numbers(axis: Axis, its: MatplotlibAxis) -> None:
    """Where an axis of numbers has its ticks, and how they are written."""
    if axis.whole:
        its.set_major_locator(MaxNLocator(integer=True))
    if axis.form == ".0%":
        its.set_major_formatter(PercentFormatter(1.0, decimals=0))
    elif axis.log:
        low, high = sorted(its.get_view_interval())
        its.set_major_locator(FixedLocator(log_ticks(low, high, _TICKS)))
        its.set_minor_locator(NullLocator())
        its.set_major_formatter(FormatStrFormatter("%g"))
