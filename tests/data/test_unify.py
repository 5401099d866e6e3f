import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cubeopt.data import dataset, sources, unify
from cubeopt.data.dataset import SPLITS, Dataset
from cubeopt.errors import DataError
from cubeopt.trial import Task

BOTH = [Task.RECONSTRUCT, Task.ANSWER]


def sentences(held: Dataset, task: Task, split: str) -> set[bytes]:
    """Every text of *split*, input or target."""
    source, target = held.pairs(task, split)
    return {held.embeddings[row].numpy().tobytes() for row in torch.cat([source, target]).tolist()}


def texts(rows: Tensor) -> set[bytes]:
    return {row.tobytes() for row in rows.numpy()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "built" / "data"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def mixed(
    files: Path, save: Callable, save_dialogue: Callable, save_prepared: Callable, rows: Callable
) -> Path:
    """Twelve dialogues, a prepared file of 60 pairs on 20 questions, 40 lone sentences.

    Greetings recur in dialogues, an answer recurs in the prepared file, and lone sentences
    repeat both.
    """
    greeting = rows(1, 9)
    for number in range(12):
        questions, answers = rows(5 + number, 100 + number), rows(5 + number, 200 + number)
        if number % 3 == 0:
            questions[0] = greeting[0]
        save_dialogue(f"dialogue_{number}.pt", questions, answers)
    premises = rows(20, 1).repeat_interleave(3, dim=0)
    hypotheses = rows(60, 2)
    hypotheses[30] = hypotheses[0]
    save_prepared("pairs.pt", premises, hypotheses)
    save("lone.pt", torch.cat([rows(38, 3), greeting, premises[:1]]))
    return files


@pytest.mark.parametrize("seed", range(5))
def test_no_text_stands_on_two_sides_in_any_task(mixed: Path, out: Path, seed: int) -> None:
    unify.build([mixed], out, BOTH, seed=seed)
    held = dataset.load(out)
    sides = [sentences(held, BOTH[0], split) | sentences(held, BOTH[1], split) for split in SPLITS]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_every_distinct_sentence_and_pair_is_there_once_or_counted(mixed: Path, out: Path) -> None:
    report = unify.build([mixed], out, BOTH, seed=2)
    held = dataset.load(out)
    read = [sources.read(path) for path in sources.find([mixed])]
    parts = [side for source in read for side in (source.source, source.target)]
    distinct = texts(torch.cat([side for side in parts if side is not None]))
    assert texts(held.embeddings) == distinct
    assert sum(report.counts["reconstruct"].values()) == len(distinct) == len(held.embeddings)
    pairs = sum(source.rows for source in read if source.target is not None)
    lost = sum(row.rows or 0 for row in report.left_out if row.path.name != "lone.pt")
    assert sum(report.counts["answer"].values()) == pairs - lost
    assert 0 < lost < 10
    assert [row.rows for row in report.left_out if row.path.name == "lone.pt"] == [2]


def test_a_dialogue_stays_whole(mixed: Path, out: Path) -> None:
    unify.build([mixed], out, BOTH)
    held = dataset.load(out)
    sides = [sentences(held, Task.RECONSTRUCT, split) for split in SPLITS]
    used = set()
    for number in range(1, 12, 3):  # those that share no greeting
        source = sources.read(mixed / f"dialogue_{number}.pt")
        assert source.target is not None
        dialogue = texts(torch.cat([source.source, source.target]))
        assert [dialogue <= side for side in sides].count(True) == 1
        used.add([dialogue <= side for side in sides].index(True))
    assert used, "at least one split holds a dialogue"


def test_pairs_of_one_question_stay_together(
    save_prepared: Callable, rows: Callable, out: Path
) -> None:
    questions, answers = rows(30, 1).repeat(3, 1), rows(90, 2)
    path = save_prepared("pairs.pt", questions, answers)
    unify.build([path], out, [Task.ANSWER])
    held = dataset.load(out)
    assert held.counts(Task.ANSWER) == {"train": 72, "validation": 9, "test": 9}
    for split in SPLITS:
        source, _ = held.pairs(Task.ANSWER, split)
        assert source.bincount().unique().tolist() in ([3], [0, 3])


def test_names_order_and_copies_of_files_change_nothing(mixed: Path, out: Path) -> None:
    report = unify.build([mixed], out, BOTH)
    other = mixed.parent / "other"
    other.mkdir()
    for number, path in enumerate(sorted(mixed.iterdir(), reverse=True)):
        shutil.copy(path, other / f"{number:03}.pt")
    files = sorted(other.iterdir(), key=lambda path: path.name[::-1])
    for number in range(3):
        shutil.copy(mixed / "dialogue_11.pt", other / f"copy_{number}.pt")
    again = unify.build([*files, other], out.with_name("again"), BOTH)
    assert again.fingerprint == report.fingerprint
    assert not again.unchanged
    written = [(folder / dataset.TENSORS).read_bytes() for folder in (out, again.folder)]
    assert written[0] == written[1]


def test_the_seed_and_the_fractions_change_the_split(mixed: Path, out: Path) -> None:
    reports = [
        unify.build([mixed], out.with_name(str(number)), BOTH, **options)
        for number, options in enumerate(
            [{}, {"seed": 1}, {"fractions": (0.5, 0.25, 0.25)}, {"seed": 0}]
        )
    ]
    prints = [report.fingerprint for report in reports]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]
    half = reports[2].counts["reconstruct"]
    assert half["train"] / sum(half.values()) == pytest.approx(0.5, abs=0.05)


