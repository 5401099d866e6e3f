"""Simulated workers: processes that make a worker's calls and train nothing.

They claim, report, beat and listen as `service.worker` does with a pack of one; an epoch is a
pause, or nothing at all. Each is a process with connections of its own, begun from one that has
loaded what they need.
"""

import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from optuna.distributions import FloatDistribution

from cubeopt.db import engine as engines
from cubeopt.db import leases, queue, records
from cubeopt.db.engine import Engine
from cubeopt.db.leases import EpochReport, Lease, RungQuestion, Verdict
from cubeopt.db.queue import Claim
from cubeopt.errors import DeviceError
from cubeopt.search import rungs, study
from cubeopt.search.study import StudySpec
from cubeopt.service.coordinator import coordinate
from cubeopt.service.ear import Ear
from cubeopt.service.heartbeat import Heartbeat
from cubeopt.service.rest import Rest

LEASE_SECONDS = 30.0


@dataclass(frozen=True)
class Shift:
    """What one simulated worker did after its first trial."""

    epochs: int
    seconds: float
    waited: float  # seconds in which its device had nothing to do


@dataclass(frozen=True)
class Work:
    """What the simulated workers shall do."""

    address: str
    study: str
    epoch_seconds: float = 0.0
    jitter: float = 0.0  # share by which an epoch is shorter or longer, at random


def loss(params: Mapping[str, Any], space: Mapping[str, FloatDistribution], epoch: int) -> float:
    """What a trial reports: better with every epoch, best where all values are low."""
    shares = [(params[name] - each.low) / (each.high - each.low) for name, each in space.items()]
    return sum(shares) / len(shares) + 1.0 / epoch


def intervals(spec: StudySpec) -> dict[str, FloatDistribution]:
    """The space of a benchmark's study: intervals alone."""
    found = spec.distributions()
    return {name: each for name, each in found.items() if isinstance(each, FloatDistribution)}


