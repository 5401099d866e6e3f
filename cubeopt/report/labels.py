"""The names of the full runs in the picture of a study, such that none lies over another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

_LINE = 0.036  # the height of a line of text, in shares of the value axis
_NEAR = 0.2  # names whose stars are nearer than this may touch, in shares of the other axis


@dataclass(frozen=True)
class Star:
    """A full run among the results, named."""

    x: float
    y: float
    label: str
    label_y: float  # where its name stands: beside it, or where there is room


def apart(
    stars: Sequence[Star], places: Sequence[float], limits: tuple[float, float]
) -> list[Star]:
    """*stars*, the names of neighbours one line apart, else as near to their stars as that allows.

    *places*: where each stands from left to right, from 0 to 1. *limits*: of the value axis.
    """
    order = sorted(range(len(stars)), key=lambda nth: places[nth])
    groups: list[list[int]] = []
    for before, nth in zip([None, *order], order, strict=False):
        if before is None or places[nth] - places[before] > _NEAR:
            groups.append([])
        groups[-1].append(nth)
    found = list(stars)
    line = _LINE * (limits[1] - limits[0])
    for group in groups:
        group.sort(key=lambda nth: stars[nth].y)
        for nth, y in zip(group, _spread([stars[nth].y for nth in group], line), strict=True):
            found[nth] = replace(stars[nth], label_y=y)
    return found


def _spread(wanted: Sequence[float], line: float) -> list[float]:
    """Rising numbers at least a *line* apart, with the least sum of squared moves from *wanted*.

    The moves less those of an even ladder must rise: isotonic regression, by pooling what falls.
    """
    pools: list[tuple[float, int]] = []  # mean, count
    for nth, each in enumerate(wanted):
        mean, count = each - nth * line, 1
        while pools and pools[-1][0] > mean:
            other, some = pools.pop()
            mean, count = (mean * count + other * some) / (count + some), count + some
        pools.append((mean, count))
    rungs = [mean for mean, count in pools for _ in range(count)]
    return [rung + nth * line for nth, rung in enumerate(rungs)]
