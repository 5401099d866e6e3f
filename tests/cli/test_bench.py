"""`cubeopt bench`: what it measures and how it says it."""

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cubeopt.bench import curves, feeding, searchers, searching
from cubeopt.bench.curves import Curve, Curves
from cubeopt.bench.feeding import Ratio, Report, Timing
from cubeopt.bench.replaying import Work
from cubeopt.search import study

from .conftest import Cli


@pytest.mark.usefixtures("home")
def test_a_dataset_is_measured_for_each_of_its_tasks(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "SLOTS", 2)  # eight slots of the 8x8x8 cube take their time
    found = cli("bench", "data", "tiny", "--rounds", "1", "--json").json
    assert Path(found["dataset"]).name == "tiny"
    assert found["train_rows"] == {"reconstruct": 160, "dialogue": 80}
    assert (found["batch_size"], found["embedding_size"], found["rounds"]) == (16, 24, 1)
    assert {ratio["task"] for ratio in found["ratios"]} == {"reconstruct", "dialogue"}
    assert all(timing["microseconds"] > 0 for timing in found["timings"])


def test_a_report_says_which_goals_were_met(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measured(dataset, device, rounds, tell):  # type: ignore[no-untyped-def]
        asked.append((dataset.counts(dataset.tasks)["train"], str(device), rounds))
        return Report(
            dataset="random rows",
            train_rows={"dialogue": 20},
            embedding_size=768,
            batch_size=16,
            rounds=3,
            timings=[Timing("dialogue", "DataLoader, a batch", 1234.56, 1000.0, 2000.0)],
            ratios=[
                Ratio("dialogue", "first", 30.0, 20.0, 40.0, "at least 20", True),
                Ratio("dialogue", "second", 3.0, 2.0, 4.0, "at least 20", False),
                Ratio("dialogue", "third", 5.0, 5.0, 5.0, None, None),
            ],
            machine={"cpu": "a fast one"},
        )

    monkeypatch.setattr(feeding, "measure", measured)
    lines = cli("bench", "data", "--rows", "20", "--rounds", "3").out.splitlines()
    assert asked == [(40, "cpu", 3)]
    assert "cpu      a fast one" in lines
    assert "1234.6" in next(line for line in lines if "DataLoader" in line)
    assert lines[-3:] == [
        "dialogue: first: 30 (20 to 40), goal at least 20: met",
        "dialogue: second: 3 (2 to 4), goal at least 20: missed",
        "dialogue: third: 5 (5 to 5)",
    ]


def test_a_dataset_and_random_rows_exclude_each_other(cli: Cli) -> None:
    ran = cli("bench", "data", "tiny", "--rows", "100")
    assert (ran.code, ran.out) == (2, "")
    assert "give either DATASET or --rows N" in ran.err


def test_a_dataset_that_is_not_there_is_one_clear_line(cli: Cli) -> None:
    ran = cli("bench", "data", "nosuch")
    assert ran.code != 0
    assert "nosuch: no dataset there" in ran.err
    assert ran.err.count("\n") == 1


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve configurations; the larger the learning rate, the better."""
    spec = study.parse(
        {
            "name": "small",
            "base": {"epochs": 6},
            "search": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
            "rungs": {"epochs": [6], "rule": "none"},
        },
        "small",
    )
    rows = tuple(
        Curve(
            {"learning_rate": 1e-4 * 1.5**number},
            tuple(1.0 / (1.0 + 0.1 * number + 0.1 * epoch) for epoch in range(6)),
            2.0,
        )
        for number in range(12)
    )
    path = tmp_path / "small.json.xz"
    curves.write(Curves(spec, rows, {"command": "by hand"}), path)
    return path


def test_a_search_is_replayed_with_every_method_and_the_same_each_time(
    cli: Cli, table: Path
) -> None:
    command = ("bench", "search", "--table", table, "--seeds", "2", "--workers", "2", "--json")
    found = cli(*command).json
    assert (found["seeds"], found["workers"], found["goal"]) == (2, 2, 0.5)
    assert found["table"]["command"] == "by hand"
    assert found["table"]["configurations"] == 12
    assert found["table"]["seconds to train all"] == 12 * 6 * 2.0
    methods = {each["method"]: each for each in found["outcomes"]}
    assert set(methods) == set(searchers.METHODS)
    # Without pruning two workers train twelve rows in six rounds of 12 s, and one is the best.
    for name in ("random", "TPE"):
        assert methods[name]["missed"] == 0.0
        assert methods[name]["seconds"] % 12.0 == 0.0
    others = [each for name, each in methods.items() if not name.startswith("cubeopt")]
    other = methods[found["best_other"]]["seconds"]
    assert other == min(each["seconds"] for each in others if each["seconds"])
    assert found["ratio"] == methods[searchers.OURS]["seconds"] / other
    assert found["met"] is (found["ratio"] <= 0.5)
    assert cli(*command).json == found


def test_a_replay_prints_a_row_for_each_method_and_says_whether_the_goal_is_met(
    cli: Cli, table: Path
) -> None:
    lines = cli("bench", "search", "--table", table, "--seeds", "1").out.splitlines()
    for name in searchers.METHODS:
        assert sum(line.startswith(f"{name} ") for line in lines) == 2
    assert lines[-1].startswith("ours / ")
    assert lines[-1].endswith((": met", ": missed"))


def test_a_table_that_is_none_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing")
    ran = cli("bench", "search", "--table", file)
    assert (ran.code, ran.out) == (2, "")
    assert f"{file} is no table of `cubeopt bench curves`" in ran.err
    assert ran.err.count("\n") == 1


def test_ctrl_c_ends_a_replay_quietly(
    cli: Cli, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(searchers.CubeoptSearcher):
        def ended(self, row: int, epoch: int, value: float) -> bool:
            signal.raise_signal(signal.SIGINT)
            return False  # it is not asked twice: another signal would end the test

        def work(self) -> Work | None:
            return None if self._waiting else super().work()

    def make(loaded: Curves, seed: int) -> Interrupted:
        return Interrupted(loaded, loaded.spec)

    monkeypatch.setattr(searching, "METHODS", {searchers.OURS: make})
    ran = cli("bench", "search", "--table", table, "--workers", "1", "--seeds", "3")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "cubeopt: stopping (once more to leave at once)\n"


def test_a_study_becomes_a_table(cli: Cli, home: Path, tiny_study: dict[str, Any]) -> None:
    content = {
        **tiny_study,
        "rungs": {"epochs": [6], "rule": "none"},
        "promotion": {"top": 0},
        "budget": {"trials": 3},
    }
    file, table = home / "tiny.yaml", home / "tiny.json.xz"
    file.write_text(yaml.safe_dump(content))
    assert cli("study", "create", file).code == 0
    ran = cli("bench", "curves", "tiny", "-o", table)
    assert ran.code == 2
    assert "study 'tiny' is running; let a worker bring it to its end, or stop it" in ran.err
    assert cli("worker", "--cpu", "--pack", "2", "--until-done").code == 0
    found = cli("bench", "curves", "tiny", "-o", table, "--json").json
    assert (found["configurations"], found["epochs"], found["failed, left out"]) == (3, 6, 0)
    made = curves.read(table)
    trials = cli("study", "show", "tiny", "--json").json["runs"]
    for row, trial in zip(made.rows, trials, strict=True):
        assert row.values[-1] == pytest.approx(trial["value"], rel=1e-6)
        assert row.point == {name: trial[name] for name in content["search"]}
        assert row.epoch_seconds > 0
    assert made.facts["command"] == "cubeopt bench curves tiny"


def test_a_study_that_prunes_is_no_table(cli: Cli, home: Path, tiny_study: dict[str, Any]) -> None:
    file = home / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_study))
    assert cli("study", "create", file).code == 0
    ran = cli("bench", "curves", "tiny")
    assert (ran.code, ran.out) == (2, "")
    assert "give it rungs: {epochs: [6], rule: none}" in ran.err
    assert "there is no study named 'tin'" in cli("bench", "curves", "tin").err


def test_a_study_that_was_stopped_before_any_trial_ended_is_no_table(
    cli: Cli, home: Path, tiny_study: dict[str, Any]
) -> None:
    file = home / "tiny.yaml"
    file.write_text(yaml.safe_dump({**tiny_study, "rungs": {"epochs": [6], "rule": "none"}}))
    assert cli("study", "create", file).code == 0
    assert cli("study", "stop", "tiny").code == 0
    ran = cli("bench", "curves", "tiny")
    assert (ran.code, ran.out) == (2, "")
    assert "study 'tiny' has no trial that is at its end" in ran.err
