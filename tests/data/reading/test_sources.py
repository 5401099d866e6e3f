import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cubeopt.data.reading import files, sources
from cubeopt.data.reading.sources import Kind, Source
from cubeopt.errors import DataError, WidthError
from cubeopt.trial import Task

REFUSALS = {
    "half.pt": "truncated or damaged",
    "empty.pt": r"empty file \(0 bytes\)",
    "text.pt": "not a torch file",
    "legacy_half.pt": "truncated or damaged",
    "bomb.pt": "unpacks to more than its own size",
    "one_dimension.pt": r"expected the shape \[N, 768\], got \[100\]",
    "one_vector.pt": r"expected the shape \[N, 768\], got \[768\]",
    "three_dimensions.pt": r"expected the shape \[N, 768\], got \[4, 16, 768\]",
    "zeros.pt": "no usable rows: 50 norm below 0.1",
    "no_rows.pt": "no rows",
    "expanded.pt": r"claims the shape \[50000000, 768\], but holds only 3072 bytes",
    "sliding.pt": r"claims the shape \[10, 768\], but holds only",
    "lengths.pt": "12 questions and 10 answers",
    "width.pt": "questions: expected width 768, got 384",
    "key.pt": "the key 'answers' is missing",
    "integers.pt": "questions: expected float32.*got int8",
    "complex.pt": "got complex64",
    "float8.pt": "got float8_e4m3fn",
    "sparse.pt": "expected a dense tensor",
    "meta.pt": "expected a dense tensor",
    "no_tensor.pt": "questions: expected a tensor, got a str",
    "other_keys.pt": r"found the keys weight, bias, 7, '\\x1b\[31m'",
    "labels.pt": "row 4: label 3 is none of: 0 entailment, 1 neutral, 2 contradiction",
    "groups.pt": r"groups: expected the shape \[12\], got \[11\]",
    "fractions.pt": "labels: expected one whole number a row",
    "hollow_labels.pt": r"labels: claims the shape \[12\], but holds only 8 bytes",
    "list.pt": "found a list",
    "hidden.pt": "the key 'answers' is missing",
    "unsafe.pt": "refused: an unsafe pickle",
    "unsafe_legacy.pt": "refused: an unsafe pickle",
    "unsafe_bare.pt": "refused: an unsafe pickle",
    "module.pt": "refused: an unsafe pickle",
    "folder.pt": "a folder where a file is expected",
    "dangling.pt": "link to a missing file",
    "pipe.pt": "not a regular file",
    "nowhere.pt": "missing: no such file",
}


def test_the_sample_is_whole() -> None:
    read = [sources.read(path) for path in sorted(sources.sample_dir().rglob("*.pt"))]
    kinds = [source.kind for source in read]
    assert (kinds.count(Kind.DIALOGUE), kinds.count(Kind.BARE), len(kinds)) == (30, 1, 31)
    assert sum(source.rows for source in read if source.kind is Kind.DIALOGUE) == 911
    assert all(source.usable_rows == source.rows for source in read)
    assert not any(source.notes or source.problems or source.left_out for source in read)


def _usable(source: Source, number: int = 0) -> Tensor:
    return source.side(number, source.good)


def test_rows_arrive_as_they_were_saved(save_dialogue: Callable, rows: Callable) -> None:
    questions, answers = rows(5, 1), rows(5, 2)
    source = sources.read(save_dialogue("any.pt", questions, answers))
    assert torch.equal(_usable(source, 0), questions)
    assert torch.equal(_usable(source, 1), answers)


def test_a_file_is_known_by_its_content_not_its_name(
    save_prepared: Callable, save: Callable, rows: Callable
) -> None:
    pairs = save_prepared("dialogue_0229d12bd12732f27ee69acaf017bbe6.pt", rows(2, 1), rows(2, 2))
    bare = save("snli_embeddings_2pairs.pt", rows(3, 3))
    assert sources.read(pairs).kind is Kind.PREPARED
    assert sources.read(bare).kind is Kind.BARE
    assert len(sources.read(bare).sides) == 1


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_a_bad_file_is_refused_with_its_path_and_the_reason(name: str, hostile: Path) -> None:
    path = hostile / name
    with pytest.raises(DataError, match=REFUSALS[name]) as caught:
        sources.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_every_bad_file_has_its_refusal(hostile: Path) -> None:
    assert {path.name for path in hostile.iterdir()} | {"nowhere.pt"} == set(REFUSALS)


