"""Reading the formats in which embeddings are kept into plain tensors and values.

Nothing is executed, and nothing is believed before it was held against the size of the file.
"""

import errno
import math
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cubeopt.data.reading import files
from cubeopt.data.reading.files import Format
from cubeopt.data.reading.spool import Spool, no_space
from cubeopt.errors import DataError

# What torch says when a pickle wants more than tensors and plain values.
_UNSAFE = ("GLOBAL", "unrecognized function", "unsupported class", "Can only", "Unsupported")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip: what precedes the bytes of an entry
_PIECE_BYTES = 1 << 20
# Numbers pack to little less than their own size; texts and labels to much less.
SPARE_BYTES = 1 << 26
MOST_UNPACKED = 64  # times the size of the file


def load(path: Path) -> object:
    """What the file at *path* holds: a tensor, or a dict of tensors and plain values."""
    form = files.format_of(path)
    if form.is_text:
        raise DataError(f"{path}: text, not embeddings")
    if form is Format.UNKNOWN:
        raise DataError(f"{path}: {files.unknown(path)}")
    try:
        return _READERS[form](path)
    except DataError:
        raise
    # On damaged bytes torch.load alone was seen to raise twelve unrelated types, struct.error,
    # AssertionError and UnicodeDecodeError among them.
    except Exception as error:
        raise DataError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    message = str(error)
    if isinstance(error, PermissionError):
        return files.os_reason(error)
    if isinstance(error, MemoryError) or "allocate memory" in message:
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return no_space()
    if isinstance(error, pickle.UnpicklingError) and any(word in message for word in _UNSAFE):
        return "refused: an unsafe pickle, it holds more than tensors and plain values"
    return f"truncated or damaged ({type(error).__name__})"


def _torch(path: Path) -> object:
    with path.open("rb") as file:
        zipped = files.is_zip(file.read(4))
    if zipped:
        _check_torch_zip(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words on formats are for the file's author
        return _plain(torch.load(path, map_location="cpu", weights_only=True, mmap=zipped))


def _check_torch_zip(path: Path) -> None:
    """Refuse a zip that torch did not write: torch packs nothing, so bytes can be mapped."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise DataError(f"{path}: refused: it unpacks to more than its own size")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DataError(f"{path}: refused: its entries are packed, which torch does not do")


def _plain(content: object) -> object:
    """*content* without the attributes that a pickle may set to hide the methods of an object."""
    if isinstance(content, Tensor):
        return torch.detach(content)
    if isinstance(content, dict):
        items = {key: content[key] for key in content}
        return {
            key: torch.detach(value) if isinstance(value, Tensor) else value
            for key, value in items.items()
        }
    return content


def _npy(path: Path) -> object:
    with path.open("rb") as file:
        return _mapped(path, file, path.stat().st_size)


def _npz(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    content: dict[str, object] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        if sum(entry.file_size for entry in entries) > MOST_UNPACKED * size + SPARE_BYTES:
            raise DataError(
                f"{path}: refused: it unpacks to more than {MOST_UNPACKED} times its size"
            )
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type == zipfile.ZIP_STORED:
                start = _enter(file, entry)
                content[name] = _mapped(path, file, start + entry.file_size)
            elif entry.compress_type == zipfile.ZIP_DEFLATED:
                content[name] = _unpacked(path, archive, entry)
            else:
                raise DataError(f"{path}: {name}: packed in a way that numpy does not use")
    return content


def _enter(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Go to the first byte of *entry*, and tell where that is."""
    file.seek(entry.header_offset)
    signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04" or entry.flag_bits & 1:
        raise zipfile.BadZipFile("no entry that can be read")
    return file.seek(name + extra, 1)


def _mapped(path: Path, file: IO[bytes], end: int) -> object:
    """The array whose header *file* stands at, its numbers mapped; they end before *end*."""
    shape, fortran, dtype = _array_header(path, file)
    start, count = file.tell(), math.prod(shape)
    held = min(end, path.stat().st_size) - start
    if count * dtype.itemsize > held:
        raise DataError(f"{path}: claims the shape {list(shape)}, but holds only {held} bytes")
    if count * dtype.itemsize == 0:
        return _value(path, np.empty(shape, dtype))
    flat = np.memmap(path, dtype, "c", start, (count,))
    return _value(path, flat.reshape(shape, order="F" if fortran else "C"))


def _unpacked(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> object:
    with archive.open(entry) as stream, Spool() as spool:
        shape, fortran, dtype = _array_header(path, stream)
        # In pieces: one read of all would unpack as much as there is, whatever the size says.
        while piece := stream.read(_PIECE_BYTES):
            spool.file.write(piece)
        held = spool.file.tell()
        if math.prod(shape) * dtype.itemsize != held:
            raise DataError(f"{path}: claims the shape {list(shape)}, but holds {held} bytes")
        flat = spool.array((math.prod(shape),), dtype)
    return _value(path, flat.reshape(shape, order="F" if fortran else "C"))


def _array_header(
    path: Path, file: IO[bytes] | zipfile.ZipExtFile
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of the array that follows; only what is plain numbers or text."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise DataError(f"{path}: an array of named fields, expected plain numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise DataError(f"{path}: refused: an array of Python objects")
    if dtype.names or dtype.subdtype:
        raise DataError(f"{path}: an array of named fields, expected plain numbers")
    if not dtype.isnative:
        order = "big" if sys.byteorder == "little" else "little"
        raise DataError(f"{path}: {order}-endian numbers, expected {sys.byteorder}-endian ones")
    if any(size < 0 for size in shape):
        raise DataError(f"{path}: claims the shape {list(shape)}")
    return shape, fortran, dtype


def _value(path: Path, array: NDArray[Any]) -> object:
    """*array* as a tensor, or as plain values where it is text or a single number."""
    if array.dtype.kind in "US":
        text = array.astype(str)  # bytes that are no ASCII raise
        return text.tolist()
    if array.ndim == 0:
        return array.item()
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise DataError(f"{path}: numbers of the type {array.dtype}, which torch lacks") from error


def _safetensors(path: Path) -> dict[str, object]:
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        content: dict[str, object] = dict(file.metadata() or {})
        for name in file.keys():  # noqa: SIM118 - no mapping
            content[name] = file.get_tensor(name)
    return content


def _parquet(path: Path) -> Mapping[str, object]:
    from cubeopt.data.reading import parquet

    return parquet.load(path)


_READERS: Mapping[Format, Callable[[Path], object]] = {
    Format.TORCH: _torch,
    Format.NPY: _npy,
    Format.NPZ: _npz,
    Format.SAFETENSORS: _safetensors,
    Format.PARQUET: _parquet,
}
