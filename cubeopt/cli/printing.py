"""What commands print: facts as JSON or as text, tables, numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def say(text: str) -> None:
    """One line for a person."""
    print(text, flush=True)


def facts(row: Mapping[str, Any], as_json: bool) -> None:
    """Named values, one a line; or one JSON object."""
    if as_json:
        print_json(row)
        return
    width = max(map(len, row), default=0)
    for name, value in row.items():
        say(f"{name:<{width}}  {'-' if value is None else value}")


def print_json(content: Any) -> None:
    """One JSON document; NaN and infinity have no place in it."""
    print(json.dumps(content, indent=2, default=str, allow_nan=False), flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; numbers stand to the right. Without a terminal it is not cut to 80 columns."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*(cell(value) for value in row))
    console.print(drawn)


def error_console() -> Console:
    """Where progress goes, so that standard output holds only facts."""
    return Console(stderr=True)


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return str(value)


def number(value: float) -> str:
    """Four significant digits, and always the same for the same value."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
