"""The space of a study: what each searched value may be.

A *point* is a mapping of name to value.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
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
    """One searched value: an interval (*low*, *high*) or a list of *choices*."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[tuple[Value, ...] | None, Field(strict=False)] = None

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


def listed(values: Mapping[str, Sequence[Any]]) -> list[Point] | None:
    """Every point that *values* (of each name, in a fixed order) make; None beyond MAX_LISTED."""
    if math.prod(map(len, values.values())) > MAX_LISTED:
        return None
    names = sorted(values)
    combinations = itertools.product(*(values[name] for name in names))
    return [dict(zip(names, each, strict=True)) for each in combinations]


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
