import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cubeopt.data import dataset
from cubeopt.data.building import intake, unify
from cubeopt.data.building.unify import BuildOptions
from cubeopt.errors import DataError
from cubeopt.trial import Task


def build(paths: list[Path], out: Path, **options: Any) -> unify.BuildReport:
    return unify.build(paths, out, BuildOptions(**options))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_missing_path_and_a_pattern_without_files_are_one_clear_error(
    save: Callable, rows: Callable, files: Path, out: Path, tmp_path: Path
) -> None:
    save("good.pt", rows(9, 1))
    with pytest.raises(DataError, match=r"misspelt: no such file or folder$"):
        build([files, tmp_path / "misspelt"], out)
    with pytest.raises(DataError, match=r"\*\.npy: no such file or folder, and no file matches"):
        build([files, files / "*.npy"], out)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"no files in .*void"):
        build([tmp_path / "void"], out)
    assert not out.exists()


def test_a_pattern_and_a_name_that_looks_like_one_are_both_found(
    save: Callable, rows: Callable, files: Path, out: Path
) -> None:
    save("part[1].pt", rows(10, 1))
    save("part2.pt", rows(10, 2))
    save("other.pt", rows(10, 3))
    report = build([files / "part[1].pt", files / "part?.pt"], out)
    assert [row.path.name for row in report.sources] == ["part2.pt", "part[1].pt"]
    assert report.sentences == 20


def test_nothing_usable_is_one_clear_error(hostile: Path, out: Path) -> None:
    with pytest.raises(
        DataError, match=r"no usable embeddings in \d+ files; the first, .*bomb\.pt"
    ):
        build([hostile], out)
    assert not out.exists()


def test_files_refused_for_their_width_alone_say_which_width_to_ask_for(
    save: Callable, rows: Callable, files: Path, out: Path
) -> None:
    save("one.pt", rows(20, 1, 384))
    save("two.pt", rows(20, 2, 384))
    with pytest.raises(DataError, match=r"all 2 files .* of width 384; .* --width 384"):
        build([files], out)
    assert build([files], out, width=384).sentences == 40


def test_widths_are_never_mixed(save: Callable, rows: Callable, files: Path, out: Path) -> None:
    save("wide.pt", rows(20, 1))
    save("narrow.pt", rows(20, 2, 384))
    for width, left in ((768, "narrow.pt"), (384, "wide.pt")):
        report = build([files], out, width=width)
        assert [(row.path.name, row.fault) for row in report.left_out] == [(left, True)]
        assert dataset.load(out).embeddings.shape == (20, width)


def test_raw_text_is_named_with_the_command_that_embeds_it(
    save: Callable, rows: Callable, files: Path, out: Path
) -> None:
    save("good.pt", rows(20, 1))
    (files / "talk.txt").write_text("hello\nhow are you\n")
    (files / "README.md").write_text("what these files are\n")
    found = {row.path.name: row for row in build([files], out).left_out}
    assert found["talk.txt"].reason == (
        f"raw text: embed it first with: cubeopt data embed {files}/talk.txt --model MODEL"
    )
    assert found["talk.txt"].fault
    assert not found["README.md"].fault
    assert "give it by name" in found["README.md"].reason


@pytest.fixture
def teachers(save_prepared: Callable, save: Callable, rows: Callable, files: Path) -> Path:
    """Pairs of one teacher, sentences of another, and some of a teacher that is not named."""
    save_prepared("mpnet.pt", rows(20, 1), rows(20, 2))
    save("minilm.pt", {"embeddings": rows(30, 3), "teacher_model": "all-MiniLM-L6-v2"})
    save("unknown.pt", rows(40, 4))
    return files


def test_two_teachers_are_not_mixed(teachers: Path, out: Path) -> None:
    with pytest.raises(DataError, match="files of 2 teachers cannot be mixed: all-MiniLM-L6-v2, "):
        build([teachers], out)
    report = build([teachers], out, teacher="all-MiniLM-L6-v2")
    assert [row.path.name for row in report.sources] == ["minilm.pt", "unknown.pt"]
    (row,) = report.left_out
    assert (row.path.name, row.rows, row.fault) == ("mpnet.pt", 20, False)
    assert row.reason.startswith(intake.OTHER_TEACHER)
    with pytest.raises(DataError, match="no file is of the teacher 'mpnet', only of all-MiniLM"):
        build([teachers], out, teacher="mpnet")


