"""Watching a study: the screen at every size, lines for what reads lines, and how it is left."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console
from sqlalchemy import Engine, text

from cubeopt.cli import watch_screen
from cubeopt.cli.panes import Pen
from cubeopt.db import engine as db_engine
from cubeopt.db import orders
from cubeopt.db.orders import Order
from cubeopt.report.follower import Follower
from cubeopt.report.glance import Glance, RunningTrial, WorkerRow

from ..service.test_outage import Door
from .terminal import Terminal

Cli = Spawn = Callable[..., Any]
SIZES = [(20, 2), (30, 5), (60, 12), (80, 24), (100, 30), (123, 20), (124, 20), (220, 60)]
NASTY = "\x1b[2Jw[bold]\nx"


@pytest.fixture
def glance(finished: Any) -> Glance:
    engine = db_engine.create(finished.url)
    try:
        return Follower(engine, "tiny").look()
    finally:
        engine.dispose()


def crowded(glance: Glance) -> Glance:
    """Two hundred runs on a hundred workers, names that would move the cursor, long warnings."""
    running = [
        RunningTrial(n, "short", 0, 1, 5, 0.5, f"{NASTY}{n}", 8, 3.0 * n) for n in range(200)
    ]
    workers = [
        WorkerRow(
            f"{NASTY}{n}", "silent" if n else "live", "cuda:0 NVIDIA H100", 2, 0, 90.0, 3.5, None
        )
        for n in range(100)
    ]
    return replace(
        glance,
        state="running",
        reason=NASTY,
        running=running,
        workers=workers,
        warnings=["a long warning of many words " * 20, NASTY],
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_screen_fits_a_terminal_of_any_size_and_says_what_it_lacks(
    glance: Glance, size: tuple[int, int], ascii_only: bool
) -> None:
    for shown in (glance, crowded(glance)):
        lines = watch_screen.screen(shown, size, Pen(ascii_only), "the storage does not answer")
        assert len(lines) <= size[1]
        assert max(cell_len(line.plain) for line in lines) <= size[0]
        assert all(line.plain.isprintable() for line in lines)
        if ascii_only:
            assert all(line.plain.isascii() for line in lines)
        if size == (60, 12):
            assert lines[-1].plain.startswith("a larger terminal also has: ")
        drawn = Console(width=size[0], record=True, file=open(os.devnull, "w"))  # noqa: SIM115
        drawn.print(*lines, sep="\n")
        drawn.file.close()


def test_a_screen_without_end_has_every_fact(glance: Glance) -> None:
    said = "\n".join(
        line.plain for line in watch_screen.screen(crowded(glance), (200, None), Pen())
    )
    assert "trial 199" in said
    assert "5 of 5 trials ended, 5 asked for" in said
    assert "baselines  fvu (lower is better): predict the mean 1" in said
    assert said.count("(silent)") == 99
    assert glance.best is not None
    assert f"  trial {glance.best.trial} " in said


def test_one_look_is_printed_or_is_one_json_object(cli: Cli, finished: Any, glance: Glance) -> None:
    said = cli("study", "watch", "tiny", "--once")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("study tiny  complete")
    assert max(map(len, said.out.splitlines())) <= 100
    found = cli("study", "watch", "tiny", "--once", "--json").json
    shown = cli("study", "show", "tiny", "--json").json
    assert found["best"] == shown["best"]
    assert found["trials"] == shown["trials"]
    assert found["promotions"] == shown["promotions"]
    arrived = [each["arrived"] for each in found["rungs"]]
    assert arrived == [
        sum(r["epoch"] >= e for r in shown["runs"] if r["kind"] == "short") for e in (1, 2)
    ]


def test_a_study_that_has_ended_is_shown_once(cli: Cli, finished: Any) -> None:
    said = cli("study", "watch", "tiny")
    assert said.code == 0
    assert said.out.splitlines()[0] == said.out.splitlines()[-1]
    assert said.out.startswith("study tiny: complete")
    (line,) = cli("study", "watch", "tiny", "--json").out.splitlines()
    assert json.loads(line)["state"] == "complete"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], 2, "there is no study named 'nothing'"),
        (["tiny", "--interval", "0"], 2, "--interval"),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    cli: Cli, finished: Any, words: list[str], code: int, said: str
) -> None:
    ran = cli("study", "watch", *words)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert said in ran.err


@pytest.fixture
def created(cli: Cli, home: Path, study_file: Path, tiny_study: dict[str, Any]) -> None:
    """The study, with epochs long enough to be seen."""
    tiny_study["base"]["batch_size"] = 8
    study_file.write_text(yaml.safe_dump(tiny_study))
    assert cli("study", "create", study_file).code == 0


def test_what_reads_lines_gets_a_line_for_each_change_also_of_the_storage(
    spawn: Spawn, created: None, engine: Engine, database_url: str
) -> None:
    door = Door(database_url)
    watcher = spawn("study", "watch", "tiny", "--interval", "0.2", PYTHONUNBUFFERED="1")
    out = watcher.popen.stdout
    assert out.readline() == "study tiny: running; no trials yet\n"
    orders.steer(engine, "tiny", Order.PAUSE)
    assert out.readline().endswith("the study is paused (a person asked for pause)\n")
    engine.dispose()
    door.shut()
    assert out.readline().endswith("; trying again\n")
    door.open()
    assert out.readline() == "the storage is back\n"
    orders.steer(engine, "tiny", Order.STOP)
    ended = watcher.finish()
    assert ended.code == 0
    assert ended.out.splitlines()[0].endswith("the study is stopped (a person asked for stop)")


@pytest.mark.parametrize("end", ["failed", "deleted"])
def test_a_study_that_fails_or_is_deleted_ends_the_watch_with_code_1(
    spawn: Spawn, created: None, engine: Engine, end: str
) -> None:
    watcher = spawn("study", "watch", "tiny", "--json", "--interval", "0.2", PYTHONUNBUFFERED="1")
    assert json.loads(watcher.popen.stdout.readline())["state"] == "running"
    with engine.begin() as connection:
        what = "DELETE FROM cubeopt.studies"
        if end == "failed":
            what = "UPDATE cubeopt.studies SET state = 'failed', state_reason = 'five errors'"
        connection.execute(text(what))
    ended = watcher.finish()
    assert ended.code == 1
    if end == "failed":
        assert json.loads(ended.out)["reason"] == "five errors"
    else:
        assert (ended.out, ended.err) == ("", "cubeopt: study 'tiny' was deleted\n")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_leaves_the_terminal_as_it_was(created: None, number: int, code: int) -> None:
    with Terminal(80, 24, "study", "watch", "tiny") as terminal:
        terminal.until("queue: 0 short, 0 full")
        if number == signal.SIGINT:
            terminal.write("\x03")
        else:
            terminal.popen.send_signal(number)
        assert terminal.ended() == code
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert "Traceback" not in terminal.raw


def test_a_terminal_that_cannot_be_redrawn_gets_lines(created: None) -> None:
    with Terminal(80, 24, "study", "watch", "tiny", TERM="dumb", NO_COLOR="1") as terminal:
        terminal.until("study tiny: running")
        terminal.write("\x03")
        assert terminal.ended() == 130
    assert "\x1b" not in terminal.raw


def test_a_study_is_watched_from_its_first_trial_to_its_end_on_a_terminal_that_changes_its_size(
    spawn: Spawn, created: None
) -> None:
    with Terminal(100, 40, "study", "watch", "tiny", "--interval", "0.2", NO_COLOR="1") as terminal:
        terminal.until("none lives; start one: cubeopt worker")
        terminal.resize(60, 10)
        terminal.until("a larger terminal also has")
        terminal.resize(100, 40)
        spawn("worker", "--cpu", "--pack", "2", "--until-done")
        terminal.until("running (")
        terminal.until("promoted to 6 epochs")
        assert terminal.ended() == 0
    assert terminal.left.startswith("study tiny  complete")
    assert "6 of 6 trials ended, 6 asked for" in terminal.left
    assert "Traceback" not in terminal.raw
