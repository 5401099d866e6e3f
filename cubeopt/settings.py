"""What the environment decides: the database address, the storage folder, logs, whom to notify."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from cubeopt.errors import ConfigError

PACKAGE_DIR = Path(__file__).resolve().parent
LOG_FORMATS = ("text", "json")


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


@dataclass(frozen=True)
class Receiver:
    """Whom --notify tells; its address may hold a secret, so neither is ever shown."""

    url: str = field(repr=False)
    secret: bytes | None = field(repr=False)  # that messages are signed with

    @property
    def shown(self) -> str:
        """Scheme and host."""
        found = urlsplit(self.url)
        return f"{found.scheme}://{found.netloc}"


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


def log_format(given: str | None = None) -> str:
    """text or json: *given* (the --log-format option), else CUBEOPT_LOG_FORMAT."""
    where = "CUBEOPT_LOG_FORMAT" if given is None else "--log-format"
    form = (given or os.environ.get("CUBEOPT_LOG_FORMAT") or "text").lower()
    if form not in LOG_FORMATS:
        raise ConfigError(f"{where} must be one of {', '.join(LOG_FORMATS)}, got {form!r}")
    return form


def cuda_graphs() -> bool:
    """CUBEOPT_CUDA_GRAPHS, on or off: whether a GPU may record the operations of a step."""
    word = os.environ.get("CUBEOPT_CUDA_GRAPHS", "on").lower()
    if word not in ("on", "off"):
        raise ConfigError(f"CUBEOPT_CUDA_GRAPHS must be on or off, got {word!r}")
    return word == "on"


def receiver(url: str | None = None) -> Receiver | None:
    """Whom to notify: *url* (the --notify option), else CUBEOPT_NOTIFY_URL; None: nobody.

    Messages are signed with CUBEOPT_NOTIFY_SECRET, or what CUBEOPT_NOTIFY_SECRET_FILE holds.
    """
    where = "CUBEOPT_NOTIFY_URL" if url is None else "--notify"
    url = url or os.environ.get("CUBEOPT_NOTIFY_URL") or None
    if url is None:
        return None
    return Receiver(_checked(url, where), _notify_secret())


def _checked(url: str, where: str) -> str:
    """*url*, if messages can be posted to it; an error does not repeat it."""
    rule = f"{where} takes an address such as https://HOST/PATH"
    try:
        found = urlsplit(url)
        good = found.scheme in ("http", "https") and found.hostname and found.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{rule}, http or https, special characters written as %XX")
    if "@" in found.netloc:
        raise ConfigError(f"{rule}, without a user and a password; sign with CUBEOPT_NOTIFY_SECRET")
    return url


def _notify_secret() -> bytes | None:
    given = os.environ.get("CUBEOPT_NOTIFY_SECRET")
    file = os.environ.get("CUBEOPT_NOTIFY_SECRET_FILE")
    if given and file:
        raise ConfigError("CUBEOPT_NOTIFY_SECRET and CUBEOPT_NOTIFY_SECRET_FILE are set; use one")
    if file:
        path = expanded(file, "CUBEOPT_NOTIFY_SECRET_FILE")
        try:
            secret = path.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"CUBEOPT_NOTIFY_SECRET_FILE {file}: {error.strerror}") from error
        if not secret:
            raise ConfigError(f"CUBEOPT_NOTIFY_SECRET_FILE {file} is empty")
        return secret
    return given.encode() if given else None


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
