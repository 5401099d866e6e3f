"""Labels and groups that stand in a file beside the embeddings, or in their own file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from cubeopt.data.reading import sources
from cubeopt.errors import DataError
from cubeopt.trial import Task

LINES = [
    {"snli_id": "dev:1", "label": 2, "premise": "a", "hypothesis": "b"},
    {"snli_id": "dev:2", "label": 0, "premise": "c", "hypothesis": "d"},
    {"snli_id": "dev:3", "label": 1, "premise": "a", "hypothesis": "e"},
]
SHOWN = [
    {"question": "a", "answer": "b", "label": 2, "snli_id": "dev:1"},
    {"question": "c", "answer": "d", "label": 0, "snli_id": "dev:2"},
]


@pytest.fixture
def beside(tmp_path: Path) -> Callable[[Sequence[Any]], Path]:
    def _write(lines: Sequence[Any]) -> Path:
        path = tmp_path / "labels.jsonl"
        path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
        return path

    return _write


@pytest.fixture
def snli(save: Callable, rows: Callable) -> Callable[..., Path]:
    """Three pairs of SNLI, of which the file itself shows the first two."""

    def _save(**more: Any) -> Path:
        content = {
            "question_embeddings": rows(3, 1),
            "answer_embeddings": rows(3, 2),
            "dataset_info": {"source": "SNLI 1.0", "num_pairs": 3, "embedding_dim": 768},
            "sample_pairs": SHOWN,
        }
        return save("snli.pt", {**content, **more})

    return _save


def _labels(source: sources.Source) -> list[int]:
    assert source.labels is not None
    return source.labels.tolist()


def _groups(source: sources.Source) -> list[int]:
    assert source.groups is not None
    return source.groups.tolist()


def test_a_file_beside_gives_labels_and_groups_by_premise(snli: Callable, beside: Callable) -> None:
    source = sources.read(snli(), labels=beside([*LINES, "", " "]))
    assert (source.task, source.corpus) == (Task.NLI, "snli")
    assert _labels(source) == [2, 0, 1]
    assert _groups(source) == [0, 1, 0]
    assert (source.notes, source.problems) == ((), ())


@pytest.mark.parametrize("key", ["label", "gold_label"])
def test_a_label_may_be_a_name(key: str, snli: Callable, beside: Callable) -> None:
    names = ["Contradiction", "entailment", "-"]
    path = beside([{key: name, "sentence1": "a"} for name in names])
    source = sources.read(snli(sample_pairs=[]), labels=path)
    assert _labels(source) == [2, 0, -1]
    assert _groups(source) == [0, 0, 0]


def test_labels_of_single_sentences_are_sentiment(
    save: Callable, rows: Callable, beside: Callable
) -> None:
    path = save("bare.pt", rows(3, 1))
    source = sources.read(path, labels=beside([{"label": name} for name in ("pos", "neg", "pos")]))
    assert (source.task, source.corpus) == (Task.SENTIMENT, "sentiment")
    assert (source.label_names, _labels(source)) == (("neg", "pos"), [1, 0, 1])
    assert source.groups is None


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (LINES[:2], "2 lines of labels for the 3 rows of "),
        ([*LINES, LINES[0]] * 2, "8 lines of labels for the 3 rows of "),
        ([LINES[0], "{", LINES[2]], "line 2: broken JSON"),
        ([LINES[0], "", [1], LINES[2]], "line 3: a list where an object is expected"),
        ([LINES[0], {"premise": "c"}, LINES[2]], "line 2: no label or gold_label of use"),
        ([*LINES[:2], {**LINES[2], "label": 1.5}], "line 3: no label or gold_label of use"),
        ([*LINES[:2], {**LINES[2], "label": True}], "line 3: no label or gold_label of use"),
        ([*LINES[:2], {**LINES[2], "label": 3}], "row 3: label 3 is none of: 0 entailment, 1"),
        ([*LINES[:2], {**LINES[2], "label": "maybe"}], "row 3: unknown label 'maybe'"),
        ([*LINES[:2], {"label": 1}], "row 3: no premise or question, but other rows have one"),
        ([LINES[1], LINES[0], LINES[2]], "row 1: label is 0, not 2 as sample_pairs of "),
        ([LINES[0], {**LINES[1], "premise": "x"}, LINES[2]], "row 2: premise is 'x', not 'c'"),
        ([{**LINES[0], "hypothesis": "x"}, *LINES[1:]], "row 1: hypothesis is 'x', not 'b'"),
        ([{**LINES[0], "snli_id": "dev:7"}, *LINES[1:]], "row 1: snli_id is 'dev:7'"),
    ],
)
def test_labels_of_other_rows_are_refused(
    lines: Any, reason: str, snli: Callable, beside: Callable
) -> None:
    path = beside(lines)
    with pytest.raises(DataError, match=reason) as caught:
        sources.read(snli(), labels=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_of_labels_is_refused(snli: Callable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing: no such file"):
        sources.read(snli(), labels=tmp_path / "nowhere.jsonl")


def test_examples_of_some_rows_label_none(snli: Callable) -> None:
    source = sources.read(snli())
    assert (source.task, source.corpus) == (Task.NLI, "snli")
    assert _labels(source) == [-1, -1, -1]
    assert source.groups is None
    assert source.notes == (
        "labels unknown: sample_pairs tells those of 2 rows; give a file of labels",
    )


def test_examples_of_all_rows_are_their_labels(snli: Callable) -> None:
    last = {"question": "a", "answer": "e", "label": -1}
    source = sources.read(snli(sample_pairs=[*SHOWN, last]))
    assert _labels(source) == [2, 0, -1]
    assert _groups(source) == [0, 1, 0]
    assert source.notes == ()


@pytest.mark.parametrize(
    "sample",
    ["text", [1, "a", None], [{}] * 3, [{"label": {}}] * 3, [{"label": torch.ones(2)}] * 3, {}],
)
def test_examples_without_sense_label_none(sample: Any, snli: Callable) -> None:
    assert _labels(sources.read(snli(sample_pairs=sample))) == [-1, -1, -1]


def test_what_the_file_says_of_its_size_is_checked(snli: Callable) -> None:
    info = {"source": "SNLI", "num_pairs": 4000, "embedding_dim": 384}
    assert sources.read(snli(dataset_info=info)).problems == (
        "dataset_info: num_pairs says 4000, but the tensors hold 3 rows",
        "dataset_info: embedding_dim says 384, but the width is 768",
    )


@pytest.mark.parametrize(
    ("labels", "names", "known"),
    [
        ([0, 1, -1], None, ("negative", "positive")),
        ([0, 4, 2], None, ("0", "1", "2", "3", "4")),
        ([0, 2, 1], ["bad", "fair", "good"], ("bad", "fair", "good")),
        ([0, 1, 1], "not JSON", ("negative", "positive")),
        ([0, 1, 1], ["same", "same"], ("negative", "positive")),
    ],
)
def test_labels_have_names(
    labels: list[int], names: Any, known: tuple[str, ...], save: Callable, rows: Callable
) -> None:
    content = {"embeddings": rows(3, 1), "labels": torch.tensor(labels)}
    source = sources.read(save("a.pt", content | ({"label_names": names} if names else {})))
    assert (source.label_names, _labels(source)) == (known, labels)


@pytest.mark.parametrize(
    "labels", [[0, 2**70, 1], [0, 1], ["a", "b", "c"], [0, -2, 1], [0, 1000, 1]]
)
def test_labels_that_are_none_are_refused(labels: Any, save: Callable, rows: Callable) -> None:
    with pytest.raises(DataError, match="label"):
        sources.read(save("a.pt", {"embeddings": rows(3, 1), "labels": labels}))
