import os
import shutil
from pathlib import Path

import pytest

from cubeopt.data.reading import files
from cubeopt.data.reading.files import Format
from cubeopt.errors import DataError

TORCH, JSON_LINES, TABLE, TEXT = Format.TORCH, Format.JSON_LINES, Format.TABLE, Format.TEXT


def _make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("words\n")


def _names(folder: Path, found: list[Path]) -> list[str]:
    return [str(path.relative_to(folder)) for path in found]


def test_files_are_found_once_and_in_order(tmp_path: Path) -> None:
    _make(tmp_path, "b.pt", "a.npy", "deep/c", "note.txt", "deep/folder.pt/d.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.npy")
    found = files.find([tmp_path / "note.txt", tmp_path, tmp_path / "b.pt"])
    assert _names(tmp_path, found) == ["a.npy", "b.pt", "deep/c", "deep/folder.pt/d.pt", "note.txt"]
    assert found == files.find([tmp_path / "b.pt", tmp_path / "note.txt", tmp_path])


def test_hidden_names_are_not_searched_but_taken_when_named(tmp_path: Path) -> None:
    _make(tmp_path, ".hidden.pt", ".git/a.pt", "seen.pt")
    assert _names(tmp_path, files.find([tmp_path])) == ["seen.pt"]
    assert files.find([tmp_path / ".hidden.pt"]) == [tmp_path / ".hidden.pt"]


def test_folders_are_searched_through_links_that_may_form_a_ring(tmp_path: Path) -> None:
    _make(tmp_path, "real/a.pt", "apart/b.pt")
    (tmp_path / "real" / "ring").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "more").symlink_to(tmp_path / "apart")
    assert _names(tmp_path, files.find([tmp_path / "real"])) == ["real/a.pt", "real/more/b.pt"]


def test_a_pattern_is_expanded_unless_a_file_has_its_name(tmp_path: Path) -> None:
    _make(tmp_path, "a1.pt", "a2.pt", "b/a3.pt", "[ab].txt", "a.txt")
    assert _names(tmp_path, files.find([tmp_path / "a?.pt"])) == ["a1.pt", "a2.pt"]
    assert _names(tmp_path, files.find([tmp_path / "**" / "a[13].pt"])) == ["a1.pt", "b/a3.pt"]
    assert _names(tmp_path, files.find([tmp_path / "[ab].txt"])) == ["[ab].txt"]
    assert files.find([tmp_path / "z*.pt"]) == [tmp_path / "z*.pt"]  # to be told as missing


def test_plain_text_in_a_folder_is_asked_for_by_name(tmp_path: Path) -> None:
    _make(tmp_path, "README.md", "sentences.txt", "sub/LICENSE")
    readme, licence = tmp_path / "README.md", tmp_path / "sub" / "LICENSE"
    assert files.passed_over(readme, TEXT, [tmp_path]) == files.UNASKED
    assert not files.passed_over(tmp_path / "sentences.txt", TEXT, [tmp_path])
    assert not files.passed_over(readme, TEXT, [tmp_path, tmp_path / "." / "README.md"])
    assert not files.passed_over(licence, TEXT, [tmp_path / "sub" / "*"])
    assert not files.passed_over(readme, JSON_LINES, [tmp_path])


def test_a_dataset_below_the_folder_is_passed_over_however_it_is_given(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    built = tmp_path / "built"
    shutil.copytree(tiny_dataset, built)
    table = built / "embeddings.npy"
    for given in (tmp_path, table):
        assert files.passed_over(table, files.format_of(table), [given]) == files.BUILT
    (built / "manifest.json").unlink()
    assert files.passed_over(table, files.format_of(table), [tmp_path]) is None


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"\x93NUMPY\x01\x00", Format.NPY),
        (b"PAR1....", Format.PARQUET),
        (b"\x80\x02\x8a\nl\xfc\x9cF", TORCH),
        (b"\x80\x04\x95", TORCH),
        (b"\x20\0\0\0\0\0\0\0{", Format.SAFETENSORS),
        (b'{"sentence1": "a"}\n', JSON_LINES),
        (b'\xef\xbb\xbf{"sentence1": "a"}', JSON_LINES),
        (b'\n\n{"a": 1}\n{"a": 2}\nbroken\n', JSON_LINES),
        (b'["a", "list"]\n["b"]\n', JSON_LINES),
        (b'{\n  "pretty": 1,\n  "more": 2,\n  "and": 3\n}\n', JSON_LINES),
        (b"{curly} words are no JSON\n", TEXT),
        (b"[laughs] nor is this\n", TEXT),
        (b"text\tlabel\na\t1\n", TABLE),
        (b'\xef\xbb\xbf"Review","Sentiment"\r\n', TABLE),
        (b"id,sentence,label\n", TABLE),
        (b"A sentence, and a label\n", TEXT),
        (b"A sentence.\n", TEXT),
        ("Ein Satz über Käse.\n".encode("latin-1") * 9, TEXT),
        (b"One stray \0 does not matter" + b" in a long text" * 9, TEXT),
        (b"\n \n", TEXT),
        (bytes(range(256)), Format.UNKNOWN),
        (b"\x1f\x8b\x08\0\0\0\0\0", Format.UNKNOWN),
    ],
)
def test_a_format_is_told_by_content(content: bytes, form: Format, tmp_path: Path) -> None:
    for name in ("file", "file.md", "wrong.json"):
        (tmp_path / name).write_bytes(content)
        assert files.format_of(tmp_path / name) is form
        assert form.is_text == (form in (JSON_LINES, TABLE, TEXT))


def test_a_name_decides_only_between_plain_texts(tmp_path: Path) -> None:
    for name in ("a.csv", "a.TSV"):
        (tmp_path / name).write_text("no header\n")
        assert files.format_of(tmp_path / name) is TABLE
        (tmp_path / name).write_text('{"a": 1}\n')
        assert files.format_of(tmp_path / name) is JSON_LINES
    (tmp_path / "a.pt").write_text("someone renamed this\n")
    with pytest.raises(DataError, match="not a torch file: it holds plain text"):
        files.format_of(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "a folder where a file is expected"),
        ("nowhere", "missing: no such file"),
        ("dangling", "link to a missing file"),
        ("empty", r"empty file \(0 bytes\)"),
        ("pipe", "not a regular file"),
        ("ring", "cannot be read: Too many levels of symbolic links"),
        ("x" * 300, "cannot be read: File name too long"),
        ("zero\0byte", "cannot be read: embedded null byte"),
        ("file/below", "cannot be read: Not a directory"),
    ],
)
def test_what_is_no_file_is_one_clear_error(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("void")
    (tmp_path / "ring").symlink_to("ring")
    (tmp_path / "empty").touch()
    (tmp_path / "file").write_text("words")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=reason):
        files.format_of(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    _make(tmp_path, "closed")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        files.format_of(tmp_path / "closed")
