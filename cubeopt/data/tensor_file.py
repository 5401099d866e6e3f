"""Files of tensors (safetensors), written piece by piece, each whole or not at all.

The format is eight bytes with the length of a JSON header, the header, and the numbers. What
safetensors itself writes must stand in memory first; a gigabyte of embeddings need not.
"""

import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from cubeopt import atomic
from cubeopt.errors import DataError

SUFFIX = ".safetensors"
_PART = ".part"
_MODE = 0o644
_NAMES = {"float32": "F32", "int64": "I64", "uint8": "U8"}


@dataclass(frozen=True)
class Column:
    """One tensor of a file, as arrays that follow each other along the first axis."""

    shape: tuple[int, ...]
    pieces: Iterable[np.ndarray]
    dtype: str = "float32"


@dataclass(frozen=True)
class Header:
    """What a file says of itself: its texts, and the shape of each tensor."""

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


def array(values: np.ndarray) -> Column:
    """The column of an array that stands in memory."""
    return Column(values.shape, [values], str(values.dtype))


def write(path: Path, columns: Mapping[str, Column], metadata: Mapping[str, str]) -> None:
    """Put a file at *path* in one step; one that stood there is replaced."""
    try:
        with _part(path.parent) as (part, file):
            atomic.write_all(file.fileno(), memoryview(_header(columns, metadata)))
            for column in columns.values():
                _write_column(file, column)
            os.fsync(file.fileno())
            os.rename(part, path)
        atomic.sync(path.parent)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def header(path: Path) -> Header:
    """What the file at *path* says of itself; DataError where it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return Header(file.metadata() or {}, shapes)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: truncated or damaged ({error})") from error


def clean(folder: Path) -> None:
    """Remove what writers that were killed have left in *folder*; living ones hold a lock."""
    for path in folder.glob(f".*{_PART}"):
        with suppress(OSError):  # another's, or gone already: no reason to fail
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def _part(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A locked file under a hidden name in *folder*; gone at the end, unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        part = folder / f".{uuid.uuid4().hex}{_PART}"
        with open(part, "xb", buffering=0, opener=_open) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not os.fstat(file.fileno()).st_nlink:  # one who cleaned up was quicker than our lock
                continue
            try:
                yield part, file
            finally:
                part.unlink(missing_ok=True)
            return


def _open(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)


def _header(columns: Mapping[str, Column], metadata: Mapping[str, str]) -> bytes:
    content: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, column in columns.items():
        start, end = end, end + _bytes(column)
        content[name] = {
            "dtype": _NAMES[column.dtype],
            "shape": column.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin on an 8-byte border
    return len(text).to_bytes(8, "little") + text


def _bytes(column: Column) -> int:
    return int(np.prod(column.shape, dtype=np.int64)) * np.dtype(column.dtype).itemsize


def _write_column(file: BinaryIO, column: Column) -> None:
    written = 0
    for piece in column.pieces:
        assert piece.dtype == column.dtype
        assert piece.shape[1:] == column.shape[1:]
        if piece.size:
            atomic.write_all(file.fileno(), np.ascontiguousarray(piece).data.cast("B"))
        written += piece.nbytes
    assert written == _bytes(column), "every row is written"
