"""The worker: claims packs of runs, trains them, reports each epoch, obeys the rungs.

It talks only to our tables: it loads no sampler and waits for none. It may be killed at any moment:
what it held is leased again, from the last checkpoint, when its leases expire.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from cubeopt import trial
from cubeopt.data import dataset
from cubeopt.db import leases, queue, records
from cubeopt.db.engine import Engine
from cubeopt.db.leases import EpochReport, Lease, RungQuestion, Verdict
from cubeopt.db.queue import Claim
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState
from cubeopt.errors import CheckpointError, CubeoptError, DataError, LeaseLostError
from cubeopt.search import rungs, study
from cubeopt.service.heartbeat import Heartbeat
from cubeopt.service.host import CoordinatorHost
from cubeopt.service.shelf import Shelf
from cubeopt.settings import Settings
from cubeopt.training import checkpoint, throughput
from cubeopt.training.feed import Feed
from cubeopt.training.loop import EpochEnd, PackRun
from cubeopt.trial import Task, TrialSpec

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
_IDLE_SECONDS = 0.3  # between two looks into an empty queue
_RETRY_LIMIT = 2  # times that a run is tried again after an error


@dataclass(frozen=True)
class Options:
    """How this worker was started."""

    name: str
    host: str
    pid: int
    device: torch.device
    device_name: str
    provenance: Mapping[str, Any]
    study: str | None = None  # only this study's runs
    pack: int | None = None  # slots; None: measured
    until_done: bool = False  # leave when no study is running
    lease_seconds: float = LEASE_SECONDS


class Happening(StrEnum):
    """What a worker tells its caller about a run."""

    STARTED = "started"
    EPOCH = "epoch"
    PRUNED = "pruned"
    COMPLETE = "complete"
    DIVERGED = "diverged"
    LOST = "lost"
    ERROR = "error"
    RELEASED = "released"


@dataclass(frozen=True)
class Event:
    """Something happened to a run that this worker holds."""

    what: Happening
    claim: Claim
    epoch: int
    value: float | None = None
    detail: str = ""


@dataclass
class _Held:
    """A run in its slot."""

    claim: Claim
    spec: TrialSpec
    epoch: int

    @property
    def lease(self) -> Lease:
        return Lease(self.claim.run_id, self.claim.token)


class Worker:
    """One process on one device."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        options: Options,
        stop: threading.Event,
        tell: Callable[[Event], None],
    ) -> None:
        self._engine, self._settings, self._options = engine, settings, options
        self._stop, self._tell = stop, tell
        self._shelf = Shelf(settings.checkpoints_dir, options.provenance)
        self._feeds: dict[tuple[str, tuple[Task, ...]], Feed] = {}
        self._widths: dict[str, int] = {}

    def run(self) -> None:
        """Work until stopped, or with until_done until no study is running."""
        options = self._options
        if options.study is not None:
            records.study(self._engine, options.study)
        who = options.name, options.host, options.pid, options.device_name
        self._id = queue.register(self._engine, *who, options.provenance)
        with (
            CoordinatorHost(self._engine) as self._host,
            Heartbeat(self._engine, self._id, options.lease_seconds) as self._heart,
        ):
            while not self._stop.is_set():
                if self._work():
                    continue
                if options.until_done and not self._running_studies():
                    break
                self._host.ensure()
                self._stop.wait(_IDLE_SECONDS)
        queue.retire(self._engine, self._id)

    def _running_studies(self) -> list[str]:
        return [
            each.name
            for each in records.studies(self._engine)
            if each.state == StudyState.RUNNING and self._options.study in (None, each.name)
        ]

    def _work(self) -> bool:
        """Train one pack until it is empty; False when nothing waits."""
        options = self._options
        width = options.pack or self._measured_width()
        if width is None:
            return False
        claims = self._claim(limit=width, preferred_width=width)
        if not claims:
            return False
        try:
            self._train(claims)
        finally:
            self._heart.drop(_leases(claims))
        return True

    def _measured_width(self) -> int | None:
        """The best width for the shape that stands first in the queue; None when nothing waits."""
        first = queue.first_waiting(self._engine, self._options.study)
        if first is None:
            return None
        if first.width is not None:
            return first.width
        if first.pack_key not in self._widths:
            spec = trial.from_flat(first.spec)
            feed = self._feed(spec, first.dataset_fingerprint)
            self._widths[first.pack_key] = throughput.best_width(spec, feed)
        return self._widths[first.pack_key]

    def _claim(
        self,
        limit: int,
        preferred_width: int,
        pack_key: str | None = None,
        width: int | None = None,
    ) -> list[Claim]:
        claims = queue.claim(
            self._engine,
            self._id,
            limit=limit,
            preferred_width=preferred_width,
            lease_seconds=self._options.lease_seconds,
            device=self._options.device_name,
            provenance=self._options.provenance,
            study=self._options.study,
            pack_key=pack_key,
            width=width,
        )
        self._heart.hold(_leases(claims))
        return claims

    def _train(self, claims: list[Claim]) -> None:
        """One pack, refilled at the border of epochs, until no run of its shape waits."""
        held: dict[int, _Held] = {}
        first = claims[0]
        spec = trial.from_flat(first.spec)
        try:
            feed = self._feed(spec, first.dataset_fingerprint)
            run = PackRun(spec.shape, first.width, feed)
        except CubeoptError:
            self._release(claims)
            raise
        self._place(run, held, claims)
        while held and not self._stop.is_set():
            try:
                ends = run.step()
            except Exception as error:  # noqa: BLE001 - whatever training raises belongs to its attempts
                self._fail(list(held.values()), error)
                return
            self._drop_lost(run, held)
            if ends:
                self._report(run, held, ends)
                self._host.ensure()
                self._refill(run, held, first.pack_key)
        self._release([each.claim for each in held.values()])

    def _place(self, run: PackRun, held: dict[int, _Held], claims: Iterable[Claim]) -> None:
        """Put each claimed run into a free slot, at the step that it has reached."""
        for claim in claims:
            # A run that we lost without noticing may come back to us under a newer lease.
            stale = [slot for slot, each in held.items() if each.claim.run_id == claim.run_id]
            self._drop(run, held, stale)
            spec = trial.from_flat(claim.spec)
            try:
                state = self._shelf.take(run, claim, spec)
            except CheckpointError as error:
                self._fail([_Held(claim, spec, claim.epoch)], error)
                continue
            slot = run.free[0]
            run.fill(slot, state)
            epoch = state.step // run.steps_per_epoch
            held[slot] = _Held(claim, spec, epoch)
            self._tell(Event(Happening.STARTED, claim, epoch))

    def _report(self, run: PackRun, held: dict[int, _Held], ends: list[EpochEnd]) -> None:
        """Write down the ended epochs in one transaction and act on the verdicts."""
        reports = {}
        for end in ends:
            if end.slot not in held:
                continue
            try:
                reports[end.slot] = self._epoch_report(run, held[end.slot], end)
            except CheckpointError:
                lease = [held[end.slot].lease]
                if leases.beat(self._engine, self._id, lease, self._options.lease_seconds):
                    raise
                self._drop(run, held, [end.slot])  # its new owner cleared our draft away
        verdicts = leases.report(self._engine, list(reports.values()), _decide)
        for slot, written in reports.items():
            each = held[slot]
            each.epoch = written.epoch
            verdict = verdicts[each.claim.run_id]
            if verdict is not Verdict.LOST and written.checkpoint is not None:
                self._shelf.forget_older(written.checkpoint, each.claim.token)
            what = Happening.EPOCH if verdict is Verdict.GO_ON else Happening(verdict)
            self._tell(Event(what, each.claim, written.epoch, written.value))
            if verdict is not Verdict.GO_ON:
                self._leave(run, held, slot)

    def _epoch_report(self, run: PackRun, each: _Held, end: EpochEnd) -> EpochReport:
        claim, metrics = each.claim, dict(end.metrics)
        at_end = end.epoch == claim.target_epochs
        test_value = None
        if claim.kind is RunKind.FULL and at_end and not end.diverged:
            tested = run.evaluate("test", [end.slot])[end.slot]
            metrics |= {f"test/{name}": value for name, value in tested.items()}
            test_value = tested[claim.metric]
        path = None
        due = claim.kind is RunKind.SHORT or end.epoch % each.spec.plan.save_checkpoint_every == 0
        if (due or at_end) and not end.diverged:
            path = self._shelf.put(run, each.claim, end, metrics)
        return EpochReport(
            run_id=claim.run_id,
            token=claim.token,
            epoch=end.epoch,
            value=metrics.get(f"validation/{claim.metric}"),
            metrics=checkpoint.finite(metrics),
            checkpoint=path,
            diverged=end.diverged,
            test_value=test_value,
        )

    def _refill(self, run: PackRun, held: dict[int, _Held], pack_key: str) -> None:
        """Waiting runs of this shape take the places that have become free."""
        if run.free and not self._stop.is_set():
            claims = self._claim(
                limit=len(run.free), preferred_width=run.width, pack_key=pack_key, width=run.width
            )
            self._place(run, held, claims)

    def _drop_lost(self, run: PackRun, held: dict[int, _Held]) -> None:
        """Stop training runs that another worker may have by now."""
        lost = self._heart.lost()
        self._drop(run, held, [slot for slot, each in held.items() if each.lease in lost])

    def _drop(self, run: PackRun, held: dict[int, _Held], slots: list[int]) -> None:
        for slot in slots:
            self._tell(Event(Happening.LOST, held[slot].claim, held[slot].epoch))
            self._leave(run, held, slot)

    def _leave(self, run: PackRun, held: dict[int, _Held], slot: int) -> None:
        each = held.pop(slot)
        run.empty(slot)
        self._heart.drop([each.lease])

    def _fail(self, failed: list[_Held], error: Exception) -> None:
        """End the attempts of these runs with *error*; each waits for its next, or has failed."""
        memory = isinstance(error, torch.OutOfMemoryError)
        end_class = EndClass.OUT_OF_MEMORY if memory else EndClass.ERROR
        text = "".join(traceback.format_exception(error))
        for each in failed:
            state = None
            with suppress(LeaseLostError):
                state = leases.fail(self._engine, each.lease, end_class, text, _RETRY_LIMIT)
            self._heart.drop([each.lease])
            again = "will be tried again" if state is RunState.WAITING else "has failed"
            detail = f"{type(error).__name__}: {error} ({again})"
            self._tell(Event(Happening.ERROR, each.claim, each.epoch, detail=detail))

    def _release(self, claims: list[Claim]) -> None:
        """Give the runs back to the queue; the next attempt goes on from their checkpoints."""
        leases.release(self._engine, _leases(claims), EndClass.PREEMPTED)
        self._heart.drop(_leases(claims))
        for claim in claims:
            self._tell(Event(Happening.RELEASED, claim, claim.epoch))

    def _feed(self, spec: TrialSpec, fingerprint: str) -> Feed:
        """The dataset of a run on this worker's device; DataError unless it is the study's own."""
        key = (fingerprint, spec.plan.task)
        if key not in self._feeds:
            folder = self._settings.dataset_dir(spec.plan.dataset)
            loaded = dataset.load(folder)
            if loaded.fingerprint != fingerprint:
                raise DataError(
                    f"the dataset in {folder} has fingerprint {loaded.fingerprint[:12]}, but the "
                    f"study was created with {fingerprint[:12]}; build that dataset again, or "
                    "create a new study"
                )
            start = time.perf_counter()
            self._feeds[key] = Feed(loaded, spec.plan.task, self._options.device)
            where = "on the device" if self._feeds[key].table.resident else "left in its file"
            seconds = time.perf_counter() - start
            logger.info("dataset %s %s, ready in %.1f s", folder, where, seconds)
        return self._feeds[key]


def _leases(claims: Iterable[Claim]) -> list[Lease]:
    return [Lease(claim.run_id, claim.token) for claim in claims]


def _decide(question: RungQuestion) -> bool:
    """Whether the rules of its study end a trial at this rung."""
    spec = study.parse(question.study_spec, "study")
    return rungs.prune(
        spec.rungs, question.epoch, question.value, question.others, spec.objective.direction
    )
