"""The space of a study: what each searched value may be, and which of them a trial has.

A *point* is a mapping of name to value. It holds the values that are *active*: those without a
condition (`when`), and those whose condition the rest of the point meets.
"""

import graphlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

Value = int | float | str
Point = dict[str, Any]

MAX_LISTED = 100_000  # points; a larger space is never written out


class Section(BaseModel):
    """A part of a study file: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(Section):
    """One searched value: an interval (*low*, *high*) or a list of *choices*.

    With *when* only those trials have it in which each named value is among those listed there.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[tuple[Value, ...] | None, Field(strict=False)] = None
    when: dict[str, Annotated[tuple[Value, ...], Field(strict=False, min_length=1)]] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choices or low and high, not both")
            if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
                raise ValueError(
                    f"choices need at least two values, each one once, got {list(self.choices)}"
                )
            return self
        if self.low is None or self.high is None:
            raise ValueError("a searched value needs low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"empty range: low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, got {self.low}")
        return self

    def distribution(self, whole: bool) -> BaseDistribution:
        """Where Optuna draws it from; *whole* numbers only where the value is a count."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(float(self.low), float(self.high), log=self.log)

    def ends(self) -> list[Any]:
        """The values between which, or among which, it is drawn."""
        return list(self.choices) if self.choices is not None else [self.low, self.high]


Search = Mapping[str, Range]


def identity(point: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    """Equal for equal points."""
    return frozenset(point.items())


def ordered(search: Search) -> list[str]:
    """The names in alphabetical order, but each after those that its condition names.

    Raises graphlib.CycleError when conditions wait for each other.
    """
    sorter = graphlib.TopologicalSorter({name: sorted(search[name].when) for name in search})
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        found += ready
        sorter.done(*ready)
    return found


def active(searched: Range, point: Mapping[str, Any]) -> bool:
    """Whether *point* meets the condition of *searched*; what it lacks meets none."""
    return all(name in point and point[name] in some for name, some in searched.when.items())


def kept(search: Search, values: Mapping[str, Any]) -> Point:
    """The point that *values* make, which has of them those that are active."""
    point: Point = {}
    for name in ordered(search):
        if active(search[name], point):
            point[name] = values[name]
    return point


def whole(search: Search, point: Mapping[str, Any]) -> bool:
    """Whether *point* has every value that is active in it, and no other."""
    return set(point) == {name for name, each in search.items() if active(each, point)}


def listed(
    search: Search, values: Mapping[str, Sequence[Any]], limit: float = MAX_LISTED
) -> list[Point] | None:
    """Every point that the *values* of each name make; None when there are more than *limit*."""
    points: list[Point] = [{}]
    for name in ordered(search):
        searched, found = search[name], points
        points = [
            {**point, name: value} if active(searched, point) else point
            for point in found
            for value in (values[name] if active(searched, point) else [None])
        ]
        if len(points) > limit:
            return None
    return points


def corners(search: Search, names: Collection[str]) -> list[Point]:
    """The ends of *names* in every combination, with what their conditions need.

    Where conditions exclude one another, the points lack some of the names.
    """
    needed = set(names)
    while missing := {each for name in needed for each in search[name].when} - needed:
        needed |= missing
    part = {name: search[name] for name in needed}
    points = listed(part, {name: each.ends() for name, each in part.items()}, math.inf)
    assert points is not None
    return points


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether the *distribution* can give *value*."""
    try:
        inner = distribution.to_internal_repr(value)
        return distribution._contains(inner) and distribution.to_external_repr(inner) == value
    except (ValueError, TypeError):
        return False


def every_value(distribution: BaseDistribution) -> list[Any] | None:
    """All values of a choice or of a count; None where there is no end of them."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        if distribution.high - distribution.low >= MAX_LISTED:
            return None
        return list(range(distribution.low, distribution.high + 1))
    return None


def spaced(distribution: BaseDistribution, count: int) -> list[Any]:
    """*count* values from end to end of an interval, evenly on its own scale, each once."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    inner = [at(distribution, index / (count - 1)) for index in range(1, count - 1)]
    return list(dict.fromkeys([distribution.low, *inner, distribution.high]))


def at(distribution: BaseDistribution, share: float) -> Any:
    """The value below which *share* (0 to 1) of the *distribution* lies."""
    if isinstance(distribution, CategoricalDistribution):
        last = len(distribution.choices) - 1
        return distribution.choices[min(int(share * (last + 1)), last)]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        low, high = low - 0.5, high + 0.5
    value = low * (high / low) ** share if distribution.log else low + share * (high - low)
    if isinstance(distribution, IntDistribution):
        value = round(value)
    return min(max(value, distribution.low), distribution.high)


def share(distribution: BaseDistribution, value: Any) -> float:
    """The share of the *distribution* below *value*; the reverse of `at`.

    Of a choice, the middle of its share.
    """
    if isinstance(distribution, CategoricalDistribution):
        return (distribution.choices.index(value) + 0.5) / len(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        return math.log(float(value) / low) / math.log(high / low)
    return (float(value) - low) / (high - low)


def place(distributions: Mapping[str, BaseDistribution], point: Mapping[str, Any]) -> list[float]:
    """*point* as coordinates: shares of intervals, and different choices 1 apart.

    A value that it lacks lies in the middle.
    """
    found: list[float] = []
    for name, distribution in sorted(distributions.items()):
        if isinstance(distribution, CategoricalDistribution):
            chosen = point.get(name)
            found += [math.sqrt(0.5) * (chosen == each) for each in distribution.choices]
        else:
            found.append(share(distribution, point[name]) if name in point else 0.5)
    return found
