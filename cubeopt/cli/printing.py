"""What commands print: facts as JSON or as text, tables, numbers."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cubeopt import logs

_UNLIMITED = 10_000  # columns; what reads a pipe has no edge


def say(text: str) -> None:
    """One line for a person."""
    print(text, flush=True)


def announce(line: str) -> None:
    """One line of a long-running command for a person; where logs are JSON, for whom reads them."""
    if logs.as_json():
        logs.say(line)
    else:
        say(line)


def facts(row: Mapping[str, Any], as_json: bool) -> None:
    """Named values, one a line; or one JSON object."""
    if as_json:
        print_json(row)
        return
    width = max(map(len, row), default=0)
    for name, value in row.items():
        say(f"{name:<{width}}  {cell(value)}")


def print_json(content: Any) -> None:
    """One JSON document; NaN and infinity have no place in it."""
    print(json.dumps(content, indent=2, default=str, allow_nan=False), flush=True)


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], expendable: int = 0
) -> None:
    """A table; numbers stand to the right, with equal decimals.

    Where a terminal is too narrow, headers break at underscores, and then the last *expendable*
    columns are left out from the right, and named.
    """
    console = Console()
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console = Console(width=_UNLIMITED)
    values = [[row[index] for row in rows] for index in range(len(columns))]
    headers = list(columns)
    shown = len(columns)
    drawn = _drawn(headers, values)
    if not _fits(drawn, console):
        headers = [header.replace("_", "_\n") for header in headers]
        drawn = _drawn(headers, values)
    while not _fits(drawn, console) and shown > len(columns) - expendable:
        shown -= 1
        drawn = _drawn(headers[:shown], values[:shown])
    say(title)
    console.print(drawn)
    if shown < len(columns):
        say(
            f"not shown in {console.width} columns: {', '.join(columns[shown:])} "
            "(a wider terminal or --json has them)"
        )


def _drawn(headers: Sequence[str], columns: Sequence[Sequence[Any]]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header, values in zip(headers, columns, strict=True):
        numeric = any(isinstance(value, int | float) for value in values)
        drawn.add_column(Text(header), justify="right" if numeric else "left", overflow="fold")
    for row in zip(*map(_cells, columns), strict=True):
        drawn.add_row(*map(Text, row))
    return drawn


def _fits(drawn: Table, console: Console) -> bool:
    wide = console.options.update(width=_UNLIMITED)
    return Measurement.get(console, wide, drawn).maximum <= console.width


def _cells(values: Sequence[Any]) -> list[str]:
    """A column's values as text; its floats with decimals enough for the smallest of them."""
    exponents = [
        math.floor(math.log10(abs(value)))
        for value in values
        if isinstance(value, float) and math.isfinite(value) and value
    ]
    least, most = min(exponents, default=0), max(exponents, default=0)
    form = ".3e"
    if least >= -5 and most <= 6 and most - least <= 5:
        form = f".{max(0, min(3 - least, 5 - most))}f"
    return [format(value, form) if isinstance(value, float) else cell(value) for value in values]


def error_console() -> Console:
    """Where progress goes, so that standard output holds only facts."""
    return Console(stderr=True)


def cell(value: Any) -> str:
    """A value as it is shown; what could move the cursor is written as an escape."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def number(value: float) -> str:
    """Four significant digits, and always the same for the same value."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
