"""Numbers that a file holds packed, unpacked to the disk and mapped from there."""

import math
import os
import tempfile
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


def no_space() -> str:
    """What to say when the disk is full."""
    return f"no space to unpack it in {tempfile.gettempdir()}: set TMPDIR to another folder"


class Spool:
    """A nameless temporary file; what is mapped from it stays when it is closed."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - this object is the context

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any], start: int = 0) -> NDArray[Any]:
        """The numbers from the byte *start* on, mapped; writing to them changes no file."""
        self.file.flush()
        count = math.prod(shape)
        assert start + count * dtype.itemsize <= os.fstat(self.file.fileno()).st_size
        if not count * dtype.itemsize:
            return np.empty(shape, dtype)
        return np.memmap(self.file, dtype, "c", start, (count,)).reshape(shape)
