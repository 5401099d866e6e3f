"""One trial through the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cubeopt.db import attempts, queue, records
from cubeopt.db import engine as db_engine
from cubeopt.db.leases import Lease
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import EndClass

Cli = Callable[..., Any]


def test_show_tells_the_whole_story(cli: Cli, finished: Any) -> None:
    best = cli("study", "show", "tiny", "--json").json["best"]
    shown = cli("trial", "show", "tiny", str(best["trial"]))
    assert shown.code == 0
    assert shown.out.startswith(f"trial {best['trial']} of study tiny: complete\n")
    told = cli("trial", "show", "tiny", str(best["trial"]), "--json").json
    assert told["params"] == best["params"]
    assert [run["kind"] for run in told["runs"]] == ["short", "full"]
    assert {each["end"] for each in told["attempts"]} == {"done"}
    assert all(each["seconds"] > 0 and each["device"] == "cpu" for each in told["attempts"])
    assert [rung["epoch"] for rung in told["rungs"]] == [1, 2]


def test_show_keeps_the_traceback_of_an_error(
    cli: Cli, home: Path, study_file: Path, settings: Any
) -> None:
    cli("study", "create", study_file)
    engine = db_engine.create(settings.database_url)
    study = records.study(engine, "tiny")
    queue.enqueue(engine, study.id, [NewTrial(0, {"learning_rate": 0.01}, {"seed": 0}, "a", 3)])
    worker = queue.register(engine, "w", "here", 1, "cpu", {})
    (claim,) = queue.claim(engine, worker, 1, 1, 60.0, "cpu", {})
    lease = Lease(claim.run_id, claim.token)
    error = "Traceback (most recent call last):\n  there\nRuntimeError: \x1b[2Jboom\n"
    attempts.fail(engine, lease, EndClass.ERROR, error, retry_limit=0)
    engine.dispose()
    shown = cli("trial", "show", "tiny", "0").out
    assert "trial 0 of study tiny: failed (error at epoch 0: RuntimeError: " in shown
    assert "short run, attempt 1 (error):\n    Traceback (most recent call last):" in shown
    assert "\x1b" not in shown
    assert "failed: trial 0 (RuntimeError: " in cli("study", "show", "tiny").out


def test_what_is_not_there_is_one_line(cli: Cli, finished: Any) -> None:
    ran = cli("trial", "show", "tiny", "99")
    assert (ran.code, ran.err) == (
        2,
        "cubeopt: study 'tiny' has no trial 99; it has 0 to 4\n",
    )
    assert "did you mean 'tiny'" in cli("trial", "show", "tinny", "0").err