def test_an_unsafe_pickle_does_not_run(hostile: Path, marker: Path) -> None:
    with (hostile / "unsafe_bare.pt").open("rb") as file:
        pickle.load(file)
    assert marker.exists(), "the trap must be a real one"
    marker.unlink()
    for name in ("unsafe.pt", "unsafe_legacy.pt", "unsafe_bare.pt"):
        with pytest.raises(DataError):
            sources.read(hostile / name)
    assert not marker.exists()


def test_attributes_of_a_tensor_cannot_hide_its_methods(save: Callable, rows: Callable) -> None:
    tensor = rows(4, 1)
    tensor.to = tensor.numel = tensor.element_size = 5
    source = sources.read(save("shadow.pt", tensor))
    assert torch.equal(_usable(source), rows(4, 1))


def test_pairs_with_a_bad_side_are_left_out_on_both_and_counted(
    save_dialogue: Callable, rows: Callable
) -> None:
    questions, answers = rows(12, 1), rows(12, 2)
    expected = [torch.cat([side[5:6], side[7:]]) for side in (questions, answers)]
    questions[1] = torch.nan
    answers[2, 7], answers[3, 0] = torch.inf, -torch.inf
    questions[0] = 0.0
    answers[4], questions[4] = 0.0, torch.nan  # two faults, counted once
    answers[6] *= 1000
    source = sources.read(save_dialogue("bad_rows.pt", questions, answers))
    assert torch.equal(_usable(source, 0), expected[0])
    assert torch.equal(_usable(source, 1), expected[1])
    assert source.good.tolist() == [5, 7, 8, 9, 10, 11]
    assert {fault.reason: fault.rows for fault in source.left_out} == {
        "not finite (NaN or infinity)": 4,
        "norm below 0.1": 1,
        "norm above 100": 1,
    }
    assert (source.rows, source.usable_rows) == (12, 6)


def test_other_floats_become_float32(save_dialogue: Callable, rows: Callable) -> None:
    questions, answers = rows(4, 1).double(), rows(4, 2).half()
    source = sources.read(save_dialogue("floats.pt", questions, answers))
    assert [side.dtype for side in source.sides] == [torch.float64, torch.float16]
    assert torch.equal(_usable(source, 0), rows(4, 1))
    assert torch.equal(_usable(source, 1), answers.float())
    assert source.problems == ()
    assert source.notes == (
        "questions: float64 converted to float32",
        "answers: float16 converted to float32",
    )


def test_a_number_too_large_for_float32_is_not_finite(save: Callable, rows: Callable) -> None:
    tensor = rows(3, 1).double()
    tensor[1, 1] = 1e300
    source = sources.read(save("large.pt", tensor))
    assert [(fault.reason[:10], fault.rows) for fault in source.left_out] == [("not finite", 1)]


def test_views_are_read_as_what_they_show(save: Callable, rows: Callable) -> None:
    tensor = rows(10, 1)
    assert torch.equal(_usable(sources.read(save("slice.pt", tensor[2:8:2]))), tensor[2:8:2])
    assert torch.equal(_usable(sources.read(save("neg.pt", torch._neg_view(tensor)))), -tensor)


def test_what_a_file_says_of_itself_is_checked_but_tensors_win(
    save: Callable, rows: Callable
) -> None:
    path = save(
        "claims.pt",
        {"questions": rows(3, 1), "answers": rows(3, 2), "size": 112, "metadata": [{}]},
    )
    source = sources.read(path)
    assert source.usable_rows == 3
    assert source.problems == (
        "size says 112, but the tensors hold 3 rows",
        "metadata has 1 entries for 3 rows",
    )


def test_another_width_is_read_when_asked_for(save: Callable, rows: Callable) -> None:
    path = save("narrow.pt", rows(3, 1, 384))
    assert sources.read(path, width=384).width == 384
    with pytest.raises(WidthError, match="expected width 768, got 384") as caught:
        sources.read(path)
    assert caught.value.found == 384


