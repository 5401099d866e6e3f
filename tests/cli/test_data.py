"""Files of embeddings through the command line."""

import json
import shutil
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


def test_inspect_tells_kind_keys_shapes_dtypes_rows_and_problems(cli: Cli, files: Path) -> None:
    (files / "broken.pt").write_bytes(b"no tensors")
    torch.save(torch.full((3, 24), torch.nan), files / "[b]bare.pt")
    shown = cli("data", "inspect", files, "--width", "24")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == f"{files}/[b]bare.pt: bare, 0 of 3 rows usable"
    assert lines[1] == "    tensor 3x24 float32"
    assert lines[2].startswith("    problem: no usable rows: 3 not finite")
    assert lines[3] == f"{files}/broken.pt: unknown, 0 rows usable"
    assert lines[-2] == "    questions 8x24 float32, answers 8x24 float32, metadata"
    assert lines[-1] == "14 files, 96 usable rows, 2 files with problems"
    rows = cli("data", "inspect", files, "--width", "24", "--json").json
    assert len(rows) == 14
    assert set(rows[-1]) == {
        *("path", "kind", "keys", "shapes", "dtypes", "rows", "usable_rows", "problems"),
    }


def test_the_sample_that_ships_has_no_problems(cli: Cli) -> None:
    rows = cli("data", "inspect", "--sample", "--json").json
    assert len(rows) == 31
    assert not any(row["problems"] for row in rows)


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


def test_what_is_left_out_is_named_line_by_line(cli: Cli, home: Path, files: Path) -> None:
    (files / "empty.pt").write_bytes(b"")
    rows = torch.nn.functional.normalize(torch.randn(5, 24), dim=1)
    rows[1] = torch.inf
    torch.save(rows, files / "some.pt")
    ran = cli("data", "build", files, "--width", "24", "--out", home / "data" / "new")
    said = [line for line in ran.out.splitlines() if line.startswith("left out: ")]
    assert sorted(said) == [
        f"left out: empty file (0 bytes): {files}/empty.pt",
        f"left out: not finite (NaN or infinity) (1 rows): {files}/some.pt",
        *(line for line in sorted(said) if "bare tensors feed only" in line),
    ]


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
        (["inspect", "nowhere"], "nowhere: no such file or folder"),
        (["build", "--sample"], "give --out DIR"),
        (["build", "--out", "x"], "give PATH... or --sample"),
        (["build", "nowhere", "--out", "x"], "nowhere: no such file or folder"),
        (["build", "FILES", "--out", "x"], "expected width 768, got 24"),
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
