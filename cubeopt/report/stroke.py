"""How things look in the picture of a study, in both panels and both painters.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; state is told by
width, dash and marker as well.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

AXES = {
    "fvu": "fvu: fraction of variance unexplained (0 perfect, 1 the mean)",
    "cosine": "cosine to the target (1 perfect)",
    "top1": "top1: outputs that find their own target (1 perfect)",
    "mrr": "mrr: mean reciprocal rank of the own target (1 perfect)",
    "effective_rank": "effective_rank: directions along which the outputs vary",
    "specialisation": "specialisation: bits the gate's choice tells of cell, sample and step",
    "parameters": "parameters: weights of one trial's cube",
}


@dataclass(frozen=True)
class Style:
    """How the runs of one state look, in both panels and both painters."""

    label: str
    color: str
    width: float
    dash: str  # plotly's name
    marker: str  # plotly's name
    size: float


STYLES = {
    "pruned": Style("pruned", "#999999", 1.0, "solid", "x-thin", 5),
    "failed": Style("failed", "#CC79A7", 1.5, "dot", "triangle-up", 7),
    "running": Style("running", "#56B4E9", 1.8, "dash", "circle-open", 6),
    "infeasible": Style("complete, breaks a constraint", "#E69F00", 1.2, "solid", "x-thin", 7),
    "complete": Style("complete", "#0072B2", 1.8, "solid", "circle", 6),
    "full": Style("full run", "#D55E00", 3.5, "solid", "star", 13),
}
FRONT = Style("front: no result is better in both", "#009E73", 1.5, "solid", "circle-open", 14)


@dataclass(frozen=True)
class Stroke:
    """Points of one style; where *ys* has a NaN the pen is lifted."""

    style: Style
    label: str
    xs: list[float]
    ys: list[float]
    notes: list[str]  # what the page shows under the mouse
    opacity: float


def within(value: float, limits: tuple[float, float]) -> float:
    """*value*, or where it lies outside a place at the edge."""
    margin = 0.02 * (limits[1] - limits[0])
    return min(max(value, limits[0] + margin), limits[1] - margin)


def limits_of(values: Sequence[float], levels: Sequence[float]) -> tuple[float, float]:
    """The ends of the value axis: all but far outliers, and every baseline."""
    return around([*inner(values), *levels])


def inner(values: Sequence[float]) -> tuple[float, ...]:
    """The least and the greatest of *values* that is no far outlier; nothing of nothing."""
    kept = list(values)
    if len(values) >= 4:
        first, _, third = statistics.quantiles(values, n=4)
        reach = 3 * max(third - first, 1e-3 * abs(third))
        kept = [value for value in values if first - reach <= value <= third + reach]
    return (min(kept), max(kept)) if kept else ()


def around(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that has room for all *values*."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin
