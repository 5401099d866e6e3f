"""A training as a person sees it: live on a terminal, a line an epoch elsewhere, a report."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from cubeopt.cli import training
from cubeopt.cli.training import TrainScreen
from cubeopt.service.experiment import CorpusScores, Progress, Result
from cubeopt.service.yardsticks import Yardstick
from cubeopt.training.diagnosis import Finding, Kind

ROW = {
    "train/loss/total": 0.75,
    "train/loss/reconstruction": 0.7,
    "train/loss/spatial": 0.05,
    "train/gradient_norm/all": 0.25,
    "samples_per_second": 123.4,
    "peak_memory_bytes": 2.5e9,
    "device_utilisation": 87.6,
    "validation/fvu": 0.65,
    "validation/cosine": 0.625,
    "validation/top1": 0.5,
    "validation/mrr": None,
    "validation/usage/local": 60.0,
    "validation/usage/distant": 40.0,
}
NUMBERS = {"loss/total": 0.75, "loss/reconstruction": 0.7, "gradient_norm/all": 0.25}
FOUND = Finding(Kind.DEAD_EXPERT, "distant", 3, 7, "it does next to nothing.")
SCORES = {"fvu": 0.9, "cosine": 0.3, "top1": 0.1, "mrr": 0.2}
RESULT = Result(
    metric="fvu",
    value=0.65,
    epochs=7,
    checkpoint="/there/checkpoints/step_7",
    log="/there/metrics.jsonl",
    metrics={
        **{f"validation/{name}": value / 2 for name, value in SCORES.items()},
        **{f"test/{name}": value / 4 for name, value in SCORES.items()},
        "validation/effective_rank": 12.5,
        "test/effective_rank": 11.5,
    },
    baselines=[
        Yardstick("mean", None, {**SCORES, "fvu": 1.0}, SCORES),
        Yardstick("pca", 16, SCORES, {**SCORES, "mrr": None}),
    ],
    findings=[FOUND],
    corpora=[],
)


def progress(**changes: Any) -> Progress:
    return replace(Progress(2, 7, 25, 70, NUMBERS, 120.0, 3725.0), **changes)


def told(*each: Progress, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    with TrainScreen(console, "mine") as screen:
        for one in each:
            screen.tell(one)
    return stream.getvalue()


def test_off_a_terminal_an_epoch_is_one_line_and_nothing_else_is_written() -> None:
    out = told(progress(), progress(epoch=3, metrics=ROW), progress())
    assert out == (
        "epoch 3:  loss 0.75  reconstruction 0.7  spatial 0.05  fvu 0.6500  cosine 0.6250  "
        "top1 0.5000  local 60.0%  distant 40.0%  gradient 0.2500  123.4 samples/s  2.50 GB  "
        "device 88%\n"
    )


def test_a_finding_is_one_line_after_the_epoch_that_shows_it() -> None:
    lines = told(progress(epoch=3, metrics=ROW, findings=[FOUND])).splitlines()
    assert lines[1:] == ["epoch 3: dead expert distant: it does next to nothing."]


def test_an_epoch_without_a_validation_is_a_line_too() -> None:
    row = {name: value for name, value in ROW.items() if not name.startswith("validation")}
    (line,) = told(progress(epoch=1, metrics=row)).splitlines()
    assert line.startswith("epoch 1:  loss 0.75")
    assert "fvu" not in line


def test_on_a_terminal_the_live_numbers_stand_below_a_short_line() -> None:
    out = told(progress(metrics=ROW), progress(step=30), terminal=True)
    assert "epoch 2:  loss 0.75  fvu 0.6500  cosine 0.6250  top1 0.5000  local 60.0%" in out
    assert "spatial" not in out
    for shown in (
        *("mine", "30/70", "1:02:05 left", "epoch 3 of 7  loss 0.75  reconstruction 0.7"),
        *("gradient 0.2500", "120 samples/s  2.50 GB  device 88%", "validation  fvu 0.6500"),
    ):
        assert shown in out


def test_what_is_not_finite_is_shown_as_such() -> None:
    row = {**ROW, "train/loss/total": None, "validation/fvu": None}
    (line,) = told(progress(epoch=1, metrics=row)).splitlines()
    assert line.startswith("epoch 1:  loss -  reconstruction 0.7")


def test_the_report_sets_the_result_beside_the_baselines(capsys: Any) -> None:
    training.print_report("mine", RESULT)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "fvu 0.65 on validation, 0.225 on test"
    assert lines[3] == "split fvu cosine top1 mrr"
    assert lines[4] == "mine validation 0.4500 0.15000 0.05000 0.10000"
    assert lines[6] == "PCA to 16 numbers validation 0.9000 0.30000 0.10000 0.20000"
    assert lines[9] == "PCA to 16 numbers test 0.9000 0.30000 0.10000 -"
    assert lines[11:] == [
        "epochs 3 to 7: dead expert distant: it does next to nothing.",
        "checkpoint /there/checkpoints/step_7",
        "every epoch's numbers /there/metrics.jsonl",
    ]


def test_the_report_shows_the_metric_of_the_study_first(capsys: Any) -> None:
    training.print_report("mine", replace(RESULT, metric="effective_rank", findings=[]))
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["split", "effective_rank", "fvu", "cosine", "top1", "mrr"] in rows
    assert rows[4][2] == "12.50"
    assert "no findings" in out


def test_of_a_pooled_dataset_each_corpus_has_its_rows(capsys: Any) -> None:
    training.print_report("first", RESULT)
    assert "each corpus alone" not in capsys.readouterr().out
    corpora = [
        CorpusScores("talks", "validation", 58, 0.5, 0.75, 0.55, 0.7),
        CorpusScores("talks", "test", 53, None, 0.7, 0.6, 0.65),
    ]
    training.print_report("first", replace(RESULT, corpora=corpora))
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("each corpus alone"))
    header = "corpus split rows fvu cosine PCA fvu PCA cosine"
    assert lines[at + 1].split() == header.split()
    assert lines[at + 2].split()[:3] == ["talks", "validation", "58"]
    assert lines[at + 3].split()[:4] == ["talks", "test", "53", "-"]


def test_of_several_tasks_each_has_its_rows(capsys: Any) -> None:
    of_task = {f"{name}/nli": value for name, value in SCORES.items()}
    everything = {**SCORES, **of_task}
    both = {f"{split}/{n}": x for split in ("validation", "test") for n, x in everything.items()}
    result = replace(
        RESULT,
        metrics=both,
        baselines=[
            Yardstick("mean", None, everything, everything),
            Yardstick("ridge", None, of_task, of_task),
        ],
    )
    training.print_report("mine", result)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[3][:3] == ["task", "split", "fvu"]
    assert [" ".join(row[:-4]) for row in rows[4:14]] == [
        *("mine all validation", "predict the mean all validation"),
        *("mine all test", "predict the mean all test"),
        *("mine nli validation", "predict the mean nli validation"),
        "ridge regression nli validation",
        *("mine nli test", "predict the mean nli test", "ridge regression nli test"),
    ]


@pytest.mark.parametrize("name", ["cubeopt.cli.main", "cubeopt.cli.service"])
def test_the_commands_are_known_without_torch(name: str) -> None:
    import subprocess
    import sys

    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