def test_the_good_rows_do_not_depend_on_where_the_pieces_end(
    save_dialogue: Callable, rows: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, answers = rows(50, 1), rows(50, 2)
    questions[7], answers[16], questions[49] = torch.nan, 0.0, 1e30
    path = save_dialogue("pieces.pt", questions, answers)
    whole = sources.read(path)
    assert whole.good.tolist() == [row for row in range(50) if row not in (7, 16, 49)]
    for piece_rows in (1, 7, 8, 50):
        monkeypatch.setattr(sources, "_PIECE_BYTES", piece_rows * 4 * 768)
        cut = sources.read(path)
        assert torch.equal(cut.good, whole.good)
        assert cut.left_out == whole.left_out


def test_rows_of_a_side_are_numbers_of_their_own(save: Callable, rows: Callable) -> None:
    path = save("own.pt", rows(5, 1))
    source = sources.read(path)
    taken = source.side(0, torch.tensor([4, 0, 4]))
    assert torch.equal(taken, rows(5, 1)[[4, 0, 4]])
    taken.zero_()
    assert torch.equal(_usable(source), rows(5, 1))
    assert torch.equal(torch.load(path, weights_only=True), rows(5, 1))


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux to tell")
def test_a_torch_file_is_read_where_it_lies(save: Callable) -> None:
    path = save("large.pt", torch.full((100_000, 768), 0.1))  # 307 MB
    before = _anonymous_bytes()
    source = sources.read(path)
    assert source.usable_rows == 100_000
    assert _anonymous_bytes() - before < 60_000_000


PREPARED = ("question_embeddings", "answer_embeddings")
PAIR = {"question": "Two men talk.", "answer": "Men talk.", "label": 0, "snli_id": "dev:1"}


def test_a_file_may_say_what_its_rows_are_for(save: Callable, rows: Callable) -> None:
    said = {
        "question_embeddings": rows(4, 1),
        "answer_embeddings": rows(4, 2),
        "labels": torch.tensor([1, 0, -1, 2], dtype=torch.int8),
        "groups": torch.tensor([3, 3, 9, 9]),
        "teacher_model": "the/teacher",
        "task": "nli",
        "corpus": "mine",
        "label_names": '["neutral", "entailment", "contradiction"]',
    }
    source = sources.read(save("said.pt", said))
    assert (source.kind, source.task, source.corpus) == (Kind.PREPARED, Task.NLI, "mine")
    assert source.teacher == "the/teacher"
    assert source.label_names == ("entailment", "neutral", "contradiction")
    assert source.labels is not None
    assert source.labels.tolist() == [0, 1, -1, 2]  # in the order that the task asks for
    assert source.groups is not None
    assert source.groups.tolist() == [3, 3, 9, 9]


@pytest.mark.parametrize(
    ("content", "task", "corpus"),
    [
        ({"questions": 1, "answers": 2}, Task.DIALOGUE, "dialogue"),
        ({"question_embeddings": 1, "answer_embeddings": 2}, Task.DIALOGUE, "prepared"),
        (dict(zip(PREPARED, (1, 2), strict=True)) | {"labels": [0, 1, 2]}, Task.NLI, "prepared"),
        (
            dict(zip(PREPARED, (1, 2), strict=True)) | {"dataset_info": {"source": "SNLI 1.0"}},
            Task.NLI,
            "snli",
        ),
        (dict(zip(PREPARED, (1, 2), strict=True)) | {"sample_pairs": [PAIR]}, Task.NLI, "snli"),
        ({"any name": 1}, Task.RECONSTRUCT, "autoencoder"),
        ({"any name": 1, "labels": [0, 1, 1]}, Task.SENTIMENT, "sentiment"),
    ],
)
def test_the_task_follows_from_what_a_file_holds(
    content: dict[str, Any], task: Task, corpus: str, save: Callable, rows: Callable
) -> None:
    filled = {k: rows(3, v) if isinstance(v, int) else v for k, v in content.items()}
    source = sources.read(save("task.pt", filled))
    assert (source.task, source.corpus) == (task, corpus)


def test_a_task_that_does_not_fit_is_a_problem(save_prepared: Callable, save: Callable) -> None:
    content = torch.load(save_prepared("a.pt", *torch.ones(2, 3, 768)), weights_only=True)
    source = sources.read(save("b.pt", {**content, "task": "sentiment"}))
    assert source.task is Task.DIALOGUE
    assert source.problems == ("task says 'sentiment', but pairs are for dialogue or nli",)


def test_a_named_tensor_beside_others_is_no_file_of_embeddings(
    save: Callable, rows: Callable
) -> None:
    with pytest.raises(DataError, match="expected one tensor, or a dict with questions"):
        sources.read(save("two.pt", {"first": rows(3, 1), "second": rows(3, 2)}))


def test_sources_are_known_in_the_sample_whatever_their_names() -> None:
    found = files.find([sources.sample_dir()])
    torch_files = [path for path in found if files.format_of(path) is files.Format.TORCH]
    assert len(torch_files) == 31
