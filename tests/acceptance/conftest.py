"""Real processes on the real PostgreSQL: a site to start them on, and what must be true at the end.

All tests run one study, created once through the command line; each has a copy of its database.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import optuna
import psutil
import psycopg
import pytest
import yaml
from sqlalchemy import Engine

from cubeopt.db import engine as db_engine
from cubeopt.db import leader, records
from cubeopt.db.records import RunRecord
from cubeopt.db.tables import EndClass, RunKind, RunState, StudyState, WorkerState
from cubeopt.search import mirror

LEASE_SECONDS = 3
PACK = 2
TRIALS, SHORT, FULL = 4, 3, 5
STUDY = {
    "name": "tiny",
    "base": {
        "lattice_size": [2, 2, 3],
        "embedding_size": 24,
        "state_size": 4,
        "lattice_steps": 2,
        "functional_radius": 1.5,
        "distant_links": 1,
        "batch_size": 4,  # 40 steps: an epoch takes half a second, and can be interrupted
        "dataset": "tiny",
        "epochs": FULL,
        "save_checkpoint_every": 1,
    },
    "search": {
        "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
        "similarity_weight": {"low": 0.0, "high": 1.0},
    },
    "sampler": {"name": "random"},
    "rungs": {"epochs": [1, 2, SHORT], "rule": "none"},
    "budget": {"trials": TRIALS},
}
_CLOCK = ("epoch_seconds", "samples_per_second", "peak_memory_bytes", "device_utilisation")
_T = TypeVar("_T")


def until(condition: Callable[[], _T], seconds: float = 60.0) -> _T:
    """What *condition* says, once it is true of anything."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)
    return found


@dataclass
class Site:
    """A storage folder, a database, and the processes that were started on them."""

    home: Path
    url: str | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "CUBEOPT" not in name}
        storage = {"CUBEOPT_STORAGE": self.url} if self.url else {}
        return {**kept, **storage, "CUBEOPT_HOME": str(self.home), "COLUMNS": "200"}

    def start(self, *arguments: object, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start `cubeopt` with *arguments*; what it says stands in `said`.

        *before* is a command that becomes the one after it, as `nice` does.
        """
        command = [*before, sys.executable, "-m", "cubeopt", *map(str, arguments)]
        log = self.home / f"said_{len(self.started)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, env=self.environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        self.started.append(process)
        return process

    def worker(self, *arguments: object, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        common = ("worker", "--cpu", "--pack", PACK, "--lease", LEASE_SECONDS)
        return self.start(*common, *arguments, before=before)

    def said(self, process: subprocess.Popen[bytes]) -> str:
        return (self.home / f"said_{self.started.index(process)}").read_text()

    def ended(self, process: subprocess.Popen[bytes], seconds: float = 90.0) -> int:
        """The exit code of *process*."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{process.args} still runs after {seconds} s:\n{self.said(process)}")

    def processes(self) -> list[psutil.Process]:
        """Every cubeopt process on this site, whoever started it; a server is none."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("CUBEOPT_HOME") == str(self.home)
                if ours and process.cmdline()[1:3] == ["-m", "cubeopt"]:
                    found.append(process)
        return found

    def close(self) -> None:
        while left := self.processes():  # a killed host's child may not be gone yet
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.05)
        for process in self.started:
            process.wait()


@contextmanager
def site(home: Path, url: str | None = None) -> Iterator[Site]:
    """A site that leaves no process behind."""
    home.mkdir(parents=True, exist_ok=True)
    opened = Site(home, url)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def database(server_url: str, template: str) -> Iterator[str]:
    """The address of a copy of the database *template*."""

    def named(name: str) -> str:
        return re.sub(r"/[^/?]+\?", f"/{name}?", server_url)

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(named("postgres"), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield named(name)
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def created(
    server_url: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The site on which the study was created; nothing runs there."""
    home = tmp_path_factory.mktemp("created")
    shutil.copytree(tiny_dataset, home / "data" / "tiny")
    (home / "tiny.yaml").write_text(yaml.safe_dump(STUDY))
    with database(server_url, "cubeopt") as url, site(home, url) as made:
        process = made.start("study", "create", home / "tiny.yaml")
        assert made.ended(process) == 0, made.said(process)
        yield made


