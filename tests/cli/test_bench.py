"""`cubeopt bench`: what it measures and how it says it."""

from pathlib import Path

import pytest

from cubeopt.bench import feeding
from cubeopt.bench.feeding import Ratio, Report, Timing

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
