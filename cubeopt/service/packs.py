"""Packs of trials to their last epoch, side by side: a process each, and nothing stored."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from cubeopt.data import dataset
from cubeopt.errors import CubeoptError, DeviceError
from cubeopt.training import device as devices
from cubeopt.training.feed import Feed
from cubeopt.training.loop import EpochEnd, PackRun
from cubeopt.trial import TrialSpec

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Pack:
    """Trials of one shape, tasks and number of epochs."""

    name: str  # what errors and bars call it; of each pack another
    trials: Sequence[TrialSpec]


@dataclass(frozen=True)
class Place:
    """On what, and with what, packs are trained."""

    folder: Path  # of the dataset
    gpu: int | None
    jobs: int  # packs that train side by side


@dataclass(frozen=True)
class Progress:
    """A pack has ended an epoch."""

    pack: str
    epoch: int
    epochs: int
    diverged: bool  # some trial in this epoch


@dataclass(frozen=True)
class Trained:
    """A pack at its end."""

    pack: str
    weights: int  # of one trial
    ends: Sequence[EpochEnd]  # by trial: its last epoch, or the one in which it diverged


@dataclass(frozen=True)
class _Failed:
    error: CubeoptError


def train(
    packs: Sequence[Pack],
    place: Place,
    stop: threading.Event,
    tell: Callable[[Progress], None],
) -> list[Trained] | None:
    """Train *packs*, in their order; None when *stop* ended it early.

    What a pack raises, and what *tell* raises, ends them all.
    """
    waiting, done = list(packs), dict[str, Trained]()
    running: dict[Any, BaseProcess] = {}
    try:
        while (waiting or running) and not stop.is_set():
            while waiting and len(running) < place.jobs:
                pipe, worker = _started(waiting.pop(0), place)
                running[pipe] = worker
            for speaking in connection.wait(list(running), _POLL_SECONDS):
                heard = _heard(speaking, running, stop)
                if isinstance(heard, Progress):
                    tell(heard)
                elif heard is not None:
                    done[heard.pack] = heard
                    running.pop(speaking).join()
    finally:
        for worker in running.values():
            worker.terminate()
            worker.join()
    return None if stop.is_set() else [done[pack.name] for pack in packs]


def _started(pack: Pack, place: Place) -> tuple[Connection, BaseProcess]:
    """The training of *pack* in a process of its own, and what it will say."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    worker = context.Process(target=_train, args=(theirs, pack, place), daemon=True)
    with interrupts_held():
        worker.start()
    theirs.close()
    return ours, worker


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits; a process begun here never hears it: its parent ends it, without a traceback.

    A process inherits what is held. The tracker of multiprocessing would let go of it, when begun
    with the first process.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heard(
    pipe: Any, running: Mapping[Any, BaseProcess], stop: threading.Event
) -> Progress | Trained | None:
    """What a process says; None of one that ended by the signal that set *stop*."""
    try:
        heard = pipe.recv()
    except EOFError as error:
        running[pipe].join()
        if stop.is_set():
            return None
        raise DeviceError(
            f"a training process ended with exit code {running[pipe].exitcode}; "
            "is there enough memory? try fewer --jobs"
        ) from error
    if isinstance(heard, _Failed):
        raise heard.error
    assert isinstance(heard, Progress | Trained)
    return heard


def _train(pipe: Connection, pack: Pack, place: Place) -> None:
    try:
        pipe.send(_trained(pipe, pack, place))
    except CubeoptError as error:
        pipe.send(_Failed(type(error)(f"{pack.name}: {error}")))


def _trained(pipe: Connection, pack: Pack, place: Place) -> Trained:
    """All trials of *pack* side by side; one that diverges leaves, and the others go on."""
    plan, device = pack.trials[0].plan, devices.prepare(place.gpu)
    feed = Feed(dataset.load(place.folder), plan.task, device)
    run = PackRun(pack.trials[0].shape, len(pack.trials), feed)
    for slot, spec in enumerate(pack.trials):
        run.fill(slot, run.fresh(spec))
    last: dict[int, EpochEnd] = {}
    while run.busy:
        ends = run.step()
        for end in ends:
            last[end.slot] = end
            if end.diverged or end.epoch == plan.epochs:
                run.empty(end.slot)
        if ends:
            diverged = any(end.diverged for end in ends)
            pipe.send(Progress(pack.name, ends[0].epoch, plan.epochs, diverged))
    return Trained(pack.name, run.cube.layout.size, [last[slot] for slot in range(run.width)])
