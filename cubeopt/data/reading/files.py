"""Finding files, and telling from their first bytes what each of them is."""

import csv
import glob
import os
import re
import reprlib
import stat
import zipfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from cubeopt.data.dataset import FILES
from cubeopt.errors import DataError

# What is passed over by design, and why.
UNASKED = "plain text: give it by name to have it read as sentences"
BUILT = "part of a dataset that is built: give the files that it was made of"
BY_DESIGN = (UNASKED, BUILT)
TEXT_COLUMNS = ("text", "sentence", "review")
LABEL_COLUMNS = ("label", "sentiment")

_HEAD_BYTES = 1 << 16
_HEAD_LINES = 50
_ZIP, _EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
_NPY, _PARQUET = b"\x93NUMPY", b"PAR1"
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_LONGEST_HEADER = 100_000_000  # bytes; what the format safetensors allows
# A text may hold a stray control byte; of random bytes every tenth is one.
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
_CONTROL_SHARE = 0.01
_JSON = re.compile(rb"""\s*(\{\s*["}]|\[\s*["{\[\]]|[\[{]\s*$)""")


class Format(StrEnum):
    """How a file is laid out."""

    TORCH = "torch"  # torch.save, new or legacy
    NPY = "npy"
    NPZ = "npz"
    SAFETENSORS = "safetensors"
    PARQUET = "parquet"
    JSON_LINES = "json lines"
    TABLE = "table"  # tab- or comma-separated, the first line names the columns
    TEXT = "text"  # one sentence a line
    UNKNOWN = "unknown"

    @property
    def is_text(self) -> bool:
        return self in (Format.JSON_LINES, Format.TABLE, Format.TEXT)


# What the end of a name promises; it decides nothing but the words of an error.
_PROMISES = {
    ".pt": "a torch file",
    ".pth": "a torch file",
    ".npy": "an npy file",
    ".npz": "an npz file",
    ".safetensors": "a safetensors file",
    ".parquet": "a parquet file",
}


def find(paths: Sequence[Path]) -> list[Path]:
    """Each file among *paths*, below a folder or by a glob among them, once and sorted."""
    found: dict[str, Path] = {}
    for path in _expanded(paths):
        for file in _below(path) if os.path.isdir(path) else [path]:
            found.setdefault(os.path.realpath(file), file)
    return sorted(found.values())


def passed_over(path: Path, form: Format, paths: Sequence[Path]) -> str | None:
    """Why *path* is not read though nothing is wrong with it, or None.

    Plain text that only the search of a folder among *paths* brought up may be a README.
    """
    if path.name in FILES and all((path.parent / name).is_file() for name in FILES):
        return BUILT
    if form is not Format.TEXT or path.suffix.lower() == ".txt":
        return None
    named = {os.path.realpath(each) for each in _expanded(paths)}
    return None if os.path.realpath(path) in named else UNASKED


def _expanded(paths: Sequence[Path]) -> Iterator[Path]:
    """*paths*, with each pattern that is no file's name replaced by what it matches."""
    for path in paths:
        pattern = str(path)
        matches: list[str] = []
        if glob.has_magic(pattern) and not os.path.lexists(path):
            matches = glob.glob(pattern, recursive=True)
        yield from map(Path, matches) if matches else [path]


def _below(folder: Path) -> Iterator[Path]:
    """Each file in *folder* and the folders in it, also by links, but none that is hidden."""
    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in list(folders):
            real = os.path.realpath(os.path.join(parent, name))
            if real in seen:  # a link to a folder above would never end
                folders.remove(name)
            seen.add(real)
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def format_of(path: Path) -> Format:
    """The format of the file at *path* by what it holds; DataError when there is none to read."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {os_reason(error)}") from error
    if is_zip(head):
        return _zip_format(path)
    form = _binary_format(head)
    if form is Format.UNKNOWN and _is_text(head):
        form = _text_format(head, path)
    promise = _PROMISES.get(path.suffix.lower())
    # A sentence may be anything, so nothing but the name speaks against it.
    if form is Format.TEXT and promise:
        raise DataError(f"{path}: not {promise}: it holds plain text")
    return form


def check_regular(path: Path) -> None:
    """Refuse what is no file with content, before anything waits for it to end."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        link = "link to a missing file" if os.path.islink(path) else "missing: no such file"
        raise DataError(f"{path}: {link}") from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        raise DataError(f"{path}: {os_reason(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: a folder where a file is expected")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file")
    if status.st_size == 0:
        raise DataError(f"{path}: empty file (0 bytes)")


def os_reason(error: Exception) -> str:
    """Why a file cannot be read, in the system's words."""
    if isinstance(error, PermissionError):
        return "permission denied"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def unknown(path: Path) -> str:
    """What to say of a file in no known format."""
    kind = _PROMISES.get(path.suffix.lower(), "a file of embeddings or of text")
    return f"not {kind}: its first bytes are of no known format"


def shown(value: object) -> str:
    """*value*, out of a file, fit to be shown in one line."""
    plain = isinstance(value, str) and value.isprintable() and len(value) <= 60
    return str(value) if plain else reprlib.repr(value)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with *head* is a zip."""
    return head.startswith((_ZIP, _EMPTY_ZIP))


def _zip_format(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    # zipfile was seen to raise struct.error, ValueError and NotImplementedError, too.
    except Exception as error:
        raise DataError(f"{path}: truncated or damaged ({type(error).__name__})") from error
    if any(name.endswith("/data.pkl") for name in names):
        return Format.TORCH
    if any(name.endswith(".npy") for name in names):
        return Format.NPZ
    return Format.UNKNOWN


def _binary_format(head: bytes) -> Format:
    if head.startswith(_NPY):
        return Format.NPY
    if head.startswith(_PARQUET):
        return Format.PARQUET
    if _PICKLE.match(head):
        return Format.TORCH
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= _LONGEST_HEADER:
        return Format.SAFETENSORS
    return Format.UNKNOWN


def _is_text(head: bytes) -> bool:
    if head.startswith(_UTF_16):
        return True
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return controls <= _CONTROL_SHARE * len(head)


def _text_format(head: bytes, path: Path) -> Format:
    if head.startswith(_UTF_16):
        raise DataError(f"{path}: UTF-16 text, expected UTF-8: save it as UTF-8")
    lines = [line for line in head.removeprefix(_BOM).split(b"\n") if line.strip()]
    lines = lines[:_HEAD_LINES]
    like_json = sum(bool(_JSON.match(line.removeprefix(_BOM))) for line in lines)
    opens = bool(lines) and lines[0].strip() in (b"{", b"[")  # a document over many lines
    if 2 * like_json > len(lines) or opens:
        return Format.JSON_LINES
    named_so = path.suffix.lower() in (".csv", ".tsv")
    if named_so or (lines and has_header(lines[0].decode("utf-8", "replace"))):
        return Format.TABLE
    return Format.TEXT


def has_header(line: str) -> bool:
    """Whether *line* names a column of texts and one of labels."""
    names = column_names(line)
    return any(name in names for name in TEXT_COLUMNS) and any(
        name in names for name in LABEL_COLUMNS
    )


def column_names(line: str) -> list[str]:
    """The names in the first *line* of a table, in small letters, without their quotes."""
    try:
        parts = next(csv.reader([line], delimiter=delimiter(line)), [])
    except csv.Error:
        return []
    return [part.strip().lower() for part in parts]


def delimiter(line: str) -> str:
    """What stands between the columns of the table that begins with *line*."""
    return "\t" if "\t" in line else ","
