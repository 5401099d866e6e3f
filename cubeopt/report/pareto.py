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
    front: Stroke | None  # stairs through the best; None without any


def across(summary: Summary, rows: Sequence[Row], limits: tuple[float, float]) -> Across | None:
    if summary.second is None:
        return None
    values = [row["second_value"] for row in rows if row["second_value"] is not None] or [0.0, 1.0]
    low, high = min(values), max(values)
    logarithmic = 0 < _DECADE * low <= high
    factor = (high / low) ** 0.06 if logarithmic else 1.0
    margin = 0.0 if logarithmic else 0.06 * (high - low) or 0.5
    way = "less" if summary.second_direction == "minimize" else "more"
    return Across(
        f"{AXES.get(summary.second, summary.second)}, {way} is better",
        (low / factor - margin, high * factor + margin),
        logarithmic,
        _stairs(summary, limits),
    )


def _stairs(summary: Summary, limits: tuple[float, float]) -> Stroke | None:
    """Between two runs of the front the line shows what is reached for as much of the second."""
    if not summary.front:
        return None
    cheapest_first = summary.second_direction == "minimize"
    runs = sorted(summary.front, key=lambda run: run.second_value, reverse=not cheapest_first)
    stroke = Stroke(FRONT, f"{FRONT.label} ({len(runs)})", [], [], [], 1.0)
    for run in runs:
        y = within(run.value, limits)
        if stroke.ys:
            stroke.xs.append(run.second_value)
            stroke.ys.append(stroke.ys[-1])
            stroke.notes.append("")
        stroke.xs.append(run.second_value)
        stroke.ys.append(y)
        second = f"{summary.second} {run.second_value:.6g}"
        stroke.notes.append(f"trial {run.trial}: {summary.metric} {run.value:.5g}, {second}")
    return stroke


def place(summary: Summary, row: Row) -> float | None:
    """Where a result stands from left to right; None where it has no place."""
    found: float | None = row["second_value"] if summary.second else row["number"]
    return found
