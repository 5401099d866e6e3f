import errno
import fcntl
import json
import os
import resource
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cubeopt.data import dataset, folder
from cubeopt.data.dataset import COLUMNS, EMBEDDINGS, FILES
from cubeopt.errors import DataError

NAMES: dict[str, Any] = {
    "format": 3,
    "tasks": ["reconstruct"],
    "corpora": ["autoencoder"],
    "label_names": {},
    "weights": {"autoencoder": 1.0},
    "normalisation": {"name": "none", "norm": None},
}
COUNT, WIDTH = 9000, 768  # two pieces of float32


def table(seed: int = 0) -> Tensor:
    return torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(seed))


def put(place: Path, rows: Tensor, **names: Any) -> tuple[str, bool]:
    """Write *rows*, each to itself, at *place*."""
    columns = {name: torch.zeros(len(rows), dtype=dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: torch.arange(len(rows)) for name in ("source", "target", "group")}
    shape = (len(rows), rows.shape[1])
    return folder.write(
        place, lambda: NAMES | names, shape, rows.dtype, lambda begin, end: rows[begin:end], columns
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "there" / "data"


def beside(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_written_is_read_again(place: Path, dtype: torch.dtype) -> None:
    rows = table().to(dtype)
    found, written = put(place, rows)
    held = dataset.load(place)
    assert (held.fingerprint, written) == (found, True)
    assert held.embeddings.dtype == dtype
    assert torch.equal(held.embeddings, rows)
    assert np.array_equal(np.load(place / EMBEDDINGS), rows.numpy())
    assert sorted(path.name for path in place.iterdir()) == sorted(FILES)
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}
    assert beside(place) == ["data"]


def test_the_same_dataset_is_left_as_it_is_and_another_replaces_it(place: Path) -> None:
    found, _ = put(place, table())
    before = {path: path.stat().st_mtime_ns for path in (place, *place.iterdir())}
    assert put(place, table()) == (found, False)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    other, written = put(place, table(1))
    assert written
    assert dataset.load(place).fingerprint == other != found
    assert beside(place) == ["data"]


def test_names_alone_make_another_dataset(place: Path) -> None:
    one, _ = put(place, table())
    other, written = put(place, table(), weights={"autoencoder": 2.0})
    assert (written, one != other) == (True, True)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_dataset_is_replaced(place: Path, name: str) -> None:
    put(place, table())
    if name != dataset.MANIFEST:
        (place / name).write_bytes(b"damaged")
    else:
        manifest = json.loads((place / name).read_text())
        (place / name).write_text(json.dumps(manifest | {"fingerprint": "0"}))
    assert put(place, table())[1]
    dataset.load(place)


def test_a_dataset_of_the_first_format_is_replaced(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "embeddings.safetensors").write_bytes(b"old")
    manifest = {"format": 1, "fingerprint": "0", "tasks": ["answer"]}
    (place / dataset.MANIFEST).write_text(json.dumps(manifest))
    assert put(place, table())[1]
    assert sorted(path.name for path in place.iterdir()) == sorted(FILES)


@pytest.mark.parametrize(
    ("held", "named"),
    [
        (["thesis.txt"], "thesis.txt"),
        (["thesis.txt", *FILES], "thesis.txt"),
        ([EMBEDDINGS], EMBEDDINGS),
        (["embeddings.safetensors"], "embeddings.safetensors"),
        (["embeddings.safetensors", *FILES], "embeddings.safetensors"),
    ],
)
def test_a_folder_that_is_not_a_dataset_is_refused(
    place: Path, held: list[str], named: str
) -> None:
    place.mkdir(parents=True)
    for name in held:
        (place / name).write_text("ten years of work")
    with pytest.raises(DataError, match=rf"not a dataset folder \(it holds {named}\)"):
        put(place, table())
    assert sorted(path.name for path in place.iterdir()) == sorted(held)
    assert {path.read_text() for path in place.iterdir()} == {"ten years of work"}


def test_an_empty_folder_is_filled(place: Path) -> None:
    place.mkdir(parents=True)
    put(place, table())
    dataset.load(place)


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(DataError, match=r"cannot write .*file.*: Not a directory"):
            put(place, table())


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_file_that_may_not_grow_is_a_data_error_and_leaves_nothing(
    place: Path, full_disk: None
) -> None:
    with pytest.raises(DataError, match=r"cannot write .*File too large"):
        put(place, table())
    assert beside(place) == []


# At once, in the first and second piece of embeddings, and in the columns.
@pytest.mark.parametrize("after", [0, 3_000_000, 20_000_000, COUNT * WIDTH * 4 + 1000])
def test_a_disk_that_is_full_after_some_bytes_is_a_data_error_and_leaves_what_was_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    first, _ = put(place, table())
    room, write, pwrite, lock = [after], os.write, os.pwrite, threading.Lock()

    def some(content: memoryview) -> memoryview:
        """Less than is given, and nothing when the room is used up, as a disk does."""
        with lock:
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = content[: room[0]]
            room[0] -= len(taken)
            return taken

    monkeypatch.setattr(os, "write", lambda file, content: write(file, some(content)))
    monkeypatch.setattr(
        os, "pwrite", lambda file, content, place: pwrite(file, some(content), place)
    )
    with pytest.raises(DataError, match="No space left on device"):
        put(place, table(1))
    monkeypatch.undo()
    assert dataset.load(place).fingerprint == first
    assert beside(place) == ["data"]


@pytest.mark.parametrize("step", ["_put", "atomic.sync"])
def test_a_failed_write_leaves_the_dataset_that_was_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first, _ = put(place, table())

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(f"cubeopt.data.folder.{step}", fail)
    with pytest.raises(DataError, match="Input/output error"):
        put(place, table(1))
    assert dataset.load(place).fingerprint == first
    assert beside(place) == ["data"]


def test_every_file_is_on_the_disk_before_the_folder_takes_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_sync, real_put = os.fsync, folder._put

    def sync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_sync(descriptor)

    def put_down(*arguments: Path) -> None:
        done.append("put")
        real_put(*arguments)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(folder, "_put", put_down)
    put(place, table())
    assert [*done[:3], *done[4:]] == [*FILES, "put", "there"]
    assert done[3].startswith(".data.")


def test_without_an_atomic_exchange_the_folder_is_moved_aside_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place, table())
    monkeypatch.setattr(folder, "_exchange", lambda *_: False)
    second, _ = put(place, table(1))
    assert dataset.load(place).fingerprint == second
    assert beside(place) == ["data"]


def test_a_folder_moved_aside_comes_back_when_the_new_one_cannot_take_its_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = put(place, table())
    rename, calls = os.rename, []

    def fail_at_the_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(folder, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "rename", fail_at_the_second)
    with pytest.raises(DataError, match="Input/output error"):
        put(place, table(1))
    assert dataset.load(place).fingerprint == first
    assert beside(place) == ["data"]


def left_behind(place: Path, end: str = "", *names: str) -> Path:
    """What a killed build leaves beside *place*."""
    path = place.parent / f".{place.name}.{uuid.uuid4().hex}{end}"
    path.mkdir(parents=True)
    for name in names or (EMBEDDINGS,):
        (path / name).write_bytes(b"half")
    return path


def test_what_killed_builds_left_behind_is_removed(place: Path) -> None:
    left_behind(place)
    left_behind(place, "", *FILES)
    left_behind(place, ".old", "embeddings.safetensors", "manifest.json")
    put(place, table())
    assert beside(place) == ["data"]


def test_what_a_living_build_is_writing_stays(place: Path) -> None:
    living = left_behind(place)
    descriptor = os.open(living, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        put(place, table())
        assert beside(place) == sorted([living.name, "data"])
    finally:
        os.close(descriptor)
    put(place, table(1))
    assert beside(place) == ["data"]


def test_a_build_locks_what_it_is_writing(place: Path) -> None:
    """The only copy of another build's half-made folder is not taken for left behind."""

    def rows(begin: int, end: int) -> Tensor:
        (fresh,) = place.parent.iterdir()
        folder._clean(place, replaced=True)
        assert fresh.is_dir()
        return table()[begin:end]

    columns = {name: torch.zeros(COUNT, dtype=dtype) for name, dtype in COLUMNS.items()}
    assert folder.write(place, lambda: NAMES, (COUNT, WIDTH), torch.float32, rows, columns)[1]


def test_the_only_dataset_that_a_killed_build_moved_aside_is_kept_until_there_is_another(
    place: Path, full_disk: None
) -> None:
    aside = left_behind(place, ".old", *FILES)
    with pytest.raises(DataError, match="File too large"):
        put(place, table())
    assert beside(place) == [aside.name]


def test_hidden_folders_of_other_names_or_content_are_none_of_ours(place: Path) -> None:
    number = uuid.uuid4().hex
    others = [f".other.{number}", f".data.{number[:-1]}", ".data", f".datax{number}"]
    for name in others:
        (place.parent / name).mkdir(parents=True)
    mine = left_behind(place, "", "notes.txt")
    target = place.parent / "elsewhere"
    target.mkdir()
    link = place.parent / f".data.{uuid.uuid4().hex}"
    link.symlink_to(target)
    put(place, table())
    assert beside(place) == sorted([*others, mine.name, link.name, "elsewhere", "data"])


def test_a_link_to_a_dataset_is_written_through(tmp_path: Path) -> None:
    put(tmp_path / "far" / "data", table())
    (tmp_path / "link").symlink_to(tmp_path / "far" / "data")
    second, written = put(tmp_path / "link", table(1))
    assert written
    assert (tmp_path / "link").is_symlink()
    assert dataset.load(tmp_path / "far" / "data").fingerprint == second
    shutil.rmtree(tmp_path / "far")
