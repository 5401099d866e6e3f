"""`cubeopt compare` as a person meets it: answers, one line for each mistake, a clean stop."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from cubeopt.data.building import unify

SMALL: dict[str, Any] = {
    "lattice_size": [2, 2, 3],
    "embedding_size": 24,
    "state_size": 4,
    "lattice_steps": 2,
    "functional_radius": 1.5,
    "distant_links": 1,
    "batch_size": 16,
    "dataset": "tiny",
    "epochs": 2,
}

_BARE_PYTHON, _TORCH = 40_000_000, 180_000_000  # bytes, with less than all of cubeopt imported

Write = Callable[..., Path]


@pytest.fixture
def data(tmp_path: Path, tiny_dataset: Path) -> Path:
    """The folder of datasets, with "tiny" in it."""
    shutil.copytree(tiny_dataset, tmp_path / "home" / "data" / "tiny")
    return tmp_path / "home" / "data"


@pytest.fixture
def write(tmp_path: Path, data: Path) -> Write:
    def written(name: str, **values: Any) -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"real_training": {**SMALL, **values}}))
        return file

    return written


@pytest.fixture
def a(write: Write) -> Path:
    return write("A")


@pytest.fixture
def b(write: Write) -> Path:
    return write("B", learning_rate=0.02)


def test_two_arms_are_answered_in_a_table_and_plain_words(cli: Any, a: Path, b: Path) -> None:
    ran = cli("compare", a, b, "--seeds", "6", "--jobs", "1")
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[0] == "metric fvu on validation, lower is better"
    assert "value A B" in lines
    assert [line for line in lines if line.startswith("learning_rate")] == [
        "learning_rate 0.001000 0.02000"
    ]
    seeds = lines.index("seed A B B - A")
    assert [line.split()[0] for line in lines[seeds + 1 : seeds + 9]] == [
        *("0", "1", "2", "3", "4", "5"),
        *("mean", "deviation"),
    ]
    assert "arm pairs difference from to p" in lines
    (answer,) = [line for line in lines if line.startswith("B is better than A: fvu lower by ")]
    assert answer.endswith("; p = 0.031)")
    assert any(line.startswith("interval: Student's t;") for line in lines)


def test_three_arms_are_one_json_document_and_few_seeds_are_told_first(
    cli: Any, a: Path, b: Path, write: Write
) -> None:
    c = write("C", state_size=8)
    ran = cli("compare", a, b, c, "--seeds", "2", "--epochs", "1", "--metric", "cosine", "--json")
    assert ran.code == 0
    assert ran.err == (
        "cubeopt: 2 seeds can never show p < 0.05: the smallest p they can reach with Holm's "
        "correction for 2 comparisons is 1; give --seeds 7 or more\n"
    )
    found = ran.json
    assert (found["metric"], found["direction"]) == ("cosine", "maximize")
    assert (found["epochs"], found["seeds"]) == (1, [0, 1])
    assert [each["arm"] for each in found["arms"]] == ["A", "B", "C"]
    assert found["differing"]["state_size"] == [4, 4, 8]
    for each, other in zip(found["comparisons"], found["arms"][1:], strict=True):
        first = found["arms"][0]["values"]
        pairs = [y - x for x, y in zip(first, other["values"], strict=True)]
        assert each["differences"] == pairs
        assert each["verdict"] == "no difference shown"
        assert each["p"] == min(1.0, 2 * each["evidence"]["p"])
        assert other["metrics"][1]["validation/cosine"] == other["values"][1]
    assert "can never show" in found["notes"][0]


def test_names_of_files_are_shown_as_they_are_and_move_no_cursor(
    cli: Any, tmp_path: Path, a: Path, b: Path
) -> None:
    odd, red = tmp_path / "A[bold].yaml", tmp_path / "B\x1b[31m.yaml"
    a.rename(odd)
    b.rename(red)
    ran = cli("compare", odd, red, "--seeds", "2", "--epochs", "1", "--jobs", "1")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert r"seed A[bold] B\x1b[31m B\x1b[31m - A[bold]" in lines


def test_an_arm_that_diverges_with_every_seed_is_shown_and_the_work_has_failed(
    cli: Any, a: Path, write: Write
) -> None:
    wild = write("wild", learning_rate=1e3, gradient_clip=1e30)
    ran = cli("compare", a, wild, "--seeds", "2", "--jobs", "1")
    assert ran.code == 1
    assert "diverged, epoch 1" in ran.out
    assert "wild diverged with 2 of 2 seeds: 0 (epoch 1), 1 (epoch 1)" in ran.out
    assert "no answer for wild against A" in ran.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 3}, "epochs is 2 in {a} and 3 in {b}: one arm would be trained for longer; "),
        ({"batch_size": 32}, "batch_size is 16 in {a} and 32 in {b}: the arms would see different"),
        ({"data_seed": 4}, "data_seed is 0 in {a} and 4 in {b}: the batches would come in another"),
        ({"task": "dialogue"}, "task is reconstruct in {a} and dialogue in {b}: the arms would be"),
        ({"seed": 9}, "{a} and {b} say the same: the difference would be nought; change a value"),
        ({"learning_rat": 1.0}, "{b}: real_training: unknown key 'learning_rat'; did you mean"),
        ({"lattice_steps": 1}, "{b}: lattice_steps is 1, but from the cells that are written to"),
        ({"embedding_size": 8}, "{b}: embedding_size is 8, but the dataset {tiny} has embeddings"),
        (
            {"dataset": "none", "state_size": 8},
            "{none}: no dataset there; make one with: cubeopt data build",
        ),
    ],
)
def test_arms_that_cannot_be_compared_are_one_line(
    cli: Any, a: Path, write: Write, data: Path, changes: dict[str, Any], said: str
) -> None:
    b = write("B", **changes)
    ran = cli("compare", a, b)
    expected = said.format(a=a, b=b, tiny=data / "tiny", none=data / "none")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"cubeopt: {expected}")


def test_another_dataset_is_an_error_and_a_copy_under_another_name_is_none(
    cli: Any, a: Path, write: Write, data: Path
) -> None:
    rows = torch.nn.functional.normalize(torch.randn(60, 24, generator=torch.manual_seed(1)), dim=1)
    torch.save(rows, data / "bare.pt")
    unify.build([data / "bare.pt"], data / "other", unify.BuildOptions(width=24))
    b = write("B", dataset="other", learning_rate=0.02)
    ran = cli("compare", a, b)
    assert ran.code == 2
    assert ran.err.startswith(
        f"cubeopt: dataset is {data / 'tiny'} in {a} and {data / 'other'} in {b}, and their "
        "fingerprints differ ("
    )
    shutil.copytree(data / "tiny", data / "copy")
    same = write("C", dataset="copy")
    assert "say the same" in cli("compare", a, same).err


def test_one_file_or_the_same_twice_is_an_error(cli: Any, a: Path, tmp_path: Path) -> None:
    one = cli("compare", a)
    assert (one.code, one.err) == (2, f"cubeopt: compare needs two or more files, got 1: {a}\n")
    (tmp_path / "link.yaml").symlink_to(a)
    twice = cli("compare", a, tmp_path / "link.yaml")
    assert twice.code == 2
    assert "given twice; the difference to itself would be nought" in twice.err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--metric", "loss", "--metric 'loss': expected one of fvu, cosine, top1, mrr, "),
        ("--seeds", "1", "'--seeds'"),
        ("--epochs", "0", "'--epochs'"),
        ("--gpu", "99", "--gpu 99"),
    ],
)
def test_a_wrong_option_is_one_line(
    cli: Any, a: Path, b: Path, option: str, value: str, said: str
) -> None:
    ran = cli("compare", a, b, "--seeds", "6", option, value)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


def trainings(process: Any, memory: int = _BARE_PYTHON) -> list[psutil.Process]:
    """The children of *process* that train, as soon as they fill more than *memory*."""
    children = psutil.Process(process.popen.pid).children()
    return [
        each
        for each in children
        if any("spawn_main" in word for word in each.cmdline()) and each.memory_info().rss > memory
    ]


def test_ctrl_c_is_heard_by_the_command_and_not_by_its_processes(
    spawn: Any, a: Path, b: Path
) -> None:
    process = spawn("compare", a, b, "--epochs", "100000", "--jobs", "2", "--json")
    process.until(lambda: len(trainings(process)) == 2)
    begun = trainings(process)
    for training in begun:
        os.kill(training.pid, signal.SIGINT)
    process.until(lambda: len(trainings(process, _TORCH)) == 2)
    ran = process.send(signal.SIGINT)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "cubeopt: stopping (once more to leave at once)\n"
    assert not any(training.is_running() for training in begun)


def test_an_end_that_comes_to_all_of_its_processes_is_a_clean_one(
    spawn: Any, a: Path, b: Path
) -> None:
    process = spawn("compare", a, b, "--epochs", "100000", "--jobs", "2", "--json")
    process.until(lambda: len(trainings(process)) == 2)
    begun = trainings(process)
    process.popen.send_signal(signal.SIGTERM)
    for training in begun:
        with contextlib.suppress(psutil.NoSuchProcess):
            training.terminate()
    ran = process.finish()
    assert (ran.code, ran.out) == (130, "")
    assert ran.err == "cubeopt: stopping (once more to leave at once)\n"


def test_help_has_an_example(cli: Any) -> None:
    ran = cli("compare", "--help")
    assert ran.code == 0
    assert "Example: cubeopt compare narrow.yaml wide.yaml --seeds 8 --epochs 10" in ran.out
