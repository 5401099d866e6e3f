"""Files that are written piece by piece are those that safetensors itself would write."""

import fcntl
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cubeopt.data import tensor_file
from cubeopt.data.tensor_file import Column
from cubeopt.errors import DataError

ROWS = np.random.default_rng(0).standard_normal((1000, 7)).astype(np.float32)


def _pieces(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_safetensors_reads_what_was_written_piece_by_piece(tmp_path: Path, size: int) -> None:
    path = tmp_path / "deep" / "file.safetensors"
    marks = np.arange(1000, dtype=np.int64)
    columns = {
        "rows": Column(ROWS.shape, _pieces(ROWS, size)),
        "marks": tensor_file.array(marks),
        "none": tensor_file.array(np.zeros((0, 7), dtype=np.float32)),
        "bytes": tensor_file.array(np.arange(5, dtype=np.uint8)),
    }
    tensor_file.write(path, columns, {"language": "Ænglisc"})
    read = load_file(path)
    np.testing.assert_array_equal(read["rows"], ROWS)
    np.testing.assert_array_equal(read["marks"], marks)
    np.testing.assert_array_equal(read["bytes"], np.arange(5))
    assert read["none"].shape == (0, 7)
    header = tensor_file.header(path)
    assert header.metadata == {"language": "Ænglisc"}
    assert header.shapes["rows"] == (1000, 7)


def test_a_columns_view_is_written_as_its_numbers_and_not_as_its_memory(tmp_path: Path) -> None:
    turned = np.ascontiguousarray(ROWS.T).T
    tensor_file.write(tmp_path / "file", {"rows": tensor_file.array(turned[::2])}, {})
    np.testing.assert_array_equal(load_file(tmp_path / "file")["rows"], ROWS[::2])


def test_a_write_that_fails_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    tensor_file.write(path, {"rows": tensor_file.array(ROWS)}, {})
    before = path.read_bytes()

    def failing() -> Iterator[np.ndarray]:
        yield ROWS[:500]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensor_file.write(path, {"rows": Column(ROWS.shape, failing())}, {})
    with pytest.raises(AssertionError, match="every row is written"):
        tensor_file.write(path, {"rows": Column(ROWS.shape, _pieces(ROWS[:999], 9))}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*rows\.safetensors: File exists"):
        tensor_file.write(tmp_path / "file" / "rows.safetensors", {}, {})


def test_a_disk_that_takes_no_more_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*rows\.safetensors: File too large"):
            tensor_file.write(tmp_path / "rows.safetensors", {"rows": tensor_file.array(ROWS)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 5, 100, 2000])
def test_a_cut_file_is_named_as_damaged(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file.safetensors"
    tensor_file.write(path, {"rows": tensor_file.array(ROWS)}, {})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"file\.safetensors: truncated or damaged"):
        tensor_file.header(path)


def test_what_the_killed_have_left_goes_and_what_the_living_write_stays(tmp_path: Path) -> None:
    left, living = tmp_path / ".left.part", tmp_path / ".living.part"
    foreign = tmp_path / "foreign.part"
    for path in (left, living, foreign):
        path.write_bytes(b"half")
    with living.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        tensor_file.clean(tmp_path)
        assert sorted(tmp_path.iterdir()) == [living, foreign]
    tensor_file.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [foreign]
    tensor_file.clean(tmp_path / "nowhere")
