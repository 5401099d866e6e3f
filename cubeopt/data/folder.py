"""The dataset folder, written: whole or not at all.

All files go to a hidden folder beside the place, are on the disk before it takes the place, and it
takes it in one step. The hidden folder is locked by its maker, so that the next build can tell
what a killed one has left behind.

Shapes: M distinct sentences, D embedding.
"""

import ctypes
import fcntl
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from cubeopt import atomic
from cubeopt.data import dataset
from cubeopt.data.dataset import EMBEDDINGS, FILES, MANIFEST, ROWS
from cubeopt.errors import DataError

_EARLIER = frozenset({"embeddings.safetensors", MANIFEST})  # what the first format had
_MODE = 0o644
_WRITERS = 2  # threads that fetch, hash and write a piece each
_UNSETTLED = 4  # pieces, of 16 MiB, that may wait for the disk

Rows = Callable[[int, int], Float[Tensor, "_ D"]]


def write(
    folder: Path,
    manifest: Callable[[], Mapping[str, Any]],
    shape: tuple[int, int],
    dtype: torch.dtype,
    rows: Rows,
    tensors: Mapping[str, Tensor],
    progress: Callable[[int], None] | None = None,
) -> tuple[str, bool]:
    """Put a dataset at *folder* in one step: its fingerprint, and whether it is another one.

    *rows* gives the embeddings from one row to before another, to two threads at a time;
    *progress* is told how many are written. *manifest* is asked for when all are. Where the same
    dataset stands already, it is left as it is.
    """
    check_place(folder)
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clean(folder, replaced=False)
        with _fresh(folder) as fresh:
            digests = _write_embeddings(fresh / EMBEDDINGS, shape, dtype, rows, progress)
            content = manifest()
            found = dataset.fingerprint(content, shape, dtype, digests, tensors)
            if _holds(folder, found):
                return found, False
            _write(fresh / ROWS, save(dict(tensors)))
            text = json.dumps({**content, "fingerprint": found}, indent=1) + "\n"
            _write(fresh / MANIFEST, text.encode())
            atomic.sync(fresh)
            _put(fresh, folder)
            atomic.sync(folder.parent)
        _clean(folder, replaced=True)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}") from error
    return found, True


def check_place(folder: Path) -> None:
    """Refuse a *folder* whose replacement would destroy anything but a dataset."""
    try:
        held = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}") from error
    if not held:
        return
    other = min(held - set(FILES), default="")
    if held <= _EARLIER or MANIFEST not in held:
        other = min(held - _EARLIER, default="")
    if other or MANIFEST not in held:
        raise DataError(
            f"{folder} is not a dataset folder (it holds {other or min(held)}); "
            "choose a folder that does not exist yet"
        )
    dataset.read_manifest(folder)


def _holds(folder: Path, wanted: str) -> bool:
    try:
        return dataset.load(folder).fingerprint == wanted
    except DataError:
        return False


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """An empty, locked, hidden folder beside *folder*; gone at the end, whatever it then holds."""
    while True:
        fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        fresh.mkdir()
        descriptor = os.open(fresh, os.O_RDONLY)
        with suppress(OSError):  # where nobody can lock, nobody will take it for left behind
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # else one who cleaned up was quicker than our lock
            break
        os.close(descriptor)
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # what failed, or what was replaced
        os.close(descriptor)


def _clean(folder: Path, replaced: bool) -> None:
    """Remove what builds into *folder* that were killed have left beside it.

    What one had moved aside may be the only dataset there is, so it goes when there is another
    in its place (*replaced*).
    """
    ours = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{32}}(\.old)?")
    for path in folder.parent.iterdir():
        match = ours.fullmatch(path.name)
        if match is None or path.is_symlink() or (match[1] and not replaced):
            continue
        with suppress(OSError):  # another user's, or gone already: no reason to fail
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if {file.name for file in path.iterdir()} <= {*FILES, *_EARLIER}:
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)


def _write_embeddings(
    path: Path,
    shape: tuple[int, int],
    dtype: torch.dtype,
    rows: Rows,
    progress: Callable[[int], None] | None,
) -> list[bytes]:
    """Write all *rows*; the digest of each piece of them."""
    count, width = shape
    step = dataset.piece_rows(width, dtype)
    kind = "<f4" if dtype == torch.float32 else "<f2"
    preface = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(preface, header)
    digests: list[bytes] = []
    with _file(path) as file:
        atomic.write_all(file, preface.getbuffer())

        def put(first: int) -> bytes:
            piece = rows(first, min(first + step, count))
            assert (piece.dtype, piece.shape) == (dtype, (min(step, count - first), width))
            content = piece.view(torch.uint8).numpy().data.cast("B")
            place = preface.tell() + first * width * dtype.itemsize
            atomic.write_all_at(file, content, place)
            return dataset.piece_digest(piece)

        with ThreadPoolExecutor(_WRITERS) as pool:
            for digest in pool.map(put, range(0, count, step)):
                digests.append(digest)
                if len(digests) % _UNSETTLED == 0:
                    _settle(file)
                if progress is not None:
                    progress(min(len(digests) * step, count))
    return digests


def _write(path: Path, content: bytes) -> None:
    with _file(path) as file:
        atomic.write_all(file, memoryview(content))


@contextmanager
def _file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(file: int) -> None:
    """Bring to the disk what was written, and let the system forget it.

    Else the whole table would lie in the page cache, at the cost of everything else there; on a
    virtual machine memory that is new to it costs more than the disk does.
    """
    if hasattr(os, "posix_fadvise"):
        os.fdatasync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # the whole file


def _put(fresh: Path, folder: Path) -> None:
    """Give *fresh* the name *folder*; what had it before is found at *fresh* afterwards."""
    if not folder.exists() or not any(folder.iterdir()):
        os.rename(fresh, folder)
    elif not _exchange(fresh, folder):
        old = fresh.with_name(f"{fresh.name}.old")
        os.rename(folder, old)
        try:
            os.rename(fresh, folder)
        except OSError:
            os.rename(old, folder)
            raise
        os.rename(old, fresh)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, where system and file system can."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and not renameat2(
        here, os.fsencode(one), here, os.fsencode(other), exchange
    )
