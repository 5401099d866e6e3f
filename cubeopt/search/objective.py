"""What a study is after: one metric or two, and what no result may break.

With two objectives results stand on fronts (`fronts`). A constraint is a bound to one metric; a
result that breaks one is infeasible: it is never promoted and never the best.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, model_validator

from cubeopt.search.fronts import Losses
from cubeopt.search.space import Search, Section
from cubeopt.trial import Expert, TrialSpec, did_you_mean

Direction = Literal["minimize", "maximize"]
Metric = Literal["fvu", "cosine", "top1", "mrr", "effective_rank", "specialisation"]
DIRECTIONS: dict[Metric, Direction] = {
    "fvu": "minimize",  # fraction of variance unexplained
    "cosine": "maximize",  # of output and target
    "top1": "maximize",  # share of the outputs that find their own target in the split
    "mrr": "maximize",  # mean reciprocal rank of the own target
    "effective_rank": "maximize",  # directions along which the outputs vary
    "specialisation": "maximize",  # bits that the gate's choice tells of cell, sample and step
}
# What a trial costs, whatever it learns. No training changes it, so none is an objective alone.
COSTS: dict[str, Direction] = {
    "parameters": "minimize",  # weights of one trial's cube
}
_TERMS = ("reconstruction", "similarity", "diversity", "emergence", "lattice", "spatial", "ponder")
_BY_TASK = ("fvu", "cosine", "top1", "mrr", "effective_rank")
_BOUND = re.compile(r"\s*([A-Za-z][\w/]*)\s*(>=|<=)\s*([-+]?[\d.]\S*)\s*", re.ASCII)
_UNMEASURED = 10.0  # excess of a trial without the number: it diverged, or never came so far


class Objective(Section):
    """The metric that decides, or two of them; no searched knob scales them.

    Of two, *metric* is the first: the one that curves show and that a single number stands for.
    """

    metric: Metric = "fvu"
    metrics: Annotated[tuple[str, str] | None, Field(strict=False)] = None

    @model_validator(mode="before")
    @classmethod
    def _check(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("metrics") is None:
            return content
        names = content["metrics"]
        if not isinstance(names, list | tuple) or len(names) != 2:
            raise ValueError(f"metrics are two, as in [fvu, parameters], got {names!r}")
        for name in names:
            if name not in (*DIRECTIONS, *COSTS):
                hint = did_you_mean(str(name), frozenset((*DIRECTIONS, *COSTS)))
                raise ValueError(
                    f"no metric is called {name!r}{hint}; there are "
                    f"{', '.join((*DIRECTIONS, *COSTS))}"
                )
        if names[0] == names[1]:
            raise ValueError(f"metrics names {names[0]} twice; for one, write metric: {names[0]}")
        if names[0] in COSTS:
            raise ValueError(
                f"the first of two metrics is one of {', '.join(DIRECTIONS)}; {names[0]} can be "
                "the second"
            )
        if content.get("metric", names[0]) != names[0]:
            raise ValueError("give metric or metrics, not both")
        return {**content, "metric": names[0]}

    @property
    def names(self) -> tuple[str, ...]:
        return self.metrics or (self.metric,)

    @property
    def second(self) -> str | None:
        return self.metrics[1] if self.metrics else None

    @property
    def direction(self) -> Direction:
        """Of the first metric."""
        return DIRECTIONS[self.metric]

    @property
    def directions(self) -> tuple[Direction, ...]:
        return tuple(direction(name) for name in self.names)


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial's metric at its last epoch has to keep."""

    name: str
    at_least: bool
    bound: float

    def __str__(self) -> str:
        whole = self.bound.is_integer() and abs(self.bound) < 1e15
        number = str(int(self.bound)) if whole else repr(self.bound)
        return f"{self.name} {'>=' if self.at_least else '<='} {number}"

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        return finite(metrics.get(key(self.name)))

    def excess(self, metrics: Mapping[str, Any]) -> float:
        """How far *metrics* are beyond the bound, in shares of it; 0 or less: it is kept.

        Shares, since samplers add up the excess of several constraints, whose units differ.
        """
        value = self.value(metrics)
        if value is None:
            return _UNMEASURED
        beyond = self.bound - value if self.at_least else value - self.bound
        return beyond / (abs(self.bound) or 1.0)


