"""Files of embeddings through the command line."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Cli = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path, tiny_dataset: Path) -> Path:
    """Twelve good dialogue files of width 24."""
    folder = tmp_path / "files"
    folder.mkdir()
    for file in tiny_dataset.parent.glob("dialogue_*.pt"):
        shutil.copy(file, folder)
    return folder


def test_inspect_tells_kind_task_keys_shapes_dtypes_rows_and_problems(
    cli: Cli, files: Path
) -> None:
    (files / "broken.pt").write_bytes(b"no tensors")
    torch.save(torch.full((3, 24), torch.nan), files / "[b]bare.pt")
    shown = cli("data", "inspect", files, "--width", "24")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == f"{files}/[b]bare.pt: bare, 0 of 3 rows usable"
    assert lines[1] == "    tensor 3x24 float32"
    assert lines[2].startswith("    problem: no usable rows: 3 not finite")
    assert lines[3] == f"{files}/broken.pt: unknown, 0 rows usable"
    assert lines[-3].endswith(": dialogue, dialogue, dialogue, 8 of 8 rows usable")
    assert lines[-2] == "    questions 8x24 float32, answers 8x24 float32, metadata"
    assert lines[-1] == "14 files, 96 usable rows, 2 files with problems"
    rows = cli("data", "inspect", files, "--width", "24", "--json").json
    assert len(rows) == 14
    assert {"path", "kind", "task", "corpus", "teacher", "left_out", "problems"} <= set(rows[-1])


def test_strict_turns_a_problem_into_code_1_after_everything_was_told(
    cli: Cli, files: Path
) -> None:
    good = cli("data", "inspect", files, "--width", "24", "--strict")
    assert (good.code, good.err) == (0, "")
    (files / "broken.pt").write_bytes(b"no tensors")
    bad = cli("data", "inspect", files, "--width", "24", "--strict", "--json")
    assert bad.code == 1
    assert len(bad.json) == 13
    assert bad.err.startswith(f"cubeopt: 1 files with problems (--strict); the first: {files}/bro")
    assert bad.err.count("\n") == 1


def test_the_sample_that_ships_has_no_problems(cli: Cli) -> None:
    ran = cli("data", "inspect", "--sample", "--json", "--strict")
    assert ran.code == 0
    assert len([row for row in ran.json if row["kind"]]) == 31


def test_a_quoted_pattern_is_expanded(cli: Cli, files: Path, tmp_path: Path) -> None:
    rows = cli("data", "inspect", f"{files}/dialogue_*[0-4].pt", "--width", "24", "--json").json
    assert len(rows) == 5
    out = tmp_path / "out"
    built = cli("data", "build", f"{files}/dialogue_*[0-4].pt", "--width", "24", "--out", out)
    assert "sources      5 files" in built.out


def test_a_dataset_is_built_where_it_is_asked_for_and_building_again_changes_nothing(
    cli: Cli, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out, folder in (("here", tmp_path / "here"), (tmp_path / "a" / "b", tmp_path / "a" / "b")):
        ran = cli("data", "build", files, "--width", "24", "--out", out, "--json")
        assert (ran.err, ran.json["unchanged"]) == ("", False)
        assert Path(ran.json["folder"]).resolve() == folder
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["fingerprint"] == ran.json["fingerprint"]
    again = cli("data", "build", files, "--width", "24", "--out", "here")
    assert "unchanged    yes" in again.out


def test_every_option_of_build_reaches_the_dataset(cli: Cli, files: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    bare = torch.nn.functional.normalize(torch.randn(60, 24, generator=generator), dim=1)
    torch.save(bare, files / "bare=1.pt")
    pairs = {"question_embeddings": bare[:30] + 1, "answer_embeddings": bare[30:] - 1}
    torch.save({**pairs, "teacher_model": "mine"}, tmp_path / "pairs.pt")
    torch.save({**pairs, "teacher_model": "other"}, tmp_path / "others.pt")
    labels = tmp_path / "rows.jsonl"
    labels.write_text(
        "".join(
            json.dumps({"label": ["entailment", "neutral"][row % 2]}) + "\n" for row in range(30)
        )
    )
    ran = cli(
        *("data", "build", files, f"books={files}/bare=1.pt", f"nli={tmp_path}/pairs.pt"),
        *(tmp_path / "others.pt", "--width", "24", "--out", tmp_path / "out", "--json"),
        *("--task", "nli", "--task", "reconstruct", "--seed", "7", "--fractions", "0.6,0.2,0.2"),
        *("--near", "off", "--normalise", "standardise", "--dtype", "float16"),
        *("--weight", "books=3", "--weight", "nli=0.5", "--teacher", "mine"),
        *("--labels", f"{tmp_path}/pairs.pt={labels}"),
    )
    assert (ran.code, ran.err) == (0, "")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["tasks"] == ["reconstruct", "nli"]
    assert (manifest["seed"], manifest["fractions"]) == (7, [0.6, 0.2, 0.2])
    assert (manifest["near"], manifest["dtype"]) == (None, "float16")
    assert manifest["normalisation"]["name"] == "standardise"
    assert manifest["weights"] == {"books": 3.0, "dialogue": 1.0, "nli": 0.5}
    assert manifest["rows"]["nli"] == {"train": 18, "validation": 6, "test": 6}
    assert [Path(row["path"]).name for row in manifest["left_out"]] == ["others.pt"]


def test_the_text_tells_files_duplicates_rows_corpora_and_what_is_left_out(
    cli: Cli, files: Path, tmp_path: Path
) -> None:
    (files / "empty.pt").write_bytes(b"")
    first = torch.load(min(files.glob("dialogue_*.pt")))
    torch.save(torch.cat([first["questions"], first["answers"] * 1.0001]), files / "some.pt")
    out = tmp_path / "out"
    ran = cli("data", "build", files, "--width", "24", "--out", out, "--weight", "dialogue=2")
    assert "sources      13 files" in ran.out
    assert "sentences    192 of 208 in the files; 8 equal and 8 nearly equal to another" in ran.out
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["task", "train", "validation", "test"] in lines
    assert ["corpus", "weight", "train", "validation", "test"] in lines
    assert ["dialogue", "2.000"] in [line[:2] for line in lines]
    said = {line for line in ran.out.splitlines() if line.startswith("left out: ")}
    assert said == {
        f"left out: empty file (0 bytes): {files}/empty.pt",
        "left out: duplicate: the same embeddings stand in the dataset already (8 rows): "
        f"{files}/some.pt",
        "left out: near duplicate: almost the same embeddings stand in the dataset already "
        f"(8 rows): {files}/some.pt",
    }


def test_build_strict_writes_nothing_and_names_each_reason(
    cli: Cli, files: Path, tmp_path: Path
) -> None:
    (files / "empty.pt").write_bytes(b"")
    (files / "text.txt").write_text("hello\n")
    ran = cli("data", "build", files, "--width", "24", "--out", tmp_path / "out", "--strict")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert f"{files}/empty.pt: empty file (0 bytes)" in ran.err
    assert f"{files}/text.txt: raw text: embed it first" in ran.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing_and_code_130(
    cli: Cli, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cubeopt.data.building import unify

    real = unify.build

    def interrupted(paths: Any, out: Path, options: Any, progress: Any) -> Any:
        def show(stage: str, done: int, total: int) -> None:
            if stage == "writing":
                signal.raise_signal(signal.SIGINT)
            progress(stage, done, total)

        return real(paths, out, options, show)

    monkeypatch.setattr(unify, "build", interrupted)
    ran = cli("data", "build", files, "--width", "24", "--out", tmp_path / "there" / "out")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.splitlines()[-1] == (
        f"cubeopt: stopped; nothing was written to {tmp_path}/there/out"
    )
    assert list((tmp_path / "there").iterdir()) == []


def test_many_things_left_out_are_grouped_by_reason_and_all_in_the_manifest(
    cli: Cli, home: Path, files: Path
) -> None:
    for number in range(50):
        (files / f"empty_{number:02d}.pt").write_bytes(b"")
    ran = cli("data", "build", files, "--width", "24", "--out", home / "data" / "new")
    (line,) = (line for line in ran.out.splitlines() if line.startswith("left out: "))
    first = ", ".join(f"{files}/empty_{number:02d}.pt" for number in range(3))
    assert line == f"left out: empty file (0 bytes): {first} and 47 more files"
    manifest = json.loads((home / "data" / "new" / "manifest.json").read_text())
    assert len(manifest["left_out"]) == 50


def test_at_most_twenty_lines_are_said_about_what_is_left_out(
    cli: Cli, home: Path, files: Path
) -> None:
    for width in range(30, 60):
        torch.save(torch.randn(2, width), files / f"bare_{width}.pt")
    ran = cli("data", "build", files, "--width", "24", "--out", home / "data" / "new")
    said = [line for line in ran.out.splitlines() if line.startswith("left out: ")]
    assert len(said) == 21
    assert said[-1] == "left out: and 10 lines more; manifest.json has them all"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect"], "give PATH... or --sample"),
        (["inspect", "*.nowhere"], "*.nowhere: no such file or folder, and no file matches it"),
        (["build", "FILES", "--out", "x", "--fractions", "0.8,0.2"], "expected three numbers"),
        (["build", "FILES", "--out", "x", "--fractions", "0.8,0.3,0.1"], "that sum to 1"),
        (["build", "FILES", "--out", "x", "--near", "close"], "expected a cosine like 0.999, or"),
        (["build", "FILES", "--out", "x", "--near", "0.1"], "near 0.1: a cosine from 0.95 to 1"),
        (["build", "FILES", "--out", "x", "--weight", "2"], "expected NAME=W, like dialogue=2"),
        (["build", "FILES", "--out", "x", "--weight", "a=b"], "expected NAME=W, like dialogue=2"),
        (["build", "FILES", "--out", "x", "--labels", "a=b"], "two files that exist"),
        (["build", "FILES", "--out", "x", "--width", "24", "--weight", "a=1"], "only dialogue"),
        (["inspect", "nowhere"], "nowhere: no such file or folder"),
        (["build", "--sample"], "give --out DIR"),
        (["build", "--out", "x"], "give PATH... or --sample"),
        (["build", "nowhere", "--out", "x"], "nowhere: no such file or folder"),
        (["build", "FILES", "--out", "x"], "of width 24; for a dataset of these add --width 24"),
        (["build", "FILES", "--width", "24", "--out", "/proc/nowhere/x"], "cannot write"),
        (["build", "FILES", "--width", "24", "--out", "FILES"], "is not a dataset folder"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    cli: Cli, home: Path, files: Path, arguments: list[str], said: str
) -> None:
    ran = cli("data", *(str(files) if word == "FILES" else word for word in arguments))
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err
    assert [path.name for path in (home / "data").iterdir()] == ["tiny"]
    assert len(list(files.iterdir())) == 12
