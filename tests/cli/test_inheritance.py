"""`study create --from` and `study revise` through the command line, with real workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Cli = Callable[..., Any]
TPE = {"name": "tpe", "startup_trials": 3}


@pytest.fixture
def write(study_file: Path, tiny_study: dict[str, Any]) -> Callable[..., Path]:
    """The study file with *changes* put in."""

    def written(**changes: Any) -> Path:
        study_file.write_text(yaml.safe_dump({**tiny_study, **changes}))
        return study_file

    return written


def _worked(spawn: Any) -> None:
    ran = spawn("worker", "--cpu", "--pack", "2", "--until-done").finish()
    assert ran.code == 0, ran


def test_a_study_begins_with_what_an_earlier_one_found_and_says_so(
    cli: Cli, home: Path, write: Callable[..., Path], spawn: Any
) -> None:
    assert cli("study", "create", write()).code == 0
    _worked(spawn)
    search = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
    wider = {**search, "similarity_weight": {"low": 0.0, "high": 1.0}}
    file = write(name="next", search=wider, sampler=TPE, budget={"trials": 3})
    made = cli("study", "create", file, "--from", "tiny", "--json").json
    assert made["warm_start"] == [{"study": "tiny", "trials": 6, "left_out": {}}]
    assert made["notes"] == []  # without what it was taught, all three would be random
    again = cli("study", "create", file, "--from", "tiny", "--exist-ok", "--json").json
    assert again["warm_start"] == []
    note = "study next exists: what teaches it was decided when it was made"
    assert note in again["notes"]
    assert cli("study", "delete", "tiny", "--yes").code == 0
    _worked(spawn)
    shown = cli("study", "show", "next").out
    assert "warm start: 6 trials of tiny teach the sampler\n" in shown
    told = cli("study", "show", "next", "--json").json
    assert (told["state"], told["warm_start"]) == ("complete", {"tiny": 6})
    assert sum(told["trials"].values()) == 3
    assert told["best"]["trial"] in range(3)
    third = write(name="third", search=search, sampler=TPE)
    said = cli("study", "create", third, "--from", "next").out
    left = "warm start: 0 trials of next teach the sampler; left out: 3 other base values "
    assert f"{left}(similarity_weight)\n" in said


def test_what_cannot_teach_is_one_line_and_no_study(
    cli: Cli, home: Path, write: Callable[..., Path]
) -> None:
    assert cli("study", "create", write()).code == 0
    ran = cli("study", "create", write(name="next"), "--from", "tiny")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "cubeopt: study next: --from tiny: the sampler random does not learn from trials that it "
        "did not ask for; take tpe, gp, mfgp or nsgaii\n",
    )
    ran = cli("study", "create", write(name="next", sampler=TPE), "--from", "tinny")
    assert ran.err == "cubeopt: there is no study named 'tinny'; did you mean 'tiny'?\n"
    assert [row["name"] for row in cli("study", "list", "--json").json] == ["tiny"]


def test_a_complete_study_is_revised_and_goes_on(
    cli: Cli, home: Path, write: Callable[..., Path], spawn: Any
) -> None:
    assert cli("study", "create", write(), "--name", "mine").code == 0
    _worked(spawn)
    search = {"similarity_weight": {"low": 0.0, "high": 4.0}}
    file = write(search=search, budget={"trials": 9})
    revised = cli("study", "revise", file, "--name", "mine")
    assert (revised.code, revised.out) == (
        0,
        "study mine: revised search, budget\n"
        "0 of the 6 trials asked for before teach the sampler\n"
        "it was complete and is running again\n",
    )
    assert cli("study", "revise", file, "--name", "mine").out == (
        "study mine is like this already\n"
    )
    _worked(spawn)
    shown = cli("study", "show", "mine", "--json").json
    assert (shown["state"], shown["state_reason"]) == ("complete", "all 9 trials have ended")
    assert shown["revisions"]["count"] == 1
    runs = [row for row in shown["runs"] if row["kind"] == "short"]
    assert ["learning_rate" in row for row in runs] == [True] * 6 + [False] * 3
    assert "revised once, 20" in cli("study", "show", "mine").out
    assert cli("study", "figure", "mine", "-o", home).code == 0
    assert cli("study", "export", "mine", "-o", home / "best.yaml").code == 0
    assert cli("trial", "show", "mine", "8").code == 0
    fewer = write(search=search, budget={"trials": 3})
    assert cli("study", "revise", fewer, "--name", "mine").out == (
        "study mine: revised budget\n"
        "it stays complete: nothing is left to do, or a budget is spent\n"
    )


def test_a_revision_tells_who_waits_outside_and_what_may_not_change(
    cli: Cli, home: Path, write: Callable[..., Path]
) -> None:
    assert cli("study", "create", write()).code == 0
    cli("study", "pause", "tiny")
    changed = write(budget={"trials": 7})
    told = cli("study", "revise", changed, "--json").json
    assert told == {
        **{"study": "tiny", "changed": ["budget"], "state_before": "paused", "state": "paused"},
        **{"trials": 7, "fitting": 0, "outside": 0, "waiting_outside": []},
    }
    assert cli("study", "revise", write(budget={"trials": 8})).out == (
        "study tiny: revised budget\nit is paused; go on with: cubeopt study resume tiny\n"
    )
    ran = cli("study", "revise", write(code="ignore"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "cubeopt: study tiny: code cannot be revised: it is 'warn', the file says 'ignore'; what "
        "can be are search, sampler, promotion and budget. For another study: cubeopt study create "
        "FILE --name NAME --from tiny\n"
    )
    ran = cli("study", "revise", write(), "--name", "tinny")
    assert ran.err == "cubeopt: there is no study named 'tinny'; did you mean 'tiny'?\n"
