"""Commands, run inside the test or as processes, on a storage of the test's own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cubeopt.cli import main
from cubeopt.db import embedded
from cubeopt.settings import Settings


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _far_from_the_default_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUBEOPT_HOME", str(tmp_path / "home"))
    for name in ("CUBEOPT_STORAGE", "CUBEOPT_LOG_LEVEL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command inside the test, with the environment as the test has set it."""

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["cubeopt", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.main()
        said = capsys.readouterr()
        return Ran(int(left.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Path:
    """The folder CUBEOPT_HOME with the dataset "tiny", beside a database of the test's own."""
    assert settings.database_url is not None
    monkeypatch.setenv("CUBEOPT_HOME", str(settings.storage_dir))
    monkeypatch.setenv("CUBEOPT_STORAGE", settings.database_url)
    return settings.storage_dir


@pytest.fixture
def study_file(tmp_path: Path, tiny_study: dict[str, Any]) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_study))
    return path


class Process:
    """A command as a process of its own."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "cubeopt", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def finish(self) -> Ran:
        """Wait for its end; one that does not end is killed, and fails the test."""
        try:
            out, err = self.popen.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            out, err = self.popen.communicate()
            pytest.fail(f"did not end; it said {out!r} and {err!r}")
        return Ran(self.popen.returncode, out, err)

    def send(self, number: signal.Signals) -> Ran:
        self.popen.send_signal(number)
        return self.finish()

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until *condition* is true; fails when the process ends before."""
        deadline = time.monotonic() + 60
        while not condition():
            if self.popen.poll() is not None:
                pytest.fail(f"ended too early: {self.finish()}")
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)


Spawn = Callable[..., Process]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a command as a process; what still runs at the end of the test is killed."""
    processes: list[Process] = []

    def run(*arguments: str | Path, **environment: str) -> Process:
        processes.append(Process(*arguments, **environment))
        return processes[-1]

    yield run
    for process in processes:
        with process.popen as popen:
            popen.kill()


@dataclass(frozen=True)
class Finished:
    """A storage whose study "tiny" a worker has brought to its end."""

    home: Path
    url: str
    worker: Ran


@pytest.fixture(scope="session")
def finished_storage(
    tmp_path_factory: pytest.TempPathFactory, server_url: str, tiny_dataset: Path
) -> Iterator[Finished]:
    """The study with seven searched values, created and worked off by the commands themselves."""
    home = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny_dataset, home / "data" / "tiny")
    file = home / "tiny.yaml"
    file.write_text(yaml.safe_dump(SEVEN))
    name = f"test_{uuid.uuid4().hex}"
    other = server_url.replace(f"/{embedded.DATABASE}?", "/postgres?")
    with psycopg.connect(other, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {embedded.DATABASE}")
        url = server_url.replace(f"/{embedded.DATABASE}?", f"/{name}?")
        environment = {"CUBEOPT_HOME": str(home), "CUBEOPT_STORAGE": url}
        assert Process("study", "create", file, **environment).finish().code == 0
        command = ("worker", "--cpu", "--pack", "2", "--until-done")
        worker = Process(*command, **environment).finish()
        yield Finished(home, url, worker)
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch, finished_storage: Finished) -> Finished:
    """The storage of a finished study, made that of the test; it only looks."""
    monkeypatch.setenv("CUBEOPT_HOME", str(finished_storage.home))
    monkeypatch.setenv("CUBEOPT_STORAGE", finished_storage.url)
    return finished_storage


SEVEN: dict[str, Any] = {
    "name": "tiny",
    "base": {
        "lattice_size": [2, 2, 3],
        "embedding_size": 24,
        "state_size": 4,
        "lattice_steps": 2,
        "functional_radius": 1.5,
        "distant_links": 1,
        "dataset": "tiny",
        "epochs": 4,
        "save_checkpoint_every": 2,
    },
    "search": {
        "reconstruction_weight": {"low": 0.1, "high": 3.0},
        "similarity_weight": {"low": 0.0, "high": 2.0},
        "diversity_weight": {"low": 0.0, "high": 1.0},
        "emergence_weight": {"low": 0.0, "high": 1.0},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "state_size": {"choices": [4, 8]},
        "lattice_steps": {"choices": [2, 3]},
    },
    "sampler": {"name": "random"},
    "rungs": {"epochs": [1, 2], "reduction_factor": 2.0},
    "budget": {"trials": 5},
}
