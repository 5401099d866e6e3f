"""A training by its files: while they grow, are rewritten, are half written or wrong."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cubeopt.errors import CheckpointError, InputError
from cubeopt.report.journal import Journal, State, folder
from cubeopt.settings import Settings

FVUS = [0.9, 0.6, 0.7]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "storage", None, "WARNING")


@pytest.fixture
def training(settings: Settings) -> Path:
    """The folder of a training of ten epochs that has ended none."""
    made = settings.experiments_dir / "one"
    (made / "checkpoints" / "step_00000004").mkdir(parents=True)
    (made / "config.yaml").write_text("real_training:\n  epochs: 10\n")
    (made / "metrics.jsonl").touch()
    return made


def row(epoch: int, fvu: float | None, **more: Any) -> str:
    values = {"validation/fvu": fvu, "train/loss/total": 2.0 * epoch, "epoch_seconds": 4.0 + epoch}
    return json.dumps({"epoch": epoch, **values, **more}) + "\n"


def write(training: Path, text: str) -> None:
    with (training / "metrics.jsonl").open("a") as file:
        file.write(text)


def age(training: Path, seconds: float) -> None:
    """As if nothing had been written for so long."""
    then = time.time() - seconds
    for path in (training / "config.yaml", training / "metrics.jsonl", training / "checkpoints"):
        os.utime(path, (then, then))


def test_a_log_is_followed_as_it_grows(training: Path, settings: Settings) -> None:
    journal = Journal(training, settings)
    empty = journal.look()
    assert (empty.state, empty.epoch, empty.target_epochs) == (State.TRAINING, 0, 10)
    assert (empty.value, empty.epoch_seconds, empty.seconds_left) == (None, None, None)
    for epoch, fvu in enumerate(FVUS, 1):
        write(training, row(epoch, fvu))
        shown = journal.look()
        assert (shown.epoch, shown.value) == (epoch, fvu)
    assert (shown.best, shown.best_epoch, shown.checkpoint) == (0.6, 2, "step_00000004")
    assert shown.epochs == [1, 2, 3]
    assert shown.metrics["validation/fvu"] == FVUS
    assert shown.last("train/loss/total") == 6.0
    assert shown.epoch_seconds == 6.0  # the median of 5, 6 and 7
    assert shown.seconds_left == pytest.approx(7 * 6.0, abs=5.0)
    assert journal.look().findings == []


def test_a_half_written_line_waits_for_its_end(training: Path, settings: Settings) -> None:
    journal = Journal(training, settings)
    text = row(2, 0.5)
    write(training, row(1, 0.9) + text[:20])
    assert journal.look().epochs == [1]
    write(training, text[20:])
    assert journal.look().epochs == [1, 2]


def test_a_log_that_a_resumed_training_rewrites_is_read_anew(
    training: Path, settings: Settings
) -> None:
    journal = Journal(training, settings)
    write(training, "".join(row(epoch, 0.5) for epoch in range(1, 6)))
    assert journal.look().epoch == 5
    (training / "metrics.jsonl").write_text(row(1, 0.5) + row(2, 0.5))
    assert journal.look().epochs == [1, 2]
    (training / "metrics.jsonl").write_text("".join(row(e, 0.25) for e in range(1, 6)))
    assert journal.look().metrics["validation/fvu"] == [0.25] * 5


def test_a_training_has_ended_with_its_result_and_not_with_that_of_an_older_one(
    training: Path, settings: Settings
) -> None:
    journal = Journal(training, settings)
    write(training, row(1, 0.9, **{"validation/top1": 0.25}))
    age(training, 5.0)
    result = {"metric": "top1", "metrics": {"test/top1": 0.2}, "baselines": []}
    (training / "result.json").write_text(json.dumps(result))
    shown = journal.look()
    assert (shown.state, shown.metric, shown.value, shown.seconds_left) == (
        *(State.ENDED, "top1", 0.25, None),
    )
    assert shown.over
    assert shown.result == result
    then = time.time() - 60.0
    os.utime(training / "result.json", (then, then))
    again = journal.look()
    assert (again.state, again.result, again.metric) == (State.TRAINING, None, "fvu")


def test_the_best_of_a_metric_that_rises_is_its_greatest(
    training: Path, settings: Settings
) -> None:
    write(training, "".join(row(n, 0.5, **{"validation/mrr": m}) for n, m in ((1, 0.3), (2, 0.1))))
    (training / "result.json").write_text(json.dumps({"metric": "mrr"}))
    shown = Journal(training, settings).look()
    assert (shown.value, shown.best, shown.best_epoch) == (0.1, 0.3, 1)


@pytest.mark.parametrize(
    ("epochs", "seconds", "state"),
    [
        *((0, 100.0, State.TRAINING), (0, 1000.0, State.SILENT)),  # the first may take a while
        *((3, 50.0, State.TRAINING), (3, 70.0, State.SILENT)),  # an epoch takes 6 s
    ],
)
def test_a_training_of_which_nothing_comes_is_said_to_be_silent(
    training: Path, settings: Settings, epochs: int, seconds: float, state: State
) -> None:
    write(training, "".join(row(epoch, 0.5) for epoch in range(1, epochs + 1)))
    age(training, seconds)
    shown = Journal(training, settings).look()
    assert shown.state is state
    assert shown.silent_seconds == pytest.approx(seconds, abs=10.0)
    assert not shown.over


def test_a_training_that_diverged_is_over_and_the_finding_says_where(
    training: Path, settings: Settings
) -> None:
    write(training, row(1, 0.9) + row(2, None))
    shown = Journal(training, settings).look()
    assert (shown.state, shown.over, shown.value) == (State.DIVERGED, True, 0.9)
    assert [(str(each.kind), each.first) for each in shown.findings] == [("diverged", 2)]
    json.dumps(shown.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json\n", "line 2, is no JSON"),
        ('{"validation/fvu": 1}\n', "line 2, is no row of an epoch"),
        ("[1]\n", "line 2, is no row of an epoch"),
    ],
)
def test_a_line_that_is_no_row_is_named(
    training: Path, settings: Settings, line: str, said: str
) -> None:
    write(training, row(1, 0.9) + line)
    with pytest.raises(CheckpointError, match=said):
        Journal(training, settings).look()


def test_the_folder_is_found_by_itself_a_checkpoint_in_it_or_its_name(
    training: Path, settings: Settings
) -> None:
    inside = (training, training / "checkpoints", training / "checkpoints" / "step_00000004")
    for path in (*inside, Path("one")):
        assert folder(path, settings) == training.resolve()


def test_what_has_no_log_is_an_error_that_says_what_to_use(
    tmp_path: Path, settings: Settings
) -> None:
    run = settings.checkpoints_dir / "cube8" / "trial_00012" / "full" / "epoch_00050.t7"
    run.mkdir(parents=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "state.safetensors").touch()
    for path, said in {
        run: "use: cubeopt study watch cube8, or cubeopt trial show cube8 12",
        settings.checkpoints_dir: "use: cubeopt study watch NAME",
        alone: "is a checkpoint without its training",
        alone / "state.safetensors": "is a file",
        tmp_path: "has no log",
        tmp_path / "nowhere": "there is no folder .*nowhere",
    }.items():
        with pytest.raises(InputError, match=said):
            folder(path, settings)
