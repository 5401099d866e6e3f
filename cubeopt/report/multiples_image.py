"""Panels painted by matplotlib: all of one section of a training as one PNG.

What stands around the panels on a page is in the image, too: what the lines are, and the sentences
of the findings that are marked.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FormatStrFormatter,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)

from cubeopt.report import chart_image, multiples, palette
from cubeopt.report.multiples import Curve, Panel
from cubeopt.report.training import Sign, Trainings
from cubeopt.report.training_figures import Section

_COLUMNS = 3
_ROW, _FLAG = 255, 20  # pixels of a row of panels, and of a row of flags above it
_FLAGS = 4  # rows of flags
_FEW = 30  # points: each is seen
_LETTERS = 52  # in a line below a panel
_SMALL = 9.5  # points of letters
_DASHES: dict[str, Any] = {"solid": "-", "dot": ":", "dash": "--"}
_PROMOTED: Any = (0, (6, 2))
_TICKS = 5  # at most, on an axis of values


def png(section: Section, shown: Trainings, title: str) -> bytes:
    """The panels of *section* of the trainings *shown*, under *title*."""
    return chart_image.content(picture(section, shown, title))


def picture(section: Section, shown: Trainings, title: str) -> Figure:
    """The same before it is a PNG."""
    panels = [panel for panel in section.panels if panel.curves]
    rows = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    flags = [max(min(_FLAGS, len(panel.flags)) for panel in row) for row in rows]
    heights = [_ROW + _FLAG * some for some in flags]
    said = [section.about, *_sentences(panels, shown.signs)]
    canvas = chart_image.sheet(title, said, sum(heights) + 40)
    columns = _COLUMNS if len(panels) >= _COLUMNS else 2
    grid = canvas.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _paint(axes, panel, flags[panels.index(panel) // _COLUMNS])
    _name_lines(canvas, section, shown, panels)
    return canvas


def _sentences(panels: Sequence[Panel], signs: Sequence[Sign]) -> list[str]:
    """What the flags stand for, as the page says it."""
    marked = {flag.number for panel in panels for flag in panel.flags}
    return [
        f"{' '.join(filter(None, [str(each.number), each.kind, each.subject]))} "
        f"({each.label}): {each.sentence}"
        for each in signs
        if each.number in marked
    ]


def _paint(axes: Axes, panel: Panel, flags: int) -> None:
    """*panel*, below as much room as *flags* rows of flags need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=palette.INK, labelsize=_SMALL)
    axes.grid(color="#EEEEEE", zorder=0)
    axes.set_axisbelow(True)
    title = chart_image.literal(panel.title)
    axes.set_title(title, loc="left", fontsize=11, color=palette.INK, pad=6 + 14.4 * flags)
    lacks = textwrap.wrap(panel.lacks, _LETTERS)
    below = "\n".join(["epoch", *map(chart_image.literal, lacks)])
    axes.set_xlabel(below, fontsize=_SMALL, color=palette.INK)
    axes.set_ylabel(chart_image.literal(panel.unit), fontsize=_SMALL, color=palette.INK)
    for curve in panel.curves:
        _draw(axes, curve)
    _scale(axes, panel)
    for x in panel.promotions:
        axes.axvline(x, color=palette.GREY, linewidth=1, linestyle=_PROMOTED, zorder=1)
    _raise_flags(axes, panel)


def _draw(axes: Axes, curve: Curve) -> None:
    axes.plot(
        curve.epochs,
        curve.values,
        color=curve.color,
        linestyle=_DASHES[curve.dash],
        linewidth=0.9 * curve.width,
        marker="o" if len(curve.epochs) <= _FEW else None,
        markersize=3.5,
        zorder=3,
    )


def _scale(axes: Axes, panel: Panel) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(chart_image.log_ticks(*axes.get_ylim(), _TICKS)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        return
    axes.yaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    elif panel.zero:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    low, high = axes.get_ylim()
    if low <= 0 <= high:
        axes.axhline(0, color=palette.GREY, linewidth=1.2, zorder=1)


def _raise_flags(axes: Axes, panel: Panel) -> None:
    """As on the page: a line, a band, and above the plot a flag with a number."""
    last = max((epoch for curve in panel.curves for epoch in curve.epochs), default=1)
    for nth, flag in enumerate(panel.flags):
        tint, ground = (
            (palette.GREEN, palette.DEEP_GREEN)
            if flag.good
            else (palette.VERMILION, palette.DEEP_VERMILION)
        )
        axes.axvline(flag.first, color=tint, linewidth=1.4, linestyle=":", zorder=2)
        if flag.last > flag.first:
            axes.axvspan(flag.first, flag.last, color=tint, alpha=0.07, linewidth=0, zorder=1)
        axes.annotate(
            f"{flag.number} {flag.words}".strip(),
            (flag.first, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 4 + 14.4 * (nth % _FLAGS)),
            textcoords="offset points",
            ha="right" if flag.first > last / 2 else "left",
            va="bottom",
            fontsize=8.5,
            color="white",
            bbox={"facecolor": ground, "edgecolor": "none", "pad": 1.5},
            zorder=5,
        )


def _name_lines(
    canvas: Figure, section: Section, shown: Trainings, panels: Sequence[Panel]
) -> None:
    """What the colours and the dashes are."""
    named: list[tuple[str, str, Any]] = [(name, tint, "-") for name, tint in section.legend]
    if not named:
        colors = (multiples.color(nth) for nth in range(len(shown.tracks)))
        named = [
            (track.label, tint, _DASHES[dash])
            for track, (tint, dash) in zip(shown.tracks, colors, strict=True)
        ]
    if any(curve.dash == "dot" for panel in panels for curve in panel.curves):
        named.append(("dotted: the same on validation", palette.QUIET, ":"))
    if any(panel.promotions for panel in panels):
        named.append(("promoted to a full run", palette.GREY, _PROMOTED))
    lines = [Line2D([], [], color=tint, linestyle=dash, linewidth=2) for _, tint, dash in named]
    labels = [chart_image.literal(name) for name, _, _ in named]
    canvas.legend(lines, labels, loc="outside lower center", ncols=6, frameon=False)