@dataclass(frozen=True)
class Goal:
    """What the results of a study are judged by; *metrics* are those of an epoch, as recorded."""

    objective: Objective
    constraints: tuple[Constraint, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What has to be known of an epoch beside the value of the first objective."""
        names = self.objective.metrics or ()
        return tuple(dict.fromkeys(map(key, (*names, *(each.name for each in self.constraints)))))

    def values(self, metrics: Mapping[str, Any]) -> tuple[float, ...] | None:
        """Both objectives; None unless each has a finite number."""
        found = [finite(metrics.get(key(name))) for name in self.objective.names]
        return tuple(x for x in found if x is not None) if None not in found else None

    def losses(self, metrics: Mapping[str, Any]) -> Losses | None:
        """Both objectives such that less is better; None unless each has a finite number."""
        values = self.values(metrics)
        if values is None:
            return None
        first, second = (
            value if way == "minimize" else -value
            for value, way in zip(values, self.objective.directions, strict=True)
        )
        return first, second

    def excesses(self, metrics: Mapping[str, Any]) -> list[float]:
        return [each.excess(metrics) for each in self.constraints]

    def violation(self, metrics: Mapping[str, Any]) -> float:
        """The sum of what is beyond the bounds, in shares of them; 0: feasible."""
        return math.fsum(max(0.0, excess) for excess in self.excesses(metrics))

    def feasible(self, metrics: Mapping[str, Any]) -> bool:
        return self.violation(metrics) == 0.0

    @property
    def costs(self) -> tuple[Constraint, ...]:
        """The bounds to costs, which no training can mend."""
        return tuple(each for each in self.constraints if each.name in COSTS)

    def affordable(self, metrics: Mapping[str, Any]) -> bool:
        """Whether the bounds to costs are kept."""
        return all(each.excess(metrics) <= 0.0 for each in self.costs)

    def broken(self, metrics: Mapping[str, Any]) -> str:
        """The constraints that *metrics* break and by what: "usage_min >= 0.05 (0.01)"."""
        return ", ".join(
            f"{each} ({_number(each.value(metrics))})"
            for each in self.constraints
            if each.excess(metrics) > 0.0
        )


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return str(int(value)) if value.is_integer() else f"{value:.4g}"


def goal_of(content: Mapping[str, Any]) -> Goal:
    """The goal of a study in the storage; *content* is its file, checked before."""
    return Goal(
        Objective.model_validate(content.get("objective", {})),
        _CONSTRAINTS.validate_python(content.get("constraints", ())),
    )


def key(name: str) -> str:
    """Under which name an epoch's metrics have *name*."""
    return name if name in COSTS else f"validation/{name}"


def direction(name: str) -> Direction:
    known = (*DIRECTIONS.items(), *COSTS.items())
    return next(way for each, way in known if each == name)


def finite(value: Any) -> float | None:
    """*value* as a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _read(text: Any) -> Any:
    """The constraint that *text* says."""
    if isinstance(text, Constraint):
        return text
    found = _BOUND.fullmatch(text) if isinstance(text, str) else None
    try:
        number = float(found[3]) if found else math.nan
    except ValueError:
        number = math.nan
    if found is None or not math.isfinite(number):
        raise ValueError(
            f"a constraint is a metric, >= or <=, and a number, as in 'usage_min >= 0.05', "
            f"got {text!r}"
        )
    return Constraint(found[1], found[2] == ">=", number)


Constraints = Annotated[
    tuple[Annotated[Constraint, BeforeValidator(_read), PlainSerializer(str)], ...],
    Field(strict=False),
]
_CONSTRAINTS: TypeAdapter[tuple[Constraint, ...]] = TypeAdapter(Constraints)


def contradiction(constraints: Iterable[Constraint]) -> str | None:
    """Two that stand for one bound, or that no trial can meet both; None when there are none."""
    seen: dict[tuple[str, bool], Constraint] = {}
    for each in constraints:
        if (same := seen.get((each.name, each.at_least))) is not None:
            return f"'{same}' and '{each}' are two bounds of one kind; give one"
        other = seen.get((each.name, not each.at_least))
        low, high = (each, other) if each.at_least else (other, each)
        if low is not None and high is not None and low.bound > high.bound:
            return f"no trial can meet both '{low}' and '{high}'"
        seen[each.name, each.at_least] = each
    return None


def reported(base: TrialSpec, search: Search) -> frozenset[str]:
    """Every metric that some trial's epochs have, and the costs: what a constraint may name."""
    tasks = base.plan.task if len(base.plan.task) > 1 else ()
    gates = ("gate_entropy", "specialisation/cell", "usage_min", "steps")
    return frozenset(
        (
            *DIRECTIONS,
            *COSTS,
            *gates,
            *(f"usage/{expert}" for expert in _experts(base, search)),
            *(f"loss/{term}" for term in _TERMS),
            *(f"{metric}/{task}" for metric in _BY_TASK for task in tasks),
            *(["specialisation/task"] if tasks else []),
        )
    )


def _experts(base: TrialSpec, search: Search) -> Iterable[str]:
    choices = search["experts"].choices if "experts" in search else None
    return [str(each) for each in choices or base.shape.experts if each in set(Expert)]
