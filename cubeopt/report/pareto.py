"""Two objectives against each other: where results stand, and the stairs through the front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cubeopt.report.stroke import AXES, FRONT, Stroke, within
from cubeopt.report.summary import Row, Summary

_TICKS = 6
_DECADE = 10.0  # from the least to the most value of an axis, from where on it is logarithmic


@dataclass(frozen=True)
class Across:
    """The second of two objectives, along which the results stand instead of by trial."""

    label: str
    limits: tuple[float, float]
    logarithmic: bool
    front: Stroke | None  # the best runs, to be ringed; None without any
    stairs: tuple[list[float], list[float]]  # through them: for so much of the second, so much

    @property
    def ticks(self) -> list[float]:
        """Round numbers, few enough for their names to stand side by side."""
        low, high = self.limits
        if not self.logarithmic:
            step = next(
                size * 10.0**power
                for power in range(-12, 13)
                for size in (1, 2, 5)
                if high - low <= _TICKS * size * 10.0**power
            )
            return [nth * step for nth in range(math.ceil(low / step), math.floor(high / step) + 1)]
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for sizes in ((1, 2, 5), (1, 3), (1,)):
            found = [size * 10.0**power for power in decades for size in sizes]
            found = [tick for tick in found if low <= tick <= high]
            if len(found) <= _TICKS + 1:
                break
        return found

    def share(self, x: float) -> float:
        """How far from the left end *x* stands, from 0 to 1."""
        low, high = self.limits
        if self.logarithmic:
            return math.log(x / low) / math.log(high / low)
        return (x - low) / (high - low)


def across(summary: Summary, rows: Sequence[Row], limits: tuple[float, float]) -> Across | None:
    if summary.second is None:
        return None
    values = [row["second_value"] for row in rows if row["second_value"] is not None] or [0.0, 1.0]
    low, high = min(values), max(values)
    logarithmic = 0 < _DECADE * low <= high
    factor = (high / low) ** 0.06 if logarithmic else 1.0
    margin = 0.0 if logarithmic else 0.06 * (high - low) or 0.5
    front = _front(summary, limits)
    way = "lower" if summary.second_direction == "minimize" else "higher"
    return Across(
        f"{AXES.get(summary.second, summary.second)}, {way} is better",
        (low / factor - margin, high * factor + margin),
        logarithmic,
        front,
        _stairs(front),
    )


def _front(summary: Summary, limits: tuple[float, float]) -> Stroke | None:
    """From the run with the best second value on."""
    if not summary.front:
        return None
    downwards = summary.second_direction == "maximize"
    runs = sorted(summary.front, key=lambda run: run.second_value, reverse=downwards)
    return Stroke(
        FRONT,
        f"{FRONT.label} ({len(runs)})",
        [run.second_value for run in runs],
        [within(run.value, limits) for run in runs],
        [
            f"trial {run.trial}, on the front: {summary.metric} {run.value:.5g}, "
            f"{summary.second} {run.second_value:.6g}"
            + (f", mean of {run.seeds} seeds" if run.seeds > 1 else "")
            for run in runs
        ],
        1.0,
    )


def _stairs(front: Stroke | None) -> tuple[list[float], list[float]]:
    xs: list[float] = []
    ys: list[float] = []
    for x, y in zip(front.xs, front.ys, strict=True) if front else ():
        xs += [x, x] if xs else [x]
        ys += [ys[-1], y] if ys else [y]
    return xs, ys


def place(summary: Summary, row: Row) -> float | None:
    """Where a result stands from left to right; None where it has no place."""
    found: float | None = row["second_value"] if summary.second else row["number"]
    return found


def tick_label(value: float) -> str:
    """ "64k" for 64000: the panel is narrow."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:.6g}{letter}"
    return f"{value:.6g}"
