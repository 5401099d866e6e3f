"""What a study will cost, before anything is spent: its epochs, and real steps on this machine."""

import math
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cubeopt.data import dataset
from cubeopt.errors import CubeoptError, DeviceError
from cubeopt.search import forecast
from cubeopt.search.forecast import Epochs, Share
from cubeopt.search.study import StudySpec
from cubeopt.service.packs import interrupts_held
from cubeopt.training import device as devices
from cubeopt.training import loop, throughput
from cubeopt.training.feed import Feed, check_rows
from cubeopt.training.loop import PackRun
from cubeopt.trial import TrialSpec

_MEASURED = 12  # shapes at most, the most frequent
_MEMORY_STEPS = 3
_PASS = 1.0 / 3.0  # of a training step that a pass without a gradient takes
_NUMBERS = 4  # of a weight that a checkpoint holds: itself, two moments, its average
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Cost:
    """What the trials of one shape take on this machine."""

    share: Share
    width: int  # of the pack that trains the most
    step_ms: float  # of one trial, in such a pack
    epoch_seconds: float  # of one trial, with its validation
    bytes: float  # that a process with such a pack takes
    checkpoint_bytes: float  # of a trial


@dataclass(frozen=True)
class Plan:
    """A study before it begins."""

    costs: Sequence[Cost]
    unmeasured: float  # share of the trials whose shapes were too many to measure

    @property
    def epoch_seconds(self) -> float:
        """Of a trial of the mean shape, over the shapes that were measured."""
        return self._mean(lambda cost: cost.epoch_seconds)

    @property
    def checkpoint_bytes(self) -> float:
        return self._mean(lambda cost: cost.checkpoint_bytes)

    def _mean(self, of: Callable[[Cost], float]) -> float:
        known = sum(cost.share.share for cost in self.costs)
        return sum(of(cost) * cost.share.share for cost in self.costs) / known


def plan(
    spec: StudySpec,
    folder: Path,
    gpu: int | None,
    stop: threading.Event,
    tell: Callable[[int, int], None],
) -> Plan | None:
    """Measure *spec* on the dataset in *folder*; None when *stop* ended it early.

    *tell* hears how many shapes of how many are measured.
    """
    check_rows(dataset.load(folder), spec.base_trial.plan.task)
    shares = forecast.shapes(spec)
    measured, rest = shares[:_MEASURED], shares[_MEASURED:]
    costs = []
    for number, share in enumerate(measured):
        tell(number, len(measured))
        trial = spec.base_trial.with_values(share.shape.model_dump(mode="json"))
        best = _apart(_best, (trial, folder, gpu), stop)
        weighed = best and _apart(_weighed, (trial, folder, gpu, best["width"]), stop)
        if not best or not weighed:
            return None
        costs.append(_cost(share, best, weighed))
    tell(len(measured), len(measured))
    return Plan(costs, sum(share.share for share in rest))


def epochs(spec: StudySpec, made: Plan, workers: int) -> Epochs:
    """How far the study comes with so many *workers*, each with a device like this machine's."""
    seconds, limits = made.epoch_seconds, {}
    if spec.budget.hours is not None:
        limits["hours"] = spec.budget.hours * 3600.0 * workers / seconds
    if spec.budget.device_hours is not None:
        limits["device_hours"] = spec.budget.device_hours * 3600.0 / seconds
    return forecast.epochs(spec, limits)


def _cost(share: Share, best: dict[str, float], weighed: dict[str, float]) -> Cost:
    step = 1.0 / best["rate"]
    validation = math.ceil(best["validation_rows"] / share.shape.batch_size) * _PASS
    return Cost(
        share,
        int(best["width"]),
        step * 1e3,
        step * (best["steps"] + validation),
        weighed["bytes"],
        weighed["weights"] * 4.0 * _NUMBERS,
    )


def _best(trial: TrialSpec, folder: Path, gpu: int | None) -> dict[str, float]:
    feed = Feed(dataset.load(folder), trial.plan.task, devices.prepare(gpu))
    found = throughput.best(trial, feed)
    return {
        "width": found.width,
        "rate": found.rate,
        "steps": feed.steps_per_epoch(trial.shape.batch_size),
        "validation_rows": feed.rows("validation"),
    }


def _weighed(trial: TrialSpec, folder: Path, gpu: int | None, width: int) -> dict[str, float]:
    device = devices.prepare(gpu)
    run = PackRun(trial.shape, width, Feed(dataset.load(folder), trial.plan.task, device))
    for slot in range(width):
        run.fill(slot, run.fresh(trial))
    for _ in range(_MEMORY_STEPS):
        run.step()
    return {"bytes": loop.peak_memory(device), "weights": run.cube.layout.size}


def _apart(
    measure: Callable[..., dict[str, float]], given: tuple[Any, ...], stop: threading.Event
) -> dict[str, float] | None:
    """What *measure* finds in a process of its own, whose memory is its own; None if stopped."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_measuring, args=(theirs, measure, given), daemon=True)
    with interrupts_held():
        worker.start()
    theirs.close()
    try:
        while not ours.poll(_POLL_SECONDS):
            if stop.is_set():
                return None
        found = ours.recv()
    except EOFError as error:
        worker.join()
        if stop.is_set():  # the signal that set it has ended the worker, too
            return None
        raise DeviceError(
            f"a measuring process ended with exit code {worker.exitcode}; is there enough memory?"
        ) from error
    finally:
        worker.terminate()
        worker.join()
    if isinstance(found, CubeoptError):
        raise found
    return dict(found)


def _measuring(
    pipe: Connection, measure: Callable[..., dict[str, float]], given: tuple[Any, ...]
) -> None:
    try:
        pipe.send(measure(*given))
    except CubeoptError as error:
        pipe.send(error)
