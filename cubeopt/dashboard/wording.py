"""Numbers and times as pages write them."""

import math
from datetime import datetime


def number(value: float | None) -> str:
    """Four significant digits, as in the terminal; a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return f"{value:.2e}"


def seconds(value: float) -> str:
    """A span of time in its largest unit, or two."""
    whole = round(value)
    for unit, size, smaller, less in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // less
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def moment(text: str) -> str:
    """A time as written in ISO form, to the second and with its zone."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S %Z")