def test_lone_sentences_are_split_to_the_row(save: Callable, rows: Callable, out: Path) -> None:
    path = save("lone.pt", rows(200, 1))
    report = unify.build([path], out, [Task.RECONSTRUCT])
    assert report.counts == {"reconstruct": {"train": 160, "validation": 20, "test": 20}}


@pytest.mark.parametrize("seed", range(5))
def test_splits_of_the_sample_come_near_their_fractions(seed: int, out: Path) -> None:
    counts = unify.build([sources.sample_dir()], out, BOTH, seed=seed).counts
    for rows in counts.values():
        shares = [rows[split] / sum(rows.values()) for split in SPLITS]
        # 30 dialogues of up to 40 pairs: one more or less is 0.044.
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.045)


def test_three_dialogues_are_enough_and_two_are_not(
    files: Path, save_dialogue: Callable, rows: Callable, out: Path
) -> None:
    for number, size in enumerate((50, 3, 20)):
        save_dialogue(f"{number}.pt", rows(size, number), rows(size, 10 + number))
    counts = unify.build([files], out, BOTH).counts["answer"]
    assert counts["train"] == 50
    assert sorted(counts.values()) == [3, 20, 50]
    (files / "0.pt").unlink()
    with pytest.raises(
        DataError, match=r"no rows for the .* split: at least 3 groups.*got 2 dialogues"
    ):
        unify.build([files], out.with_name("two"), BOTH)


def test_few_groups_of_several_kinds_fill_every_split_of_every_task(
    files: Path, save: Callable, save_dialogue: Callable, save_prepared: Callable, rows: Callable
) -> None:
    save_dialogue("1.pt", rows(10, 1), rows(10, 2))
    save_dialogue("2.pt", rows(10, 3), rows(10, 4))
    save_prepared("3.pt", rows(1, 5), rows(1, 6))
    save("4.pt", rows(100, 7))
    report = unify.build([files], files.parent / "out", BOTH)
    assert all(count > 0 for rows in report.counts.values() for count in rows.values())


def test_an_exact_duplicate_pair_is_left_out_and_counted(
    files: Path, save_dialogue: Callable, rows: Callable, out: Path
) -> None:
    for number in range(4):
        save_dialogue(f"{number}.pt", rows(6, number), rows(6, 10 + number))
    questions, answers = rows(6, 3), rows(6, 13)
    questions[5], answers[5] = questions[4], answers[4]
    save_dialogue("3.pt", questions, answers)
    report = unify.build([files], out, BOTH)
    assert [(row.path.name, row.reason, row.rows) for row in report.left_out] == [
        ("3.pt", unify.DUPLICATE, 1)
    ]
    assert sum(report.counts["answer"].values()) == 23


@pytest.mark.parametrize("seed", range(4))
def test_a_shared_sentence_belongs_to_the_earliest_split_and_later_pairs_go(
    files: Path, save_dialogue: Callable, rows: Callable, out: Path, seed: int
) -> None:
    shared = rows(1, 99)[0]
    for number in range(10):
        questions = rows(4, number)
        questions[2] = shared
        save_dialogue(f"{number}.pt", questions, rows(4, 50 + number))
    report = unify.build([files], out, BOTH, seed=seed)
    held = dataset.load(out)
    # All ten hold it, so it trains; each dialogue of the other splits loses one pair.
    assert report.counts["answer"] == {"train": 32, "validation": 3, "test": 3}
    assert {(row.reason, row.rows) for row in report.left_out} == {(unify.OVERLAP, 1)}
    assert len(report.left_out) == 2
    where = [shared.numpy().tobytes() in sentences(held, BOTH[0], split) for split in SPLITS]
    assert where == [True, False, False]


