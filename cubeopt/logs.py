"""What the program says of its work: as text for people, or as JSON for machines.

As JSON each line is an object with `time` (UTC, ISO 8601), `level`, `logger`, `message`, where they
are known `worker`, `study`, `run` and `trial`, and `traceback` after an error. Whatever a
long-running command would say besides is then such a line, too.
"""

import json
import logging
import math
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_SECRETS = (
    (re.compile(r"(://[^:/@\s]*):[^\s]*@"), r"\1:***@"),  # of an address
    (re.compile(r"(?i)\b(token|password|secret)=[^\s&\"']+"), r"\1=***"),
)
# A placeholder, and what stands before it where that says what it is: "study %s", "run %d".
_PLACEHOLDER = re.compile(r"(?:\b(study|run|trial) )?%[-#0 +]*\d*(?:\.\d+)?[a-zA-Z]")

_process: dict[str, Any] = {}  # what all lines of this process are about
_about: ContextVar[dict[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed
_handler: logging.Handler | None = None


class Text(logging.Formatter):
    """A line for people; no password of an address stands in it."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class Json(logging.Formatter):
    """One JSON object, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        row: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": masked(record.getMessage()),
            **_process,
            **_about.get(),
            **_named(record),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            row["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps({name: _plain(value) for name, value in row.items()}, default=str)


class _Stderr(logging.Handler):
    """Writes to standard error as it is by then; in one write, for others write there, too."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - as all handlers do
            self.handleError(record)


def configure(level: str, form: str) -> None:
    """Log to standard error from *level* on, as text or json; may be called again."""
    global _handler
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
    _handler = _Stderr()
    _handler.setFormatter(Json() if form == "json" else Text())
    root.addHandler(_handler)
    root.setLevel(level)
    logging.getLogger("alembic.runtime.plugins").setLevel(
        logging.WARNING
    )  # six lines at each start
    logging.captureWarnings(form == "json")
    if form == "json":
        sys.excepthook = _on_exception
        threading.excepthook = _on_thread_exception


def as_json() -> bool:
    """Whether lines are JSON."""
    return _handler is not None and isinstance(_handler.formatter, Json)


def say(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log *message* whatever the level that was asked for: a person would see it on the screen."""
    assert _handler is not None, "configured before anything is said"
    logger = logging.getLogger(__package__)
    record = logger.makeRecord(logger.name, level, "", 0, message, (), None)
    record.fields = fields
    _handler.handle(record)


def know(**fields: Any) -> None:
    """All that this process logs from now on is about *fields*."""
    _process.update(fields)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """What this thread logs while the block runs is about *fields*."""
    before = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(before)


def masked(text: str) -> str:
    """*text* without the passwords and tokens that stand in it."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _named(record: logging.LogRecord) -> dict[str, Any]:
    """What the arguments of a record are, by the words before their places in its message."""
    if not isinstance(record.args, tuple):
        return {}
    names = _PLACEHOLDER.findall(str(record.msg).replace("%%", ""))
    return {name: value for name, value in zip(names, record.args, strict=False) if name}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _on_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger(__package__).critical("%r", error, exc_info=(kind, error, trace))


def _on_thread_exception(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None and found.exc_type is not SystemExit:
        _on_exception(found.exc_type, found.exc_value, found.exc_traceback)
