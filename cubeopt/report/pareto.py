"""Two objectives against each other: where results stand, and the stairs through the front."""

from collections.abc import Sequence
from dataclasses import dataclass

from cubeopt.report.stroke import AXES, FRONT, Stroke, within
from cubeopt.report.summary import Row, Summary

_DECADE = 10.0  # from the least to the most value of an axis, from where on it is logarithmic


@dataclass(frozen=True)
class Across:
    """The second of two objectives, along which the results stand instead of by trial."""

    label: str
    limits: tuple[float, float]
    logarithmic: bool
    front: Stroke | None  # the best runs, to be ringed; None without any
    stairs: tuple[list[float], list[float]]  # through them: for so much of the second, so much


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
