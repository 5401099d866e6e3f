"""What each part of the cube is worth: the same training without it, over several seeds.

The seeds of a variant train as one pack; variants train side by side, one process each.
"""

import multiprocessing
import signal
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cubeopt.data import dataset
from cubeopt.errors import ConfigError, CubeoptError, DeviceError, DivergedError
from cubeopt.lattice import geometry
from cubeopt.training import device as devices
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import TrialSpec

WHOLE = "the whole cube"
_POLL_SECONDS = 0.2


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
    folder: Path  # of the dataset
    metric: str
    gpu: int | None
    jobs: int  # variants that train side by side


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


@dataclass(frozen=True)
class _Done:
    variant: str
    weights: int
    rows: Sequence[Mapping[str, float]]  # by seed, at the last epoch


@dataclass(frozen=True)
class _Failed:
    error: CubeoptError


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
    """Train every variant; None when *stop* ended it early."""
    waiting, done = list(request.variants), dict[str, _Done]()
    running: dict[Any, BaseProcess] = {}
    try:
        while (waiting or running) and not stop.is_set():
            while waiting and len(running) < request.jobs:
                pipe, worker = _started(request, waiting.pop(0))
                running[pipe] = worker
            for speaking in connection.wait(list(running), _POLL_SECONDS):
                heard = _heard(speaking, running)
                if isinstance(heard, Progress):
                    tell(heard)
                    continue
                done[heard.variant] = heard
                running.pop(speaking).join()
    finally:
        for worker in running.values():
            worker.terminate()
            worker.join()
    if stop.is_set():
        return None
    rows = _rows([done[variant.name] for variant in request.variants], request.metric)
    return Report(request.metric, request.spec.plan.epochs, tuple(request.seeds), rows)


def _started(request: Request, variant: Variant) -> tuple[Connection, BaseProcess]:
    """The training of *variant* in a process of its own, and what it will say."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_train, args=(theirs, variant, request), daemon=True)
    worker.start()
    theirs.close()
    return ours, worker


def _heard(pipe: Any, running: Mapping[Any, BaseProcess]) -> Progress | _Done:
    try:
        heard = pipe.recv()
    except EOFError as error:
        running[pipe].join()
        raise DeviceError(
            f"a training process ended with exit code {running[pipe].exitcode}; "
            "is there enough memory? try fewer --jobs"
        ) from error
    if isinstance(heard, _Failed):
        raise heard.error
    assert isinstance(heard, Progress | _Done)
    return heard


def _train(pipe: Connection, variant: Variant, request: Request) -> None:
    """All seeds of one variant as a pack; Ctrl-C is its parent's, who ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pipe.send(_trained(pipe, variant, request))
    except CubeoptError as error:
        pipe.send(_Failed(type(error)(f"{variant.name}: {error}")))


def _trained(pipe: Connection, variant: Variant, request: Request) -> _Done:
    changed, seeds = request.spec.with_values(variant.values), request.seeds
    device = devices.prepare(request.gpu)
    feed = Feed(dataset.load(request.folder), changed.plan.task, device)
    pack = PackRun(changed.shape, len(seeds), feed)
    for slot, seed in enumerate(seeds):
        pack.fill(slot, pack.fresh(changed.with_values({"seed": seed})))
    last: dict[int, Mapping[str, float]] = {}
    for _ in range(changed.plan.epochs * pack.steps_per_epoch):
        ends = pack.step()
        for end in ends:
            if end.diverged:
                raise DivergedError(f"diverged in epoch {end.epoch}; lower learning_rate")
            last[end.slot] = end.metrics
        if ends:
            pipe.send(Progress(variant.name, ends[0].epoch, changed.plan.epochs))
    return _Done(variant.name, pack.cube.layout.size, [last[slot] for slot in range(len(seeds))])


def _rows(done: Sequence[_Done], metric: str) -> list[Row]:
    whole = [row[f"validation/{metric}"] for row in done[0].rows]
    return [_row(each, metric, whole) for each in done]


def _row(done: _Done, metric: str, whole: Sequence[float]) -> Row:
    values = [row[f"validation/{metric}"] for row in done.rows]
    differences = [value - other for value, other in zip(values, whole, strict=True)]
    names = [name for name in done.rows[0] if all(name in row for row in done.rows)]
    return Row(
        done.variant,
        done.weights,
        statistics.fmean(values),
        _deviation(values),
        statistics.fmean(differences),
        _deviation(differences) / len(values) ** 0.5,
        values,
        {name: statistics.fmean(row[name] for row in done.rows) for name in names},
        statistics.fmean(row["epoch_seconds"] for row in done.rows) / len(values),
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
