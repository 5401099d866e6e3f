"""Results with two objectives in an order: by the front they stand on, then by crowding distance.

A result *dominates* another when it is nowhere worse and somewhere better. Front 0 are those that
no other dominates, front 1 those that only front 0 dominates, and so on. On a front, those with
the widest gap between their neighbours come first, its two ends before all: they keep the choice
wide. That is the order of NSGA-II (Deb et al. 2002, doi 10.1109/4235.996017), with which Schmucker
et al. 2021 (arXiv 2106.12639) extend asynchronous successive halving to several objectives.

N results.
"""

import bisect
import math
from collections.abc import Collection, Iterable, Mapping

Losses = tuple[float, float]  # finite; less is better


def dominates(one: Losses, other: Losses) -> bool:
    """Whether *one* is nowhere worse and somewhere better."""
    return one[0] <= other[0] and one[1] <= other[1] and one != other


def fronts(points: Iterable[Losses]) -> list[list[Losses]]:
    """The distinct *points*, front by front, each front by its first loss; in N log N.

    In that order nothing that comes later dominates what is there, so a point belongs to the first
    front whose least second loss is above its own.
    """
    found: list[list[Losses]] = []
    least: list[float] = []  # second loss of each front; rises from front to front
    for point in sorted(set(points)):
        place = bisect.bisect_right(least, point[1])
        if place == len(found):
            found.append([])
            least.append(point[1])
        found[place].append(point)
        least[place] = point[1]
    return found


def crowding(front: list[Losses]) -> dict[Losses, float]:
    """The crowding distance of each point of a *front*, given by its first loss; 0 to 2.

    The gap between the neighbours, in shares of the front's extent, over both losses; infinite at
    the ends. Equal results are one point, and share its distance.
    """
    if len(front) < 3:
        return dict.fromkeys(front, math.inf)
    (left, top), (right, bottom) = front[0], front[-1]
    gaps = {
        point: (after[0] - before[0]) / (right - left) + (before[1] - after[1]) / (top - bottom)
        for before, point, after in zip(front, front[1:], front[2:], strict=False)
    }
    return {front[0]: math.inf, **gaps, front[-1]: math.inf}


def ranked(results: Mapping[int, Losses]) -> list[int]:
    """The numbers of *results*, the first first; of equals the lower number."""
    keys = _keys(results.values())
    return sorted(results, key=lambda number: (*keys[results[number]], number))


def first_front(results: Mapping[int, Losses]) -> list[int]:
    """The numbers of the results that no other dominates, by their first loss."""
    front = set(next(iter(fronts(results.values())), []))
    return sorted(
        (number for number, point in results.items() if point in front),
        key=lambda number: (results[number], number),
    )


def ahead(point: Losses, others: Collection[Losses]) -> int:
    """How many of *others* stand before *point* among them all."""
    keys = _keys([point, *others])
    return sum(keys[other] < keys[point] for other in others)


def _keys(points: Iterable[Losses]) -> dict[Losses, tuple[int, float]]:
    return {
        point: (place, -distance)
        for place, front in enumerate(fronts(points))
        for point, distance in crowding(front).items()
    }
