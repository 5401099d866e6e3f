"""What `cubeopt compare --json` printed, read back as rows for a report, and drawn."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cubeopt.errors import InputError
from cubeopt.report import palette
from cubeopt.report.chart import Axis, Chart, Label, Line, Mark, Points, Rule, significant
from cubeopt.trial import first_problem

_COLORS = (palette.BLUE, palette.VERMILION, palette.GREEN, palette.ORANGE, palette.PURPLE)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Evidence(_Part):
    """The mean difference of the pairs, with its interval and p by sign flips."""

    pairs: int
    mean: float
    low: float
    high: float
    p: float


class Against(_Part):
    """An arm against the first."""

    arm: str
    first: str
    evidence: Evidence | None
    p: float | None
    words: str


class Arm(_Part):
    """A configuration over its seeds."""

    arm: str
    file: str
    weights: int
    mean: float | None
    deviation: float | None
    values: list[float | None]


class Compared(_Part):
    """The part of a comparison that a report shows."""

    metric: str
    direction: str
    epochs: int
    seeds: list[int]
    dataset: str
    arms: Annotated[list[Arm], Field(min_length=2)]
    comparisons: list[Against]
    notes: list[str]
    method: list[str]

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def read(path: Path) -> Compared:
    """The comparison in the file at *path*; InputError says what it is instead."""
    what = "the output of 'cubeopt compare --json'"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give {what}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); give {what}") from error
    try:
        return Compared.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path} is not {what}: {first_problem(error)}") from error


def charts(found: Compared) -> dict[str, Chart]:
    """The values by arm and seed, and the differences to the first arm with their intervals."""
    return {"arms": _arms(found), "differences": _differences(found)}


def _better(found: Compared) -> str:
    return f"{'lower' if found.direction == 'minimize' else 'higher'} is better"


def _arms(found: Compared) -> Chart:
    marks: list[Mark] = []
    for place, arm in enumerate(found.arms):
        pairs = [
            (seed, value)
            for seed, value in zip(found.seeds, arm.values, strict=True)
            if value is not None
        ]
        shift = 0.3 / max(1, len(found.seeds) - 1)
        marks.append(
            Points(
                arm.arm,
                _COLORS[place % len(_COLORS)],
                [place - 0.15 + shift * found.seeds.index(seed) for seed, _ in pairs],
                [significant(value) for _, value in pairs],
                size=8,
                notes=[f"{arm.arm}, seed {seed}: {value:.5g}" for seed, value in pairs],
            )
        )
        if arm.mean is not None:
            note = f"{arm.arm}, mean: {arm.mean:.5g}"
            mean = Points("", palette.INK, [place], [arm.mean], "bar", 40, notes=[note])
            marks.append(mean)
    return Chart(
        "Values of each arm",
        f"{len(found.seeds)} seeds, {found.epochs} epochs each; a bar is the mean of an arm.",
        Axis(
            "arm",
            limits=(-0.6, len(found.arms) - 0.4),
            ticks={place: arm.arm for place, arm in enumerate(found.arms)},
        ),
        Axis(f"{found.metric} on validation, {_better(found)}"),
        marks,
        columns=("arm", "file", "weights", "mean", "deviation", *map(_seed, found.seeds)),
        rows=[
            (arm.arm, arm.file, arm.weights, arm.mean, arm.deviation, *arm.values)
            for arm in found.arms
        ],
    )


def _seed(seed: int) -> str:
    return f"seed {seed}"


def _differences(found: Compared) -> Chart:
    known = [(each, each.evidence) for each in found.comparisons if each.evidence is not None]
    marks: list[Mark] = [Rule(0.0, upright=True, dash="solid", color=palette.INK)]
    for place, (each, told) in enumerate(known):
        marks += [
            Line("", palette.BLUE, [told.low, told.high], [place, place], 3.0, legend=False),
            Points(
                "",
                palette.BLUE,
                [told.mean],
                [place],
                "diamond",
                12,
                notes=[
                    f"{each.arm} - {each.first}: {told.mean:.4g}, {told.low:.4g} to {told.high:.4g}"
                ],
                legend=False,
            ),
            Label(told.mean, place - 0.28, f"p = {told.p if each.p is None else each.p:.3g}"),
        ]
    return Chart(
        "Differences to the first arm",
        " ".join(each.words.rstrip(".") + "." for each in found.comparisons),
        Axis(
            f"difference of {found.metric}, with its 95 % interval "
            f"({'negative' if found.direction == 'minimize' else 'positive'} is better)",
            zero=True,
        ),
        Axis(
            "arm",
            limits=(-0.6, max(1, len(known)) - 0.4),
            ticks={place: f"{each.arm} - {each.first}" for place, (each, _) in enumerate(known)},
            downwards=True,
        ),
        marks,
        empty=None if known else "No arm has two whole pairs of seeds: there is no answer.",
        notes=found.notes,
        columns=("arm", "pairs", "difference", "from", "to", "p"),
        rows=[
            (f"{each.arm} - {each.first}", told.pairs, told.mean, told.low, told.high, each.p)
            for each, told in known
        ],
        height=170 + 60 * max(1, len(known)),
    )
