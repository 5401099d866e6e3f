"""What each part of the cube is worth: the same training without it, over several seeds.

The seeds of a variant train as one pack; variants train side by side, one process each.
"""

import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cubeopt.errors import ConfigError, DivergedError
from cubeopt.lattice import geometry
from cubeopt.service import packs
from cubeopt.service.packs import Pack, Place, Trained
from cubeopt.trial import TrialSpec

WHOLE = "the whole cube"


@dataclass(frozen=True)
class Variant:
    """A training with something taken away, or more of it."""

    name: str
    values: Mapping[str, Any]  # what differs from the configuration


@dataclass(frozen=True)
class Request:
    """What a person asked for."""

    spec: TrialSpec
    variants: Sequence[Variant]  # the whole cube first
    seeds: Sequence[int]
    metric: str
    place: Place


@dataclass(frozen=True)
class Row:
    """What a variant came to."""

    variant: str
    weights: int  # of one trial
    value: float  # of the metric on validation, mean over the seeds
    deviation: float  # over the seeds; 0 for one
    difference: float  # to the whole cube, mean over the seeds, which are paired
    error: float  # standard error of the difference; 0 for one seed
    values: Sequence[float]  # by seed
    metrics: Mapping[str, float]  # means over the seeds, at the last epoch
    seconds: float  # of an epoch of one trial


@dataclass(frozen=True)
class Report:
    """All variants over the same seeds, the whole cube first."""

    metric: str
    epochs: int
    seeds: Sequence[int]
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """A variant has ended an epoch."""

    variant: str
    epoch: int
    epochs: int


def variants(spec: TrialSpec) -> list[Variant]:
    """Without each expert, with a frozen gate, without emergence, with fewer and with more steps.

    One step seldom leads from what is written to what is read: then it is the fewest that do.
    """
    shape = spec.shape
    found = [Variant(WHOLE, {})]
    if len(shape.experts) > 1:
        for expert in shape.experts:
            others = [str(other) for other in shape.experts if other is not expert]
            found.append(Variant(f"without {expert}", {"experts": others}))
    if shape.gate == "learned" and len(shape.experts) > 1:
        found.append(Variant("gate frozen", {"gate": "frozen"}))
    if spec.loss.emergence_weight > 0:
        found.append(Variant("emergence off", {"emergence_weight": 0.0}))
    fewest = max(1, geometry.fewest_steps(geometry.geometry(shape)) or 1)
    if fewest < shape.lattice_steps:
        name = "one step" if fewest == 1 else f"{fewest} steps, the fewest"
        found.append(Variant(name, {"lattice_steps": fewest}))
    twice = 2 * shape.lattice_steps
    return [*found, Variant(f"{twice} steps, twice as many", {"lattice_steps": twice})]


def run(request: Request, stop: threading.Event, tell: Callable[[Progress], None]) -> Report | None:
    """Train every variant; None when *stop* ended it early, DivergedError when one diverges."""

    def heard(at: packs.Progress) -> None:
        if at.diverged:
            raise DivergedError(f"{at.pack}: diverged in epoch {at.epoch}; lower learning_rate")
        tell(Progress(at.pack, at.epoch, at.epochs))

    all_of_them = [_pack(request, variant) for variant in request.variants]
    done = packs.train(all_of_them, request.place, stop, heard)
    if done is None:
        return None
    rows = _rows(done, request.metric)
    return Report(request.metric, request.spec.plan.epochs, tuple(request.seeds), rows)


def _pack(request: Request, variant: Variant) -> Pack:
    """All seeds of one variant."""
    try:
        changed = request.spec.with_values(variant.values)
    except ConfigError as error:
        raise ConfigError(f"{variant.name}: {error}") from error
    return Pack(variant.name, [changed.with_values({"seed": seed}) for seed in request.seeds])


def _rows(done: Sequence[Trained], metric: str) -> list[Row]:
    whole = [end.metrics[f"validation/{metric}"] for end in done[0].ends]
    return [_row(each, metric, whole) for each in done]


def _row(done: Trained, metric: str, whole: Sequence[float]) -> Row:
    rows = [end.metrics for end in done.ends]
    values = [row[f"validation/{metric}"] for row in rows]
    differences = [value - other for value, other in zip(values, whole, strict=True)]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return Row(
        done.pack,
        done.weights,
        statistics.fmean(values),
        _deviation(values),
        statistics.fmean(differences),
        _deviation(differences) / len(values) ** 0.5,
        values,
        {name: statistics.fmean(row[name] for row in rows) for name in names},
        statistics.fmean(row["epoch_seconds"] for row in rows) / len(values),
    )


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def named(spec: TrialSpec, names: Sequence[str]) -> list[Variant]:
    """The whole cube and the variants *names*; ConfigError for one that there is not."""
    known = {variant.name: variant for variant in variants(spec)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"variant {unknown[0]!r}: expected one of {'; '.join(known)}")
    return [known[name] for name in known if not names or name in names or name == WHOLE]
