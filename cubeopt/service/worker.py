"""The worker: claims packs of runs, trains them, reports each epoch, obeys the rungs.

It talks only to our tables: it loads no sampler and waits for none. It may be killed at any moment:
what it held is leased again, from the last checkpoint, when its leases expire.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cubeopt import trial
from cubeopt.data import dataset
from cubeopt.db import queue, records
from cubeopt.db.engine import Engine, described
from cubeopt.db.leases import Lease
from cubeopt.db.queue import Claim, Waiting
from cubeopt.errors import (
    CheckpointError,
    CubeoptError,
    DataError,
    DeviceLostError,
    RefusedError,
    StorageLostError,
)
from cubeopt.service import admission
from cubeopt.service.admission import Admission
from cubeopt.service.ear import Ear
from cubeopt.service.events import Event
from cubeopt.service.grace import Grace
from cubeopt.service.heartbeat import Heartbeat
from cubeopt.service.host import CoordinatorHost
from cubeopt.service.pack import Pack
from cubeopt.service.rest import Rest
from cubeopt.service.shelf import Shelf
from cubeopt.service.station import Held, Station
from cubeopt.settings import Settings
from cubeopt.training import memory, throughput
from cubeopt.training.feed import Feed
from cubeopt.training.loop import EpochEnd, PackRun
from cubeopt.trial import Task, TrialSpec

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0  # with four beats in it, half a minute without a storage costs no lease
_IDLE_SECONDS = 0.3  # between two looks at a storage that is gone


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
    grace_seconds: float | None = None  # to leave in when stopped; None: as long as a step takes
    outage_seconds: float | None = None  # without a storage, before leaving; None: a lease


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
        self._feeds: dict[tuple[str, tuple[Task, ...]], Feed] = {}
        self._widths: dict[str, int] = {}
        code_version = str(options.provenance["code_version"])
        self._admission = Admission(engine, settings, code_version, options.study)

    def run(self) -> None:
        """Work until stopped or drained, or with until_done until no study is running.

        Raises RefusedError when the only study to work on, or with until_done all that are left,
        are not for this worker's data or code.
        """
        options = self._options
        if options.study is not None:
            records.study(self._engine, options.study)
        self._admission.studies()
        shelf = Shelf(self._settings.checkpoints_dir, options.provenance)
        shelf.check()
        who = options.name, options.host, options.pid, options.device_name
        worker_id = queue.register(self._engine, *who, options.provenance)
        with (
            Heartbeat(self._engine, worker_id, options.lease_seconds, self._own_server) as heart,
            Grace(self._engine, worker_id, heart, self._stop, options.grace_seconds),
            CoordinatorHost(self._engine) as self._host,
            Ear(self._engine, worker_id, heart) as self._ear,
        ):
            self._station = self._opened(worker_id, heart, shelf)
            rest = Rest()
            while not self._leaves:
                try:
                    if self._work():
                        rest.over()
                        continue
                    if options.until_done and self._done():
                        break
                    self._host.ensure()
                except StorageLostError as error:
                    logger.debug("waiting: %s", error)
                    heart.alarm()
                self._stop.wait(rest.seconds())
                self._sit_out()
        self._retire(worker_id)

    def _retire(self, worker_id: int) -> None:
        """Say goodbye; RefusedError when nothing is left but what we may not do."""
        refused: list[str] = []
        try:
            self._station.heart.say_last()
            queue.retire(self._engine, worker_id)
            if not self._leaves:
                refused = self._admission.refused(self._running_studies())
        except StorageLostError as error:
            logger.warning("left without a word, leases will expire: %s", error)
        if refused:
            raise RefusedError("; ".join(refused))

    @property
    def _own_server(self) -> Path | None:
        """The folder of the embedded server, if we use it."""
        return self._settings.pg_dir if self._settings.database_url is None else None

    def _sit_out(self) -> None:
        """Wait for a storage that is gone; StorageLostError when that takes too long."""
        heart, options = self._station.heart, self._options
        limit = options.lease_seconds if options.outage_seconds is None else options.outage_seconds
        while heart.unheard and not self._leaves:
            if heart.silence > limit:
                raise StorageLostError(
                    f"{described(self._engine)} has not answered for {heart.silence:.0f} s, and "
                    f"this worker waits for {limit:g}; what was not reported will be trained "
                    "again from the last checkpoint"
                )
            self._stop.wait(_IDLE_SECONDS)

    @property
    def _leaves(self) -> bool:
        return self._stop.is_set() or self._ear.drained

    def _opened(self, worker_id: int, heart: Heartbeat, shelf: Shelf) -> Station:
        return Station(
            engine=self._engine,
            worker_id=worker_id,
            device=self._options.device,
            lease_seconds=self._options.lease_seconds,
            shelf=shelf,
            heart=heart,
            tell=self._tell,
        )

    def _running_studies(self) -> set[int]:
        return {each.id for each in records.running(self._engine, self._options.study)}

    def _done(self) -> bool:
        """Whether no study is running that this worker may work on."""
        running = self._running_studies()
        return len(running) == len(self._admission.refused(running))

    def _work(self) -> bool:
        """Train one pack until it is empty; False when nothing waits."""
        first = queue.first_waiting(
            self._engine, self._options.study, admitted=self._admission.studies()
        )
        if first is None:
            return False
        study_id, claims = first.study_id, list[Claim]()
        try:
            width = self._width(first)
            claims = self._claim(limit=self._options.pack or width, preferred_width=width)
            if claims:
                study_id = claims[0].study_id
                self._train(claims)
        except DataError as error:
            self._admission.refuse(study_id, str(error))
            return True
        finally:
            # Whatever could not be given back, also of those that joined, is left to expire.
            self._station.heart.drop(self._station.heart.held())
        return bool(claims)

    def _width(self, first: Waiting) -> int:
        """The width to begin a pack with.

        It is the one asked for, else measured, and half of that where memory ran out.
        """
        if self._options.pack is None and first.width is not None:
            return first.width
        if first.pack_key not in self._widths:
            self._widths[first.pack_key] = self._options.pack or self._measured_width(first)
        return self._widths[first.pack_key]

    def _measured_width(self, first: Waiting) -> int:
        spec = trial.from_flat(first.spec)
        feed = self._feed(spec, first.dataset_fingerprint)
        try:
            return throughput.best_width(spec, feed)
        except CubeoptError:
            raise
        except Exception as error:  # noqa: BLE001 - its attempt, alone, will keep the traceback
            logger.warning("could not measure a pack width, so it is 1: %r", error)
            return 1

    def _claim(
        self,
        limit: int,
        preferred_width: int,
        pack_key: str | None = None,
        width: int | None = None,
    ) -> list[Claim]:
        admitted, asked = self._admission.studies(), time.monotonic()
        claims = queue.claim(
            self._engine,
            self._station.worker_id,
            limit=limit,
            preferred_width=preferred_width,
            lease_seconds=self._options.lease_seconds,
            device=self._options.device_name,
            provenance=self._options.provenance,
            study=self._options.study,
            pack_key=pack_key,
            width=width,
            admitted=admitted,
        )
        self._station.heart.claims.add(time.monotonic() - asked)
        self._station.heart.hold(_leases(claims))
        return claims

    def _train(self, claims: list[Claim]) -> None:
        """One pack, refilled at the border of epochs, until no run of its shape waits."""
        held = [Held(claim, trial.from_flat(claim.spec), claim.epoch) for claim in claims]
        try:
            pack = Pack(self._station, self._pack_run(claims[0]))
        except CubeoptError:
            self._station.release(held)
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to the attempts at this shape
            self._station.broke(held, error)
            self._learn(claims[0], error)
            return
        pack.place(claims)
        while pack.held and not self._leaves:
            try:
                ends = pack.step()
            except Exception as error:  # noqa: BLE001 - whatever training raises belongs to its attempts
                pack.broke(error)
                self._learn(claims[0], error)
                return
            pack.drop_lost()
            if self._station.heart.outlived:
                pack.abandon()
                return
            self._tend(pack, claims[0], ends)
            if pack.idle:
                self._stop.wait(_IDLE_SECONDS)
        pack.release()

    def _tend(self, pack: Pack, first: Claim, ends: list[EpochEnd]) -> None:
        """What is due between two steps, as far as the storage answers."""
        try:
            if not self._station.heart.unheard:
                self._host.ensure()
            if ends or pack.waits:
                pack.report(ends)
                self._refill(pack, first)
            pack.give_back(self._ear.recalled)
        except StorageLostError as error:
            logger.debug("training goes on: %s", error)
            self._station.heart.alarm()
        except CheckpointError:
            pack.put_back()  # another worker may have room for them
            raise

    def _pack_run(self, first: Claim) -> PackRun:
        spec = trial.from_flat(first.spec)
        feed = self._feed(spec, first.dataset_fingerprint)
        return PackRun(spec.shape, first.width, feed)

    def _refill(self, pack: Pack, first: Claim) -> None:
        """Waiting runs of this shape take the places that have become free."""
        if pack.places and not self._leaves and not self._station.heart.unheard:
            key, width = first.pack_key, first.width
            pack.place(self._claim(pack.places, width, pack_key=key, width=width))

    def _learn(self, first: Claim, error: Exception) -> None:
        """Begin no pack again that was too wide; leave when the device is no use any more."""
        if memory.is_shortage(error):
            self._widths[first.pack_key] = max(1, first.width // 2)
        elif isinstance(error, torch.AcceleratorError):
            reason = str(error).splitlines()[0]
            raise DeviceLostError(
                f"{self._options.device_name} failed ({reason}); start the worker again"
            ) from error

    def _feed(self, spec: TrialSpec, fingerprint: str) -> Feed:
        """The dataset of a run on this worker's device; DataError unless it is the study's own."""
        key = (fingerprint, spec.plan.task)
        if key not in self._feeds:
            folder = self._settings.dataset_dir(spec.plan.dataset)
            loaded = dataset.load(folder)
            if loaded.fingerprint != fingerprint:
                found = admission.other_fingerprint(folder, loaded.fingerprint, fingerprint)
                raise DataError(found)
            start = time.perf_counter()
            self._feeds[key] = Feed(loaded, spec.plan.task, self._options.device)
            where = "on the device" if self._feeds[key].table.resident else "left in its file"
            seconds = time.perf_counter() - start
            logger.info("dataset %s %s, ready in %.1f s", folder, where, seconds)
        return self._feeds[key]


def _leases(claims: Iterable[Claim]) -> list[Lease]:
    return [Lease(claim.run_id, claim.token) for claim in claims]