def test_labels_from_a_file_beside(
    save_prepared: Callable, rows: Callable, files: Path, out: Path
) -> None:
    path = save_prepared("pairs.pt", rows(30, 1), rows(30, 2))
    lines = files / "rows.jsonl"
    names = ("entailment", "neutral", "contradiction")
    lines.write_text("".join(json.dumps({"label": names[row % 3]}) + "\n" for row in range(30)))
    build([path], out, labels={path: lines})
    held = dataset.load(out)
    assert held.tasks == (Task.RECONSTRUCT, Task.NLI)
    assert held.label_names[Task.NLI] == names
    counts = sum(
        held.rows([Task.NLI], split).label.bincount(minlength=3) for split in dataset.SPLITS
    )
    assert torch.as_tensor(counts).tolist() == [10, 10, 10]
    with pytest.raises(DataError, match=r"labels for .*other\.pt, which is not among"):
        build([path], out, labels={files / "other.pt": lines})
    lines.write_text('{"label": "neutral"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        build([path], out, labels={path: lines})


def labelled(rows: torch.Tensor, labels: list[int], names: list[str] | None) -> dict[str, Any]:
    content = {"embeddings": rows, "labels": torch.tensor(labels)}
    return content | ({} if names is None else {"label_names": names})


def test_labels_of_several_files_are_numbered_alike_by_their_names(
    save: Callable, rows: Callable, files: Path, out: Path
) -> None:
    save("one.pt", labelled(rows(30, 1), [0, 1, 1] * 10, ["good", "bad"]))
    save("two.pt", labelled(rows(30, 2), [0, 1, -1] * 10, ["bad", "unsure"]))
    build([files], out)
    held = dataset.load(out)
    names = held.label_names[Task.SENTIMENT]
    assert names == ("bad", "good", "unsure")
    found = {}
    for split in dataset.SPLITS:
        some = held.rows([Task.SENTIMENT], split)
        for row, label in zip(held.embeddings[some.source], some.label.tolist(), strict=True):
            found[row.numpy().tobytes()] = names[label] if label >= 0 else None
    told = [found[row.numpy().tobytes()] for row in torch.cat([rows(30, 1), rows(30, 2)])]
    assert told == ["good", "bad", "bad"] * 10 + ["bad", "unsure", None] * 10


def test_labels_without_names_go_with_one_list_of_names_and_not_with_two(
    save: Callable, rows: Callable, files: Path, out: Path
) -> None:
    names = ["good", "bad", "ugly"]
    save("one.pt", labelled(rows(30, 1), [0, 1, 1] * 10, names))
    save("plain.pt", labelled(rows(30, 2), [0, 2, -1] * 10, None))
    build([files], out)
    assert dataset.load(out).label_names[Task.SENTIMENT] == tuple(names)
    save("plain.pt", labelled(rows(30, 2), [0, 1, 3] * 10, None))
    with pytest.raises(DataError, match=r"plain\.pt: label 3, but there are only: good, bad, ugly"):
        build([files], out)
    save("two.pt", labelled(rows(30, 3), [0, 1, 1] * 10, ["bad", "good"]))
    with pytest.raises(DataError, match=r"plain\.pt: its labels have no names"):
        build([files], out)


@pytest.mark.parametrize("label", [-2, 40_000])
def test_labels_that_do_not_fit_are_a_reason_to_leave_the_file_out(
    save: Callable, rows: Callable, files: Path, out: Path, label: int
) -> None:
    save("good.pt", rows(20, 1))
    save("bad.pt", labelled(rows(20, 2), [label] * 20, None))
    (row,) = build([files], out).left_out
    assert (row.path.name, row.rows) == ("bad.pt", None)
    assert "label" in row.reason


def test_one_file_by_two_names_is_read_once(
    save: Callable, rows: Callable, files: Path, out: Path
) -> None:
    path = save("one.pt", rows(30, 1))
    os.symlink(path, files / "link.pt")
    report = build([files, path], out)
    assert len(report.sources) == 1
    assert report.left_out == ()
