"""What the environment decides: the database address, the storage folder, the log level."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from cubeopt.errors import ConfigError

PACKAGE_DIR = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """Where this installation keeps its things."""

    storage_dir: Path  # pg/, data/, checkpoints/, experiments/, exports/, reports/ live here
    database_url: str | None  # None: the embedded server in storage_dir/pg
    log_level: str

    @property
    def pg_dir(self) -> Path:
        return self.storage_dir / "pg"

    @property
    def data_dir(self) -> Path:
        return self.storage_dir / "data"

    @property
    def checkpoints_dir(self) -> Path:
        return self.storage_dir / "checkpoints"

    @property
    def experiments_dir(self) -> Path:
        return self.storage_dir / "experiments"

    @property
    def exports_dir(self) -> Path:
        return self.storage_dir / "exports"

    @property
    def reports_dir(self) -> Path:
        return self.storage_dir / "reports"

    def dataset_dir(self, dataset: str) -> Path:
        """The folder of *dataset*: a path, or without a slash a name under storage_dir/data."""
        if "/" in dataset or dataset.startswith("~"):
            return expanded(dataset, "dataset").resolve()
        return self.data_dir / dataset


def load(storage: str | None = None) -> Settings:
    """Read the environment; *storage* (the --storage option) wins over CUBEOPT_STORAGE."""
    return Settings(
        storage_dir=_storage_dir(),
        database_url=storage or os.environ.get("CUBEOPT_STORAGE") or None,
        log_level=log_level(),
    )


def log_level() -> str:
    """CUBEOPT_LOG_LEVEL, one of the names that Python's logging knows."""
    level = os.environ.get("CUBEOPT_LOG_LEVEL", "WARNING").upper()
    names = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if level not in names:
        raise ConfigError(f"CUBEOPT_LOG_LEVEL must be one of {', '.join(names)}, got {level!r}")
    return level


def expanded(path: str, what: str) -> Path:
    """*path* with its ~ replaced by the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{what}: no home folder is known for {path!r}") from error


def _storage_dir() -> Path:
    """CUBEOPT_HOME, else storage/ of the clone this package runs from, else the user's own."""
    if home := os.environ.get("CUBEOPT_HOME"):
        return expanded(home, "CUBEOPT_HOME").resolve()
    clone = PACKAGE_DIR.parent
    if (clone / "pyproject.toml").is_file() and (clone / "storage").is_dir():
        return clone / "storage"
    return Path(platformdirs.user_data_dir("cubeopt", appauthor=False))
