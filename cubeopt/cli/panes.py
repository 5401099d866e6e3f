"""Blocks of lines that fit a terminal of any size: what matters less goes first, and is named."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cubeopt.cli.printing import cell, number

WIDE = 124  # columns from which on there are two of panes
_GAP = 3  # columns between the two
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*%#"
_PARTS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Pane:
    """A titled block. Of its last lines some may be left out, and all of it if need be."""

    name: str
    lines: list[Text]
    weight: int  # the lowest goes first
    least: int = 1  # lines that it shrinks to
    side: int = 0  # of two columns: 0 left, 1 right


@dataclass(frozen=True)
class Pen:
    """How things are drawn on a terminal: in Unicode, or in ASCII where its encoding is another."""

    ascii: bool = False

    @staticmethod
    def of(console: Console) -> "Pen":
        return Pen(console.options.ascii_only)

    @property
    def dots(self) -> str:
        return "..." if self.ascii else "…"

    @property
    def rule(self) -> str:
        return "|" if self.ascii else "│"

    def bar(self, share: float, width: int, style: str = "cyan") -> Text:
        """A bar of *width* cells, *share* of it full."""
        share = min(1.0, max(0.0, share))
        if self.ascii:
            full = round(share * (width - 2))
            return Text(f"[{'#' * full}{'.' * (width - 2 - full)}]", style)
        eighths = round(share * width * 8)
        full, part = divmod(eighths, 8)
        done = "█" * full + (_PARTS[part] if part else "")
        return Text.assemble((done, style), ("░" * (width - len(done)), "dim"))

    def spark(self, values: Sequence[float | None], width: int) -> str:
        """The course of *values* in at most *width* cells, each from the least to the greatest.

        A cell has the mean of what falls into it; what is not finite is an x.
        """
        shown = values[-1:] if width < 1 else values
        groups = [
            shown[at * len(shown) // width : (at + 1) * len(shown) // width] for at in range(width)
        ]
        cells = [_mean(group) for group in groups if group] if len(shown) > width else list(shown)
        known = [each for each in cells if each is not None and math.isfinite(each)]
        if not known:
            return "x" * len(cells)
        low, span = min(known), max(known) - min(known)
        marks = _ASCII_BARS if self.ascii else _BARS
        return "".join(
            "x"
            if each is None or not math.isfinite(each)
            else marks[round((each - low) / span * 7) if span else 0]
            for each in cells
        )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None and math.isfinite(each)]
    return math.fsum(known) / len(known) if known else None


def grid(
    rows: Sequence[Sequence[Any]],
    header: Sequence[str] | None = None,
    left: Iterable[int] = (0,),
    indent: int = 2,
) -> list[Text]:
    """Rows of cells as lines, in columns; all but the columns *left* stand to the right.

    A column that is empty in all rows is left out.
    """
    words = [[_word(each) for each in row] for row in rows]
    if header is not None:
        words.insert(0, [Text(each, "dim") for each in header])
    if not words:
        return []
    widths = [max(cell_len(row[nth].plain) for row in words) for nth in range(len(words[0]))]
    told = words if header is None else words[1:]
    kept = [nth for nth in range(len(widths)) if any(row[nth].plain for row in told)]
    to_left = frozenset(left)
    lines = []
    for row in words:
        line = Text(" " * indent)
        for place, nth in enumerate(kept):
            space = " " * (widths[nth] - cell_len(row[nth].plain))
            line.append("  " if place else "")
            line.append_text(row[nth]) if nth in to_left else line.append(space)
            line.append(space) if nth in to_left else line.append_text(row[nth])
        line.rstrip()
        lines.append(line)
    return lines


def _word(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    return Text("" if value is None else number(value) if isinstance(value, float) else cell(value))


def column(size: tuple[int, int | None]) -> int:
    """How wide a pane is on a terminal of *size*."""
    width, height = size
    return width if width < WIDE or height is None else (width - _GAP) // 2


def wrapped(text: str, width: int, style: str, title: str = "") -> list[Text]:
    """*text* in lines of at most *width*, after a bold *title*, further ones indented."""
    parts = textwrap.wrap(cell(text), max(20, width - 2), initial_indent=" " * len(title))
    lines = [Text(part if not nth else f"  {part}", style) for nth, part in enumerate(parts)]
    if lines and title:
        lines[0] = Text.assemble((title, f"bold {style}"), (parts[0][len(title) :], style))
    return lines


def clock(seconds: float) -> str:
    """A stretch of time in its two greatest units: "3 h 20 min", "45 s"."""
    whole = round(max(0.0, seconds))
    for size, unit, part, small in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def fitted(
    title: list[Text], panes: Sequence[Pane], size: tuple[int, int | None], pen: Pen
) -> list[Text]:
    """*title* and *panes* as lines for a terminal of *size* (columns, rows or None: no end).

    What has no room is named in the last line.
    """
    width, height = size
    shown = [pane for pane in panes if pane.lines]
    room = None if height is None else max(0, height - len(title))
    if column(size) < width and len({pane.side for pane in shown}) > 1:
        body, missing = _beside(shown, width, room, pen)
    else:
        body, missing = _stacked(shown, room, pen)
    lines = [*title, *body]
    if missing:
        lines.append(Text(f"a larger terminal also has: {', '.join(missing)}", "dim"))
    for line in lines:
        line.truncate(width, overflow="ellipsis" if not pen.ascii else "crop")
    return lines[:height]


def _beside(
    panes: Sequence[Pane], width: int, room: int | None, pen: Pen
) -> tuple[list[Text], list[str]]:
    half = column((width, 0))
    (left, lacks), (right, others) = (
        _stacked([pane for pane in panes if pane.side == side], room, pen) for side in (0, 1)
    )
    if (lacks or others) and room is not None:  # the line that says so
        (left, lacks), (right, others) = (
            _stacked([pane for pane in panes if pane.side == side], room - 1, pen, said=True)
            for side in (0, 1)
        )
    lines = []
    for nth in range(max(len(left), len(right))):
        line = left[nth].copy() if nth < len(left) else Text()
        line.truncate(half, overflow="crop" if pen.ascii else "ellipsis", pad=True)
        line.append(f" {pen.rule} ", "dim")
        if nth < len(right):
            line.append_text(right[nth])
        lines.append(line)
    return lines, [*lacks, *others]


def _stacked(
    panes: Sequence[Pane], room: int | None, pen: Pen, said: bool = False
) -> tuple[list[Text], list[str]]:
    """One below the other; *said*: the line that names what is missing has its place already."""
    kept = list(panes)
    missing: list[str] = []
    while room is not None and kept and _height(kept) > room - (bool(missing) and not said):
        last = min(kept, key=lambda pane: pane.weight)
        kept.remove(last)
        missing.append(last.name)
    counts = {pane.name: min(len(pane.lines), pane.least) for pane in kept}
    spare = 0
    if room is None:
        counts = {pane.name: len(pane.lines) for pane in kept}
    else:
        spare = room - (bool(missing) and not said) - _height(kept)
        order = sorted(kept, key=lambda pane: -pane.weight)
        while spare and (short := [p for p in order if counts[p.name] < len(p.lines)]):
            for pane in short[:spare]:  # a line to each, so that none takes all the room
                counts[pane.name] += 1
            spare -= len(short[:spare])
    airy = room is None or spare >= len(kept)
    lines: list[Text] = []
    for pane in kept:
        lines += [Text()] if airy and lines else []
        lines += _cut(pane, counts[pane.name], pen)
    return lines, missing


def _height(panes: Sequence[Pane]) -> int:
    """Lines of *panes* that are shrunk as far as they can be."""
    return sum(min(len(pane.lines), pane.least) for pane in panes)


def _cut(pane: Pane, count: int, pen: Pen) -> list[Text]:
    if count >= len(pane.lines):
        return pane.lines
    more = len(pane.lines) - count
    last = pane.lines[count - 1].copy()
    last.append(f"  {pen.dots} and {more} more" if count == 1 else "")
    if count == 1:
        return [last]
    return [*pane.lines[: count - 1], Text(f"  {pen.dots} and {more + 1} more", "dim")]


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], left: Sequence[int] = (0,)
) -> list[Text]:
    """Lines with a header in bold; none without rows."""
    if not rows:
        return []
    lines = grid(rows, header, left, indent=0)
    lines[0].stylize("bold", 0, len(header[0]))
    return lines
