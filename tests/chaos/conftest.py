"""A site with a server of its own, that may be killed; and the outcome of a study left in peace."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from sqlalchemy import text

from cubeopt.db import embedded
from cubeopt.db import engine as db_engine
from cubeopt.errors import StorageError

from ..acceptance.conftest import STUDY, Scene, check_whole


class Battlefield(Scene):
    """A scene whose PostgreSQL is its own."""

    @property
    def pg_dir(self) -> Path:
        return self.home / "pg"

    def stop_server(self) -> None:
        """End PostgreSQL at once (an immediate shutdown): it recovers at its next start."""
        self._end_server(signal.SIGQUIT)

    def kill_server(self) -> None:
        """End PostgreSQL as the system does when memory runs out."""
        self._end_server(signal.SIGKILL)

    def _end_server(self, how: signal.Signals) -> None:
        pid = embedded.status(self.pg_dir).pid
        assert pid is not None
        server = psutil.Process(pid)
        os.kill(pid, how)
        server.wait(60)

    def start_server(self) -> None:
        assert embedded.address(self.pg_dir) == self.url

    def recorded(self) -> int:
        """Epochs of all runs so far; -1 while nobody answers."""
        try:
            with db_engine.transaction(self.engine) as connection:
                return int(connection.scalar(text("SELECT count(*) FROM cubeopt.epochs")))
        except StorageError:
            return -1


@contextmanager
def battlefield(dataset: Path, trials: int, promoted: int) -> Iterator[Battlefield]:
    """A new server with the tiny study on it, created and not begun."""
    home = Path(tempfile.mkdtemp(prefix="cubeopt-"))  # pytest's own folders are shut to PostgreSQL
    shutil.copytree(dataset, home / "data" / "tiny")
    content = {**STUDY, "budget": {"trials": trials}, "promotion": {"top": promoted}}
    (home / "tiny.yaml").write_text(yaml.safe_dump(content))
    url = embedded.address(home / "pg")
    engine = db_engine.create(url)
    opened = Battlefield(home, url, engine=engine)
    try:
        made = opened.start("study", "create", home / "tiny.yaml")
        assert opened.ended(made) == 0, opened.said(made)
        yield opened
    finally:
        opened.close()
        engine.dispose()
        embedded.stop(home / "pg")
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def peace(tiny_dataset: Path) -> Callable[[int, int], dict[str, Any]]:
    """The outcome of a study of so many trials, and promoted ones, when nobody disturbs it."""

    @cache
    def outcome(trials: int, promoted: int) -> dict[str, Any]:
        with battlefield(tiny_dataset, trials, promoted) as scene:
            workers = [scene.worker("--until-done") for _ in range(2)]
            for worker in workers:
                assert scene.ended(worker, 3600) == 0, scene.said(worker)
            check_whole(scene, trials, promoted)
            return scene.outcome()

    return outcome