@contextmanager
def crowd(
    target: Callable[..., None], count: int, *given: Any
) -> Iterator[tuple[list[BaseProcess], list[Connection]]]:
    """*count* processes of *target*, each ready to begin; they are ended when the block ends.

    Each has a pipe to say "ready" and what it found, and to hear "go" and "stop".
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cubeopt.bench.crowd", "cubeopt.bench.plain"])
    ends = [context.Pipe() for _ in range(count)]
    processes: list[BaseProcess] = [
        context.Process(target=target, args=(theirs, number, *given), daemon=True)
        for number, (_, theirs) in enumerate(ends)
    ]
    try:
        for process, (_, theirs) in zip(processes, ends, strict=True):
            process.start()
            theirs.close()
        pipes = [ours for ours, _ in ends]
        for pipe in pipes:
            assert heard(pipe) == "ready"
        yield processes, pipes
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()


def heard(pipe: Connection) -> Any:
    """What comes next from a process; DeviceError when it ended instead."""
    try:
        return pipe.recv()
    except EOFError as error:
        raise DeviceError("a simulated worker ended early; its messages stand above") from error


def check(processes: Sequence[BaseProcess]) -> None:
    """DeviceError when one of *processes* has ended, so that nobody waits for it."""
    ended = [each for each in processes if each.exitcode is not None]
    if ended:
        raise DeviceError(
            f"{len(ended)} of {len(processes)} processes ended early (exit code "
            f"{ended[0].exitcode}); their messages stand above"
        )


def tell(pipes: list[Connection], word: str) -> None:
    for pipe in pipes:
        pipe.send(word)


def lead(pipe: Connection, number: int, address: str) -> None:
    """The coordinator of a benchmark."""
    _settle()
    stop = threading.Event()
    threading.Thread(target=_stop_when_told, args=(pipe, stop), daemon=True).start()
    pipe.send("ready")
    coordinate(engines.create(address), stop)


def work(pipe: Connection, number: int, given: Work) -> None:
    """One simulated worker, until it is told to stop."""
    _settle()
    engine = engines.create(given.address)
    spec = study.parse(records.study(engine, given.study).spec, given.study)
    worker_id = queue.register(engine, f"simulated-{number}", "here", number, "none", {})
    with (
        Heartbeat(engine, worker_id, LEASE_SECONDS) as heart,
        Ear(engine, worker_id, heart),
    ):
        pipe.send("ready")
        pipe.recv()
        stop = threading.Event()
        threading.Thread(target=_stop_when_told, args=(pipe, stop), daemon=True).start()
        generator = random.Random(number)
        stop.wait(generator.random() * given.epoch_seconds)
        shift = _Worker(engine, worker_id, heart, spec, given, generator).run(stop)
    pipe.send(shift)


class _Worker:
    """A worker whose pack has one place."""

    def __init__(
        self,
        engine: Engine,
        worker_id: int,
        heart: Heartbeat,
        spec: StudySpec,
        given: Work,
        generator: random.Random,
    ) -> None:
        self._engine, self._worker_id, self._heart = engine, worker_id, heart
        self._spec, self._given, self._generator = spec, given, generator
        self._space = intervals(spec)
        self._epochs = 0
        self._trained = 0.0

    def run(self, stop: threading.Event) -> Shift:
        began, skipped = time.perf_counter(), (0, 0.0)
        claims: list[Claim] = []
        trials, rest = 0, Rest()
        while not stop.is_set():
            claims = claims or self._begin()
            if not claims:
                stop.wait(rest.seconds())
                continue
            rest.over()
            claims = self._train(claims[0], stop)
            trials += 1
            if trials == 1:
                began, skipped = time.perf_counter(), (self._epochs, self._trained)
        seconds = time.perf_counter() - began
        waited = seconds - (self._trained - skipped[1])
        return Shift(self._epochs - skipped[0], seconds, waited)

    def _begin(self) -> list[Claim]:
        """A new pack, after a look at what waits."""
        first = queue.first_waiting(self._engine, self._given.study)
        return self._claim(None, None) if first is not None else []

    def _train(self, claim: Claim, stop: threading.Event) -> list[Claim]:
        """One trial, to its end; what took its place."""
        lease = Lease(claim.run_id, claim.token)
        self._heart.hold([lease])
        for epoch in range(claim.epoch + 1, claim.target_epochs + 1):
            self._pause(stop)
            value = loss(claim.spec, self._space, epoch)
            report = EpochReport(claim.run_id, claim.token, epoch, value, {"loss/total": value})
            verdict = leases.report(self._engine, [report], decide)[claim.run_id]
            self._epochs += 1
            if verdict is not Verdict.GO_ON or stop.is_set():
                break
        self._heart.drop([lease])
        return self._claim(claim.pack_key, claim.width)

    def _pause(self, stop: threading.Event) -> None:
        if self._given.epoch_seconds:
            jitter = 1.0 + self._given.jitter * self._generator.uniform(-1.0, 1.0)
            before = time.perf_counter()
            stop.wait(self._given.epoch_seconds * jitter)
            self._trained += time.perf_counter() - before

    def _claim(self, pack_key: str | None, width: int | None) -> list[Claim]:
        return queue.claim(
            self._engine,
            self._worker_id,
            limit=1,
            preferred_width=1,
            lease_seconds=LEASE_SECONDS,
            device="none",
            provenance={},
            study=self._given.study,
            pack_key=pack_key,
            width=width,
        )


def decide(question: RungQuestion) -> bool:
    """As a worker does."""
    spec = study.stored(question.study_spec)
    return rungs.prune(
        spec.rungs, question.epoch, question.value, question.others, spec.objective.direction
    )


def _settle() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us


def _stop_when_told(pipe: Connection, stop: threading.Event) -> None:
    try:
        pipe.recv()
    except EOFError:
        pass
    finally:
        stop.set()
