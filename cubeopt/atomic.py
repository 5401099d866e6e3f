"""Files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from cubeopt.errors import InputError


def write(content: bytes, path: Path) -> None:
    """Write *content* to *path* under another name first; its folder is made where needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            whole = Path(folder) / path.name
            with whole.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(whole, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def write_all(file: int, content: memoryview) -> None:
    """Write *content* to the descriptor *file*, which may take less than it is given."""
    while content:
        content = content[os.write(file, content) :]


def write_all_at(file: int, content: memoryview, place: int) -> None:
    """Write *content* to the descriptor *file* from byte *place* on; threads may do so together."""
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
