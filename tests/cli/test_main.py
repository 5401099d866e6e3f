"""The command as a whole: help, version, and how it ends when something is wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cubeopt

GROUPS = ("", "study", "trial", "workers", "data", "db", "bench")
COMMANDS = (
    *("study create", "study list", "study show", "study export", "study figure"),
    *("study pause", "study resume", "study stop", "study delete"),
    *("trial show", "trial retry", "trial prune", "trial enqueue"),
    *("workers list", "workers drain"),
    *("worker", "coordinator", "train", "monitor", "dashboard", "study watch"),
    *("db up", "db stop", "db status", "db migrate", "data inspect", "data build", "bench data"),
)
WITH_STORAGE = (
    *(
        "study create FILE",
        "study list",
        "study show x",
        "study export x",
        "study figure x",
        "study watch x",
    ),
    *("trial show x 0", "study pause x", "study delete x --yes", "trial retry x 0"),
    *("trial enqueue x learning_rate=1", "workers list", "workers drain x"),
    *("worker --cpu", "coordinator", "dashboard", "db up", "db status", "db migrate"),
)
Cli = Spawn = Callable[..., Any]


@pytest.mark.parametrize("command", [*GROUPS, *COMMANDS])
def test_the_help_of_every_command_has_an_example_and_fits_80_columns(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = cli(*command.split(), "--help")
    assert ran.code == 0
    assert f"Usage: cubeopt {command}".rstrip() in ran.out
    assert ran.out.strip().splitlines()[-1].strip().startswith("Example: cubeopt ")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "<bool>" not in ran.out


@pytest.mark.parametrize("command", GROUPS)
def test_a_group_without_a_command_shows_its_help_and_is_a_usage_error(
    cli: Cli, command: str
) -> None:
    ran = cli(*command.split())
    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys, cubeopt.cli.main as main\n"
        "sys.argv = ['cubeopt', '--help']\n"
        "try: main.main()\n"
        "except SystemExit as left: assert not left.code\n"
        "heavy = {'torch', 'optuna', 'sqlalchemy', 'psycopg', 'pandas', 'plotly', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_version_is_one_line(cli: Cli) -> None:
    ran = cli("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"cubeopt {cubeopt.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nonsense", "No such command 'nonsense'; see 'cubeopt --help'"),
        ("study nonsense", "No such command 'nonsense'; see 'cubeopt study --help'"),
        ("study create", "Missing argument 'FILE'; see 'cubeopt study create --help'"),
        ("study show a b", "unexpected extra argument(s) (b); see 'cubeopt study show --help'"),
        ("study list --jsn", "No such option: --jsn"),
        (
            "train --config a --gpu x",
            "'--gpu': Input should be a valid integer",
        ),
        ("dashboard --port 70000", "'--port': Input should be less than or equal to 65535"),
        ("data build --task all", "'all' is not one of 'reconstruct', 'dialogue', 'nli', 'sentim"),
        ("worker --cpu --lease 0.1", "'--lease': Input should be greater than or equal to 1"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(cli: Cli, arguments: str, said: str) -> None:
    ran = cli(*arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("cubeopt: ")
    assert ran.err.count("\n") == 1
    assert said in ran.err


def test_a_password_in_the_wrong_place_is_not_repeated(cli: Cli) -> None:
    ran = cli("study", "show", "x", "postgresql://me:se:c@ret@host/db")
    assert ran.code == 2
    assert "(postgresql://me:***@host/db)" in ran.err


@pytest.mark.parametrize("command", WITH_STORAGE)
def test_an_unreachable_storage_is_one_line_without_password_and_code_3(
    cli: Cli, home: Path, study_file: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("CUBEOPT_STORAGE")
    arguments = [study_file if word == "FILE" else word for word in command.split()]
    ran = cli(*arguments, "--storage", "postgresql://me:secret@127.0.0.1:1/db")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("cubeopt: PostgreSQL at 127.0.0.1:1, database 'db': ")
    assert ran.err.count("\n") == 1
    assert "secret" not in ran.err


def test_the_most_talkative_log_holds_no_password(
    tmp_path: Path, server_url: str, spawn: Spawn
) -> None:
    ran = spawn(
        "study",
        "list",
        CUBEOPT_HOME=str(tmp_path),
        CUBEOPT_STORAGE=f"{server_url}&password=secret",
        CUBEOPT_LOG_LEVEL="DEBUG",
    ).finish()
    assert ran.code == 0
    assert "alembic" in ran.err
    assert "secret" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///x.db", "got 'sqlite'"),
        ("mysql://me:secret@host/db", "got 'mysql'"),
        ("host=here password=secret", "got no scheme"),
        ("postgresql://me:secret@host:port/db", "cannot be read"),
    ],
)
def test_an_address_that_is_none_is_one_line_and_code_2(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("CUBEOPT_STORAGE", url)
    ran = cli("study", "list")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert "secret" not in ran.err


@pytest.mark.parametrize("command", ["study list", "worker --cpu", "coordinator", "db up"])
def test_a_home_that_cannot_be_written_is_one_line_and_code_3(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.delenv("CUBEOPT_STORAGE", raising=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CUBEOPT_HOME", str(tmp_path / "file"))
    ran = cli(*command.split())
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.count("\n") == 1
    assert str(tmp_path / "file") in ran.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_one_line_and_code_3(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUBEOPT_STORAGE", raising=False)
    tmp_path.chmod(0o500)
    monkeypatch.setenv("CUBEOPT_HOME", str(tmp_path))
    ran = cli("db", "up")
    assert (ran.code, ran.err.count("\n")) == (3, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("CUBEOPT_LOG_LEVEL", "loud"), ("CUBEOPT_HOME", "~nobody-has-this-name/x")]
)
def test_a_wrong_variable_is_named_in_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    ran = cli("study", "list")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"cubeopt: {name}")
    assert ran.err.count("\n") == 1


def test_an_argument_that_is_no_text_is_one_line(cli: Cli, home: Path) -> None:
    ran = cli("study", "show", "\udcff")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "cubeopt: '\\udcff' is not UTF-8 text\n"


@pytest.mark.parametrize("command", ["--help", "--version", "study show tiny", "study list --json"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_error_to_be_shown(
    finished: Any, spawn: Spawn, command: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    process = spawn(*command.split())
    process.popen.stdout.close()
    code = process.popen.wait(timeout=60)
    assert (code, process.popen.stderr.read()) == (1, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line(
    finished: Any, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cubeopt", "study", "show", "tiny"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (1, "cubeopt: No space left on device\n")
