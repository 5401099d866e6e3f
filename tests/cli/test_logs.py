"""With --log-format json all that a long-running command says is JSON, and its children's too."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli, Spawn


def lines(said: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in said.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(each) for each in found)
    return found


def test_several_workers_and_the_coordinator_that_one_hosts(
    spawn: Spawn, cli: Cli, home: Path, study_file: Path
) -> None:
    assert cli("study", "create", study_file).code == 0
    words = ("--jobs", "2", "--pack", "1", "--until-done", "--name", "lab", "--log-format", "json")
    ran = spawn("worker", "--cpu", *words, CUBEOPT_LOG_LEVEL="INFO").finish()
    assert (ran.code, ran.out) == (0, "")
    said = lines(ran.err)
    ended = [each for each in said if " runs ended here, " in each["message"]]
    assert sorted(each["worker"] for each in ended) == ["lab-cpu0", "lab-cpu1"]
    leading = [each for each in said if each["message"] == "leading"]
    assert {each["logger"] for each in leading} == {"cubeopt.service.coordinator"}
    assert all("worker" not in each for each in leading)
    started = [each for each in said if each.get("event") == "started" and each["kind"] == "short"]
    assert sorted(each["trial"] for each in started) == list(range(6))
    assert {each["study"] for each in started} == {"tiny"}
    assert {each["worker"] for each in started} <= {"lab-cpu0", "lab-cpu1"}
    assert all(isinstance(each["run"], int) for each in started)
    complete = [each for each in said if each["message"].startswith("study tiny: complete")]
    assert [each["study"] for each in complete] == ["tiny"]


def test_a_dashboard_and_a_coordinator_that_are_stopped(spawn: Spawn, home: Path) -> None:
    dashboard = spawn("dashboard", "--port", "0", "--log-format", "json")
    first = dashboard.popen.stderr.readline()
    (ready,) = lines(first)
    assert ready["message"].startswith("dashboard at http://127.0.0.1:")
    coordinator = spawn("coordinator", "--log-format", "json", CUBEOPT_LOG_LEVEL="INFO")
    while lines(coordinator.popen.stderr.readline())[0]["message"] != "leading":
        pass
    for process in (dashboard, coordinator):
        ran = process.send(signal.SIGTERM)
        assert (ran.code, ran.out) == (0, "")
        lines(ran.err)


@pytest.mark.parametrize("command", ["coordinator", "dashboard"])
def test_an_error_is_a_line_without_the_password(spawn: Spawn, command: str) -> None:
    address = "postgresql://me:s3cret@127.0.0.1:1/db"
    ran = spawn(command, "--log-format", "json", CUBEOPT_STORAGE=address).finish()
    (said,) = lines(ran.err)
    assert (ran.code, ran.out, said["level"]) == (3, "", "ERROR")
    assert said["message"].startswith("PostgreSQL at 127.0.0.1:1, database 'db': ")
    assert "s3cret" not in ran.err
