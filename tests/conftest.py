"""One embedded PostgreSQL for all tests, a fresh database for each that asks, a real browser."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import torch
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Engine

from cubeopt.data.building import unify
from cubeopt.db import embedded
from cubeopt.db import engine as db_engine
from cubeopt.settings import Settings

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BROWSER_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

torch.set_num_threads(1)  # two threads on a busy two-core machine are many times slower


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The address of a server whose database "cubeopt" is migrated, the template of all others."""
    folder = Path(tempfile.mkdtemp(prefix="cubeopt-"))
    try:
        url = embedded.address(folder)
        _forget_about_crashes(url)
        db_engine.connect(Settings(folder, url, "WARNING")).dispose()
        yield url
    finally:
        embedded.stop(folder)
        shutil.rmtree(folder)


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """The address of a database of this test's own, as CUBEOPT_STORAGE takes it."""
    with database(server_url) as url:
        yield url


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """The address of a fresh database, migrated; dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(_database(server_url, "postgres"), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {embedded.DATABASE}")
        yield _database(server_url, name)
        session.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine over this test's own database."""
    engine = db_engine.create(database_url)
    yield engine
    engine.dispose()


def _forget_about_crashes(url: str) -> None:
    """Wait for no disk: nobody needs these databases after a loss of power."""
    with psycopg.connect(_database(url, "postgres"), autocommit=True) as session:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            session.execute(f"ALTER SYSTEM SET {setting} = off")
        session.execute("SELECT pg_reload_conf()")


def _database(url: str, name: str) -> str:
    return url.replace(f"/{embedded.DATABASE}?", f"/{name}?")


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder built from dialogue files: 24-D sentences of low rank and some noise."""
    folder = tmp_path_factory.mktemp("tiny")
    generator = torch.Generator().manual_seed(7)
    mixing = torch.randn(4, 24, generator=generator)
    for number in range(12):
        rows = torch.randn(16, 4, generator=generator) @ mixing
        rows = rows + 0.1 * torch.randn(16, 24, generator=generator)
        rows = torch.nn.functional.normalize(rows, dim=1)
        content = {"questions": rows[:8], "answers": rows[8:], "metadata": [{}] * 8}
        torch.save(content, folder / f"dialogue_{number:032x}.pt")
    unify.build([folder], folder / "built", unify.BuildOptions(width=24))
    return folder / "built"


@pytest.fixture
def settings(tmp_path: Path, tiny_dataset: Path, database_url: str) -> Settings:
    """A storage folder of this test's own, with the dataset "tiny" in it."""
    shutil.copytree(tiny_dataset, tmp_path / "storage" / "data" / "tiny")
    return Settings(tmp_path / "storage", database_url, "WARNING")


@pytest.fixture
def tiny_study() -> dict[str, Any]:
    """The content of a study file whose trials take a fraction of a second."""
    return {
        "name": "tiny",
        "base": {
            "lattice_size": [2, 2, 3],
            "embedding_size": 24,
            "state_size": 4,
            "lattice_steps": 2,
            "functional_radius": 1.5,
            "distant_links": 1,
            "batch_size": 16,
            "dataset": "tiny",
            "epochs": 6,
            "save_checkpoint_every": 2,
        },
        "search": {
            "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
            "similarity_weight": {"low": 0.0, "high": 1.0},
        },
        "sampler": {"name": "random"},
        "rungs": {"epochs": [1, 2, 3], "reduction_factor": 2.0},
        "budget": {"trials": 6},
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser of this machine, with a fresh profile."""
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        missing = f"no browser is installed; looked for {', '.join(_BROWSERS)}"
        if os.environ.get("CUBEOPT_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_BROWSER_OPTIONS))
        yield browser
        browser.close()
