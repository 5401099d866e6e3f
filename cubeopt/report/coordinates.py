"""The trials of a study between parallel axes, as rows: its searched values and the result."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from cubeopt.db.tables import RunState
from cubeopt.report.material import Material
from cubeopt.report.progress import evenly
from cubeopt.search import study
from cubeopt.search.objective import finite


@dataclass(frozen=True)
class Scale:
    """One axis: a searched value, or the result at the end."""

    name: str
    low: str  # what stands at its lower end
    high: str
    log: bool
    choices: list[str] | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Thread:
    """One complete trial: where it stands on each axis, from 0 to 1; None where it has no value."""

    trial: int
    value: float
    best: bool  # among the few best
    places: list[float | None]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Coordinates:
    """Of the complete trials of a study, at most as many as were asked for."""

    scales: list[Scale]
    threads: list[Thread]  # the best first
    complete: int


def coordinates(found: Material, most: int) -> Coordinates:
    """The best tenth of what is drawn, at most *most*, and others evenly chosen.

    On the last axis the best result stands at the top.
    """
    params = {trial.number: trial.params for trial in found.trials}
    minimize = found.study.direction == "minimize"
    ranked = sorted(
        (
            (value, run.trial_number)
            for run in found.short
            if run.state == RunState.COMPLETE and (value := finite(run.value)) is not None
        ),
        key=lambda pair: (pair[0] if minimize else -pair[0], pair[1]),
    )
    count = max(1, min(len(ranked), most) // 10)
    chosen = [*ranked[:count], *evenly(ranked[count:], most - count)]
    distributions = study.stored(found.study.spec).distributions()
    best, worst = (chosen[0][0], chosen[-1][0]) if chosen else (0.0, 1.0)
    return Coordinates(
        scales=[
            *(_scale(name, each) for name, each in distributions.items()),
            Scale(found.study.metric, f"{worst:.4g}", f"{best:.4g}", False, None),
        ],
        threads=[
            Thread(
                number,
                value,
                place < count,
                [
                    *(
                        _place(each, params[number].get(name))
                        for name, each in distributions.items()
                    ),
                    (value - worst) / (best - worst) if best != worst else 0.5,
                ],
            )
            for place, (value, number) in enumerate(chosen)
        ],
        complete=len(ranked),
    )


def _scale(name: str, distribution: BaseDistribution) -> Scale:
    if isinstance(distribution, CategoricalDistribution):
        choices = [str(choice) for choice in distribution.choices]
        return Scale(name, choices[0], choices[-1], False, choices)
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    log = bool(distribution.log)  # type: ignore[attr-defined]
    return Scale(name, f"{low:g}", f"{high:g}", log, None)


def _place(distribution: BaseDistribution, value: Any) -> float | None:
    """From 0 to 1; None without such a value, or with one outside the space as it is now."""
    if value is None:
        return None
    if isinstance(distribution, CategoricalDistribution):
        choices: Sequence[Any] = distribution.choices
        return choices.index(value) / (len(choices) - 1) if value in choices else None
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    if distribution.log:  # type: ignore[attr-defined]
        low, high, value = math.log(low), math.log(high), math.log(value) if value > 0 else math.nan
    share = (value - low) / (high - low)
    return share if -1e-9 <= share <= 1 + 1e-9 else None
