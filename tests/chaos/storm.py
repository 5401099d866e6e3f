"""What may happen to workers, coordinator, disk and database, all of it in the course of a study.

Strikes come by progress, not by the clock: they are spread over the epochs of the study.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from cubeopt.db import records
from cubeopt.db.tables import StudyState
from cubeopt.errors import StorageError

from ..acceptance.conftest import LEASE_SECONDS
from .conftest import Battlefield

_PATIENCE_SECONDS = 120  # of a worker with a server that starts again
_STORAGE_ERROR = 3  # the exit code
_READ_ONLY = "mount --bind {0} {0} && mount -o remount,ro,bind {0}"


@dataclass(frozen=True)
class Plan:
    """How much shall happen, and to what."""

    workers: int
    trials: int
    promoted: int
    kills: int  # of workers and of coordinators
    restarts: int  # of PostgreSQL
    zombies: int  # workers that stand still for longer than their leases
    seed: int = 0


@dataclass
class Storm:
    """Keeps so many workers alive, and strikes them."""

    scene: Battlefield
    plan: Plan
    epochs: int  # of the whole study
    counts: Counter[str] = field(default_factory=Counter)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _asleep: dict[int, float] = field(default_factory=dict)  # pid: when it shall go on
    _walled: subprocess.Popen[bytes] | None = None  # the worker whose disk will be read-only

    def rage(self, patience: float) -> None:
        """Strike until all is struck, and wait for the study's end."""
        draw = random.Random(self.plan.seed)
        strikes = self._strikes(draw)
        places = [self.epochs * (place + 1) // (len(strikes) + 1) for place in range(len(strikes))]
        self._walled = self._in_a_room_of_its_own()
        deadline = time.monotonic() + patience
        while not (self._over() and not strikes):
            assert time.monotonic() < deadline, f"not over: {self.counts}, {len(strikes)} to come"
            self._tend()
            if strikes and self.scene.recorded() >= places[0] and strikes[0](draw):
                strikes.pop(0)
                places.pop(0)
            time.sleep(0.05)
        while self._asleep:
            self._tend()
            time.sleep(0.05)
        for worker in self.workers:
            assert self.scene.ended(worker, patience) == 0, self.scene.said(worker)

    def _strikes(self, draw: random.Random) -> list[Callable[[random.Random], bool]]:
        plan = self.plan
        coordinators = plan.kills // 4
        strikes = [self._kill_worker] * (plan.kills - coordinators)
        strikes += [self._kill_coordinator] * coordinators
        strikes += [self._restart_server] * plan.restarts + [self._put_to_sleep] * plan.zombies
        draw.shuffle(strikes)
        return [self._wall_in, *strikes]  # type: ignore[list-item]

    def _over(self) -> bool:
        with suppress(StorageError):
            return records.study(self.scene.engine, "tiny").state is not StudyState.RUNNING
        return False

    def _tend(self) -> None:
        """Wake who has slept enough, put a new worker where one has gone."""
        now = time.monotonic()
        for pid in [pid for pid, until in self._asleep.items() if until < now]:
            del self._asleep[pid]
            psutil.Process(pid).send_signal(signal.SIGCONT)
        for worker in [each for each in self.workers if each.poll() is not None]:
            self.workers.remove(worker)
            code = worker.returncode
            if code == 0:
                continue  # all is done
            if worker is self._walled:
                assert code == 1, self.scene.said(worker)
                assert "Read-only file system" in self.scene.said(worker)
                self.counts["workers that left a read-only disk"] += 1
            elif code == _STORAGE_ERROR:  # it was started while no server was there
                assert "starts" not in self.scene.said(worker), self.scene.said(worker)
                self.counts["workers that found no server"] += 1
            else:
                assert code == -signal.SIGKILL, self.scene.said(worker)
        while len(self.workers) < self.plan.workers and not self._over():
            self.workers.append(self._worker())

    def _worker(self, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        return self.scene.worker("--until-done", "--outage", _PATIENCE_SECONDS, before=before)

    def _victims(self) -> list[subprocess.Popen[bytes]]:
        """Workers that hold something: only those are worth a strike."""
        with suppress(StorageError):
            pids = {worker.id: worker.pid for worker in records.workers(self.scene.engine)}
            runs = records.runs(self.scene.engine, self.scene.study_id)
            busy = {pids[run.worker_id] for run in runs if run.worker_id}
            awake = [each for each in self.workers if each.pid not in self._asleep]
            return [each for each in awake if each.pid in busy and each is not self._walled]
        return []

    def _kill_worker(self, draw: random.Random) -> bool:
        victims = self._victims()
        if not victims:
            return False
        draw.choice(victims).kill()
        self.counts["workers killed"] += 1
        return True

    def _kill_coordinator(self, draw: random.Random) -> bool:
        for each in self.scene.processes():
            with suppress(psutil.Error):
                if "--hosted" in each.cmdline():
                    each.kill()
                    self.counts["coordinators killed"] += 1
                    return True
        return False

    def _restart_server(self, draw: random.Random) -> bool:
        self.scene.stop_server()
        time.sleep(draw.uniform(0.0, 2.0))
        self.scene.start_server()
        self.counts["restarts of PostgreSQL"] += 1
        return True

    def _put_to_sleep(self, draw: random.Random) -> bool:
        victims = self._victims()
        if not victims:
            return False
        zombie = draw.choice(victims)
        zombie.send_signal(signal.SIGSTOP)
        self._asleep[zombie.pid] = time.monotonic() + 3 * LEASE_SECONDS
        self.counts["zombies"] += 1
        return True

    def _in_a_room_of_its_own(self) -> subprocess.Popen[bytes] | None:
        """A worker whose view of the disk can be changed; None where the system allows none."""
        room = ("unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]))
        if subprocess.run([*room, "true"], capture_output=True, check=False).returncode != 0:
            self.counts["no mount namespaces here: no disk was made read-only"] = 1
            return None
        worker = self._worker(before=room)
        self.workers.append(worker)
        return worker

    def _wall_in(self, draw: random.Random) -> bool:
        """Make the folder of checkpoints read-only for one worker alone."""
        if self._walled is None:
            return True
        folder = self.scene.home / "checkpoints"
        if not folder.exists() or self._walled.poll() is not None:
            return self._walled.poll() is not None
        room = ["nsenter", "--mount", "--target", str(self._walled.pid)]
        room += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        subprocess.run([*room, "sh", "-c", _READ_ONLY.format(folder)], check=True)
        self.counts["disks made read-only"] += 1
        return True