@pytest.mark.parametrize("seed", range(10))
def test_a_shared_pair_is_kept_once_in_the_earliest_split(
    files: Path, save_dialogue: Callable, rows: Callable, out: Path, seed: int
) -> None:
    question, answer = rows(2, 99)
    for number in range(10):
        questions, answers = rows(4, number), rows(4, 50 + number)
        questions[2], answers[2] = question, answer
        save_dialogue(f"{number}.pt", questions, answers)
    report = unify.build([files], out, BOTH, seed=seed)
    assert report.counts["answer"] == {"train": 8 * 3 + 1, "validation": 3, "test": 3}
    assert {(row.reason, row.rows) for row in report.left_out} == {(unify.DUPLICATE, 1)}
    assert len(report.left_out) == 9


def test_a_lone_sentence_does_not_pull_a_pair_out_of_its_split(
    files: Path, save: Callable, save_prepared: Callable, rows: Callable, out: Path
) -> None:
    questions, answers = rows(30, 1), rows(30, 2)
    save_prepared("pairs.pt", questions, answers)
    alone = unify.build([files], out, BOTH)
    save("lone.pt", torch.cat([questions, answers]))
    both = unify.build([files], out, BOTH)
    assert both.unchanged
    assert both.counts == alone.counts
    assert [(row.path.name, row.rows) for row in both.left_out] == [("lone.pt", 60)]


def test_bare_tensors_do_not_feed_the_answer_task(mixed: Path, out: Path) -> None:
    report = unify.build([mixed], out, [Task.ANSWER])
    held = dataset.load(out)
    used = set().union(*(sentences(held, Task.ANSWER, split) for split in SPLITS))
    assert texts(held.embeddings) == used
    assert not used & texts(sources.read(mixed / "lone.pt").source[:38])
    assert [(row.reason, row.rows) for row in report.left_out if row.path.name == "lone.pt"] == [
        (unify.BARE_ONLY, 40)
    ]
    with pytest.raises(DataError, match="no rows for the task reconstruct, only for answer"):
        held.counts(Task.RECONSTRUCT)


def test_only_bare_tensors_cannot_answer(save: Callable, rows: Callable, out: Path) -> None:
    path = save("lone.pt", rows(30, 1))
    with pytest.raises(DataError, match="task answer: no rows for the train split"):
        unify.build([path], out, BOTH)
    assert not out.exists()


def test_bad_files_are_reported_and_good_files_beside_them_are_used(
    mixed: Path, hostile: Path, marker: Path, out: Path
) -> None:
    clean = unify.build([mixed], out, BOTH)
    seen: list[tuple[str, int, int]] = []
    report = unify.build([hostile, mixed], out, BOTH, progress=lambda *step: seen.append(step))
    assert report.unchanged
    assert report.fingerprint == clean.fingerprint
    refused = [row.path.name for row in report.left_out if row.rows is None]
    # Folders are searched, not read.
    assert sorted(refused) == sorted({path.name for path in hostile.iterdir()} - {"folder.pt"})
    assert not marker.exists()
    assert [done for _, done, _ in seen] == list(range(1, len(seen) + 1))
    assert {(stage, total) for stage, _, total in seen} == {("reading files", len(refused) + 14)}


def test_widths_are_never_mixed(
    files: Path, save: Callable, rows: Callable, tmp_path: Path
) -> None:
    save("wide.pt", rows(20, 1))
    save("narrow.pt", rows(20, 2, 384))
    wide = unify.build([files], tmp_path / "wide", [Task.RECONSTRUCT])
    narrow = unify.build([files], tmp_path / "narrow", [Task.RECONSTRUCT], width=384)
    assert [row.path.name for row in wide.left_out] == ["narrow.pt"]
    assert [row.path.name for row in narrow.left_out] == ["wide.pt"]
    assert dataset.load(wide.folder).embeddings.shape == (20, 768)
    assert dataset.load(narrow.folder).embeddings.shape == (20, 384)


def test_nothing_usable_is_one_clear_error(hostile: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable embeddings in 30 files; the first, .*bomb\.pt"):
        unify.build([hostile], out, BOTH)
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"no \.pt files in .*void"):
        unify.build([tmp_path / "void"], out, BOTH)
    with pytest.raises(DataError, match="misspelt: no such file or folder"):
        unify.build([hostile, tmp_path / "misspelt"], out, BOTH)
    assert not out.exists()


