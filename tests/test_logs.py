"""What is logged, as text and as JSON: one line each, and no secret in it."""

import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from cubeopt import logs, settings
from cubeopt.errors import ConfigError

NOON = datetime(2026, 1, 1, 12, 0, 0, 125000, UTC).timestamp()


@pytest.fixture(autouse=True)
def _nobodys_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_process", {})


def line(message: str, *args: Any, form: logging.Formatter | None = None, **more: Any) -> str:
    record = logging.LogRecord("cubeopt.x", logging.WARNING, "f", 1, message, args, None)
    record.created = NOON
    record.__dict__.update(more)
    said = (form or logs.Json()).format(record)
    assert "\n" not in said or "Traceback" in said
    return said


def test_a_line_is_one_object_with_the_moment_in_utc() -> None:
    assert json.loads(line("%d of %s\nand more", 3, "four")) == {
        "time": "2026-01-01T12:00:00.125Z",
        "level": "WARNING",
        "logger": "cubeopt.x",
        "message": "3 of four\nand more",
    }


def test_what_a_message_names_is_a_field() -> None:
    found = json.loads(line("run %d failed (%s) at %.1f %%; study %s", 17, "error", 0.5, "cube8"))
    assert (found["run"], found["study"]) == (17, "cube8")
    assert found["message"] == "run 17 failed (error) at 0.5 %; study cube8"


def test_what_a_thread_is_about_is_a_field_and_given_ones_win() -> None:
    logs.know(worker="lab-1", study="none")
    others: list[str] = []
    with logs.about(study="one"), logs.about(trial=3):
        thread = threading.Thread(target=lambda: others.append(line("x")))
        thread.start()
        thread.join()
        found = json.loads(line("x", fields={"trial": 4, "value": float("nan")}))
    assert {name: found[name] for name in ("worker", "study", "trial", "value")} == {
        "worker": "lab-1",
        "study": "one",
        "trial": 4,
        "value": None,
    }
    assert json.loads(others[0])["study"] == "none"
    assert json.loads(line("x"))["study"] == "none"


def test_a_traceback_is_a_field() -> None:
    try:
        raise ValueError("no: postgresql://me:s3cret@host/db")
    except ValueError:
        found = json.loads(line("it failed", exc_info=sys.exc_info()))
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert found["traceback"].endswith("ValueError: no: postgresql://me:***@host/db")


@pytest.mark.parametrize("form", [logs.Json(), logs.Text()])
def test_no_password_and_no_token_is_said(form: logging.Formatter) -> None:
    said = line(
        "%s and %s",
        "postgresql://me:s3c@ret@h/d",
        "GET /?token=s3cret&x=1 secret=s3cret",
        form=form,
    )
    assert "s3c" not in said
    assert "postgresql://me:***@h/d" in said
    assert "/?token=***&x=1" in said


@pytest.mark.parametrize("where", ["main", "thread"])
def test_what_nobody_catches_and_warnings_are_lines_as_well(where: str) -> None:
    raised = "warnings.warn('old'); raise ValueError('boom')"
    body = f"def f():\n    import warnings\n    {raised}\n"
    call = "f()" if where == "main" else "import threading; threading.Thread(target=f).start()"
    setup = "from cubeopt import logs\nlogs.configure('WARNING', 'json')\n"
    ran = subprocess.run(
        [sys.executable, "-c", setup + body + call], capture_output=True, text=True, check=False
    )
    warned, failed = map(json.loads, ran.stderr.splitlines())
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert (failed["level"], failed["message"]) == ("CRITICAL", "ValueError('boom')")
    assert "ValueError: boom" in failed["traceback"]


def test_a_format_that_is_none_is_an_error_that_names_where_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.log_format() == "text"
    assert settings.log_format("JSON") == "json"
    with pytest.raises(ConfigError, match=r"^--log-format must be one of text, json, got 'xml'$"):
        settings.log_format("xml")
    monkeypatch.setenv("CUBEOPT_LOG_FORMAT", "yaml")
    with pytest.raises(ConfigError, match=r"^CUBEOPT_LOG_FORMAT must be one of"):
        settings.log_format()
