"""Steering through the command line: one clear line, the right code, and repeating is fine."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cubeopt.db import attempts, orders, queue, records
from cubeopt.db import engine as db_engine
from cubeopt.db.leases import Lease
from cubeopt.db.queue import NewTrial
from cubeopt.db.tables import EndClass, StudyState

Cli = Callable[..., Any]


@pytest.fixture
def made(cli: Cli, home: Path, study_file: Path, settings: Any) -> Iterator[Engine]:
    """The storage with the study "tiny", not begun."""
    assert cli("study", "create", study_file).code == 0
    engine = db_engine.create(settings.database_url)
    yield engine
    engine.dispose()


def failed_trial(engine: Engine) -> None:
    study = records.study(engine, "tiny")
    queue.enqueue(engine, study.id, [NewTrial(0, {"learning_rate": 0.01}, {"seed": 0}, "a", 3)])
    worker = queue.register(engine, "lab-1", "lab", 1, "cpu", {})
    (claim,) = queue.claim(engine, worker, 1, 1, 60.0, "cpu", {})
    lease = Lease(claim.run_id, claim.token)
    attempts.fail(engine, lease, EndClass.ERROR, "boom", retry_limit=0)


def test_pause_resume_and_stop_say_where_the_study_stands(cli: Cli, made: Engine) -> None:
    said = [
        cli("study", order, "tiny").out
        for order in ("pause", "pause", "resume", "resume", "stop", "stop", "resume")
    ]
    assert [line.removeprefix("study tiny is ").strip() for line in said] == [
        *("paused", "paused already", "running", "running already"),
        *("stopped", "stopped already", "running"),
    ]


def test_what_the_state_does_not_allow_is_one_line_and_code_2(cli: Cli, made: Engine) -> None:
    study = records.study(made, "tiny")
    orders.end(made, study.id, StudyState.COMPLETE, "all have ended")
    ran = cli("study", "pause", "tiny")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == ("cubeopt: study 'tiny' is complete; only one that is running can pause\n")
    assert "did you mean 'tiny'" in cli("study", "stop", "tinny").err


def test_delete_asks_first_and_says_what_it_removed(cli: Cli, made: Engine) -> None:
    failed_trial(made)
    ran = cli("study", "delete", "tiny")
    assert (ran.code, ran.out) == (2, "")
    assert "confirm it with --yes" in ran.err
    gone = cli("study", "delete", "tiny", "--yes", "--json").json
    assert (gone["trials"], gone["runs"], gone["attempts"], gone["epochs"]) == (1, 1, 1, 0)
    assert gone["checkpoints"].endswith("checkpoints/tiny")
    assert cli("study", "list", "--json").json == []
    assert cli("study", "delete", "tiny", "--yes").code == 2


def test_workers_are_listed_and_drained(cli: Cli, made: Engine) -> None:
    assert cli("workers", "list").out.startswith("no worker lives")
    queue.register(made, "lab-1", "lab", 1, "cpu", {})
    (row,) = cli("workers", "list", "--json").json
    assert (row["name"], row["state"], row["runs"]) == ("lab-1", "live", 0)
    assert cli("workers", "drain", "lab-1").out == "worker lab-1 was asked to leave\n"
    again = cli("workers", "drain", "lab-1")
    assert (again.code, again.out) == (0, "worker lab-1 was asked to leave already, or has gone\n")
    assert cli("workers", "list", "--json").json[0]["state"] == "draining"
    unknown = cli("workers", "drain", "lab-2")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    assert "did you mean 'lab-1'" in unknown.err


def test_a_trial_is_retried_and_pruned(cli: Cli, made: Engine) -> None:
    failed_trial(made)
    said = [cli("trial", act, "tiny", "0").out for act in ("retry", "retry", "prune", "prune")]
    assert [line.removeprefix("trial 0 of study tiny ").strip() for line in said] == [
        *("waits", "waits already", "is pruned", "is pruned already"),
    ]
    ran = cli("trial", "retry", "tiny", "0")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "only one that failed can be retried" in ran.err
    assert "(pruned by a person at epoch 0)" in cli("trial", "show", "tiny", "0").out


def test_a_retry_in_a_study_that_does_not_run_says_how_to_let_it_go_on(
    cli: Cli, made: Engine
) -> None:
    failed_trial(made)
    cli("study", "pause", "tiny")
    said = cli("trial", "retry", "tiny", "0").out
    assert said.endswith("the study is paused; let it go on with: cubeopt study resume tiny\n")


def test_values_of_ones_own_are_queued_or_refused_in_one_line(cli: Cli, made: Engine) -> None:
    row = cli("trial", "enqueue", "tiny", "learning_rate=0.01", "--json").json
    assert row == {"study": "tiny", "trial": 0, "learning_rate": 0.01}
    for wrong in ("learning_rate=7", "epochs=3", "nonsense=1", "learning_rate"):
        ran = cli("trial", "enqueue", "tiny", wrong)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), json.dumps(ran.err)
