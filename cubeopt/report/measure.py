"""By what a study is judged, as its charts say it: the metric, which way is better, baselines."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cubeopt.report import baselines
from cubeopt.report.chart import Axis, Rule
from cubeopt.report.stroke import AXES, around, inner, within
from cubeopt.report.summary import Summary


@dataclass(frozen=True)
class Measure:
    """The first objective of a study."""

    study: str
    metric: str
    direction: str
    levels: Sequence[tuple[str, float]]  # label and value of each baseline
    state: str = "running"  # of the study

    @property
    def goes_on_with(self) -> str:
        """What to do so that there is more to see."""
        name = shlex.quote(self.study)
        if self.state == "running":
            return f"If no worker is running, start one: cubeopt worker --study {name} --gpu 0"
        return f"The study is {self.state}; let it go on: cubeopt study resume {name}"

    @property
    def better(self) -> str:
        return f"{'lower' if self.direction == 'minimize' else 'higher'} is better"

    @property
    def name(self) -> str:
        """The metric, what its ends mean, and which way is better."""
        _, _, ends = AXES.get(self.metric, "").partition(" (")
        return f"{self.metric} ({ends}, {self.better}" if ends else f"{self.metric}, {self.better}"

    def axis(self, groups: Iterable[Sequence[float]], levels: bool = True) -> Axis:
        """Over all values but the far outliers of each group, and with *levels* every baseline.

        A group are values that compare with each other, as of one epoch.
        """
        ends = [end for group in groups if group for end in inner(group)]
        if levels:
            ends += [value for _, value in self.levels]
        return Axis(self.name, limits=around(ends), zero=True)

    def rules(self) -> list[Rule]:
        """The baselines; of two that are near, the labels stand apart."""
        ordered = sorted(self.levels, key=lambda level: level[1])
        span = ordered[-1][1] - ordered[0][1] if ordered else 0.0
        return [
            Rule(
                value,
                label,
                above=place == len(ordered) - 1 or ordered[place + 1][1] - value > 0.1 * span,
            )
            for place, (label, value) in enumerate(ordered)
        ]


def of(short: Summary) -> Measure:
    return Measure(short.name, short.metric, short.direction, baselines.levels(short), short.state)


def placed(value: float | None, axis: Axis, worst_high: bool) -> float:
    """Where *value* is drawn: far outliers at the edge, and one that is none at the worst edge."""
    assert axis.limits is not None
    edge = float("inf") if worst_high else float("-inf")
    return within(edge if value is None else value, axis.limits)


def beyond(values: Sequence[float], axis: Axis) -> list[str]:
    """A note on the values that are not seen because they lie beyond the edge."""
    return [note.partition(",")[0] for note in outside(values, axis)]


def outside(values: Sequence[float | None], axis: Axis) -> list[str]:
    """A note on the values that stand at the edge because they lie beyond it."""
    assert axis.limits is not None
    low, high = axis.limits
    far = sum(value is not None and not low <= value <= high for value in values)
    none = sum(value is None for value in values)
    said = []
    if far:
        lies = "1 value lies" if far == 1 else f"{far:,} values lie"
        said.append(f"{lies} outside the picture, drawn at its edge")
    if none:
        said.append(f"{none:,} without a finite value, drawn at the worst edge")
    return said