@dataclass
class Scene(Site):
    """A site with the study on it."""

    engine: Engine = field(kw_only=True)

    @property
    def study_id(self) -> int:
        return records.study(self.engine, "tiny").id

    def workers(self, count: int) -> list[subprocess.Popen[bytes]]:
        """Workers that are all ready before the first trial is asked for: each gets a pack."""
        with leader.lead(self.engine) as leadership:
            assert leadership is not None
            workers = [self.worker("--until-done") for _ in range(count)]
            until(lambda: len(records.workers(self.engine)) == count)
        return workers

    def checkpoints(self, number: int) -> Path:
        """The folder with the checkpoints of a trial's short run."""
        return self.home / "checkpoints" / "tiny" / f"trial_{number:05d}" / "short"

    def worker_id(self, process: subprocess.Popen[bytes]) -> int:
        (found,) = (each.id for each in records.workers(self.engine) if each.pid == process.pid)
        return found

    def held(self, process: subprocess.Popen[bytes]) -> list[RunRecord]:
        """The runs that a worker holds."""
        worker_id = self.worker_id(process)
        runs = records.runs(self.engine, self.study_id)
        return [run for run in runs if run.worker_id == worker_id]

    def in_the_middle_of_an_epoch(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until *process* has recorded an epoch of a pack and trains the next."""

        def begun() -> bool:
            assert process.poll() is None, self.said(process)
            held = self.held(process)
            return len(held) == PACK and all(run.epoch >= 1 for run in held)

        until(begun)
        time.sleep(0.1)

    def hosts(self) -> list[psutil.Process]:
        """The workers that host a coordinator at this moment."""
        found = []
        for each in self.processes():
            with suppress(psutil.Error):  # it may end while we look
                if "--hosted" in each.cmdline() and (parent := each.parent()) in self.processes():
                    found.append(parent)
        return found

    def left_over(self) -> list[str]:
        """What runs or is held though nothing should."""
        found = []
        for each in self.processes():
            with suppress(psutil.Error):
                found.append(" ".join(each.cmdline()))
        found += [
            f"run {each.id}"
            for each in records.runs(self.engine, self.study_id)
            if each.worker_id or each.lease_expires_at or each.state is RunState.RUNNING
        ]
        found += [
            f"worker {each.id}"
            for each in records.workers(self.engine)
            if each.state is WorkerState.LIVE and each.silent_seconds < 1
        ]
        return found + (["a leader"] if leader.lives(self.engine) else [])

    def outcome(self) -> dict[str, Any]:
        """Everything that the study found out, without what depends on time or place."""
        runs = records.runs(self.engine, self.study_id)
        return {
            "study": records.study(self.engine, "tiny").state,
            "params": [each.params for each in records.trials(self.engine, self.study_id)],
            "runs": [
                (run.trial_number, run.kind, run.state, run.epoch, run.value, run.test_value)
                for run in runs
            ],
            "epochs": [
                (each.trial_number, each.kind, each.epoch, each.value, _timeless(each.metrics))
                for each in records.epochs(self.engine, self.study_id)
            ],
            "optuna": self._shown(),
        }

    def _shown(self) -> list[Any]:
        storage = mirror.open_storage(self.url)
        try:
            study = optuna.load_study(study_name="tiny", storage=storage)
            return [
                (each.number, each.state.name, each.value, each.params, each.intermediate_values)
                for each in study.trials
            ]
        finally:
            storage.engine.dispose()


def _timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in _CLOCK}


@contextmanager
def _scene(created: Site, server_url: str, home: Path) -> Iterator[Scene]:
    shutil.copytree(created.home / "data", home / "data")
    template = re.search(r"/([^/?]+)\?", created.url)[1]
    with database(server_url, template) as url:
        engine = db_engine.create(url)
        opened = Scene(home, url, engine=engine)
        try:
            yield opened
        finally:
            opened.close()
            engine.dispose()


@pytest.fixture
def scene(created: Site, server_url: str, tmp_path: Path) -> Iterator[Scene]:
    """The study, created and not begun."""
    with _scene(created, server_url, tmp_path / "storage") as opened:
        yield opened


@pytest.fixture(scope="session")
def calm(
    created: Site, server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The outcome of the study when one worker is left in peace."""
    with _scene(created, server_url, tmp_path_factory.mktemp("calm") / "storage") as opened:
        (worker,) = opened.workers(1)
        assert opened.ended(worker) == 0, opened.said(worker)
        check_whole(opened)
        attempts = records.attempts(opened.engine, opened.study_id)
        assert [each.end_class for each in attempts] == [EndClass.DONE] * (TRIALS + 1)
        return opened.outcome()


def check_whole(scene: Scene, trials: int = TRIALS, promoted: int = 1) -> None:
    """Every trial ended exactly once, every epoch was recorded exactly once."""
    assert records.study(scene.engine, "tiny").state is StudyState.COMPLETE
    runs = records.runs(scene.engine, scene.study_id)
    kinds = [(run.trial_number, run.kind) for run in runs if run.kind is RunKind.SHORT]
    assert kinds == [(number, RunKind.SHORT) for number in range(trials)]
    assert [run.kind for run in runs].count(RunKind.FULL) == promoted
    attempts = records.attempts(scene.engine, scene.study_id)
    assert all(each.ended_at for each in attempts)
    epochs = records.epochs(scene.engine, scene.study_id)
    for run in runs:
        first, last = (1, SHORT) if run.kind is RunKind.SHORT else (SHORT + 1, FULL)
        assert (run.state, run.epoch, run.failures) == (RunState.COMPLETE, last, 0)
        rows = [each for each in epochs if each.run_id == run.id]
        assert [each.epoch for each in rows] == list(range(first, last + 1))
        tries = [each for each in attempts if each.run_id == run.id]
        assert [each.token for each in tries] == list(range(1, run.token + 1))
        assert [each.end_class is EndClass.DONE for each in tries] == [False] * (run.token - 1) + [
            True
        ]
        for row in rows:  # nobody wrote after his lease, or before it
            by = tries[row.token - 1]
            assert by.started_at <= row.created_at <= by.ended_at
            assert row.epoch > by.from_epoch


def check_preempted(scene: Scene) -> None:
    """Every attempt either ended its run or gave it back, and the study is whole."""
    check_whole(scene)
    ends = {each.end_class for each in records.attempts(scene.engine, scene.study_id)}
    assert ends == {EndClass.DONE, EndClass.PREEMPTED}