@pytest.mark.parametrize("fractions", [(0.9, 0.1, 0.0), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_must_make_three_splits(
    mixed: Path, out: Path, fractions: tuple[float, float, float]
) -> None:
    with pytest.raises(DataError, match="three numbers above 0 that sum to 1"):
        unify.build([mixed], out, BOTH, fractions=fractions)


def test_the_manifest_says_where_everything_came_from(mixed: Path, out: Path) -> None:
    report = unify.build([mixed], out, BOTH, seed=3)
    manifest = json.loads((out / dataset.MANIFEST).read_text())
    held = dataset.load(out)
    assert (
        manifest["fingerprint"]
        == report.fingerprint
        == dataset.fingerprint({"embeddings": held.embeddings, **held.rows})
    )
    assert manifest["rows"] == report.counts == {str(task): held.counts(task) for task in BOTH}
    assert manifest["tasks"] == ["reconstruct", "answer"]
    assert (manifest["format"], manifest["embedding_size"], manifest["seed"]) == (1, 768, 3)
    assert manifest["fractions"] == [0.8, 0.1, 0.1]
    assert {Path(row["path"]).name for row in manifest["sources"]} == {
        path.name for path in mixed.iterdir()
    }
    assert manifest["left_out"] == report.as_json()["left_out"]
    assert len({row["sha256"] for row in manifest["sources"]}) == 14


def test_the_same_dataset_is_left_as_it_is(mixed: Path, out: Path) -> None:
    first = unify.build([mixed], out, BOTH)
    before = _identities(out)
    second = unify.build([mixed], out, BOTH)
    assert (first.unchanged, second.unchanged) == (False, True)
    assert _identities(out) == before


def _identities(folder: Path) -> dict[Path, tuple[int, int]]:
    stats = {path: path.stat() for path in (folder, *folder.iterdir())}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def test_another_dataset_is_replaced(mixed: Path, out: Path) -> None:
    first = unify.build([mixed], out, BOTH)
    second = unify.build([mixed], out, BOTH, seed=1)
    assert not second.unchanged
    assert dataset.load(out).fingerprint == second.fingerprint != first.fingerprint
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_damaged_dataset_is_replaced(mixed: Path, out: Path) -> None:
    unify.build([mixed], out, BOTH)
    (out / dataset.TENSORS).write_bytes(b"damaged")
    assert not unify.build([mixed], out, BOTH).unchanged
    dataset.load(out)


def test_a_folder_that_is_not_a_dataset_is_refused_before_anything_is_read(
    mixed: Path, out: Path
) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("ten years of work")
    with pytest.raises(DataError, match=r"not a dataset folder \(it holds thesis.txt\)"):
        unify.build([mixed], out, BOTH, progress=lambda *_: pytest.fail("it began to read"))
    assert (out / "thesis.txt").read_text() == "ten years of work"


def test_a_file_beside_a_dataset_is_not_destroyed(mixed: Path, out: Path) -> None:
    unify.build([mixed], out, BOTH)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"it holds notes\.txt"):
        unify.build([mixed], out, BOTH, seed=1)
    assert (out / "notes.txt").read_text() == "mine"


def test_writing_itself_refuses_a_folder_that_is_not_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(DataError, match="not a dataset folder"):
        dataset.write(tmp_path, {"embeddings": torch.ones(1, 1)}, {"fingerprint": ""})
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


def test_an_empty_folder_is_filled(mixed: Path, out: Path) -> None:
    out.mkdir(parents=True)
    assert not unify.build([mixed], out, BOTH).unchanged
    dataset.load(out)


def test_a_place_that_cannot_be_written_is_a_data_error(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(DataError, match=r"cannot write .*file.*: Not a directory"):
            unify.build([mixed], place, BOTH)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_is_a_data_error_and_leaves_nothing_behind(
    mixed: Path, out: Path, full_disk: None
) -> None:
    with pytest.raises(DataError, match=r"cannot write .*File too large"):
        unify.build([mixed], out, BOTH)
    assert list(out.parent.iterdir()) == []


def test_a_failed_build_leaves_the_dataset_that_was_there(
    mixed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = unify.build([mixed], out, BOTH)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for step in ("_put", "_sync"):
        with monkeypatch.context() as patch:
            patch.setattr(dataset, step, fail)
            with pytest.raises(DataError, match="Input/output error"):
                unify.build([mixed], out, BOTH, seed=1)
        assert dataset.load(out).fingerprint == first.fingerprint
        assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_without_an_atomic_exchange_the_folder_is_moved_aside_first(
    mixed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unify.build([mixed], out, BOTH)
    monkeypatch.setattr(dataset, "_exchange", lambda *_: False)
    second = unify.build([mixed], out, BOTH, seed=1)
    assert dataset.load(out).fingerprint == second.fingerprint
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_folder_moved_aside_comes_back_when_the_new_one_cannot_take_its_place(
    mixed: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = unify.build([mixed], out, BOTH)
    rename, calls = os.rename, []

    def fail_at_the_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(dataset, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail_at_the_second)
    with pytest.raises(DataError, match="Input/output error"):
        unify.build([mixed], out, BOTH, seed=1)
    assert dataset.load(out).fingerprint == first.fingerprint
    assert [path.name for path in out.parent.iterdir()] == [out.name]
