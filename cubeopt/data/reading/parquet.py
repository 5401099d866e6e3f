"""Reading embeddings from parquet: columns of lists of numbers become tensors.

A process of its own unpacks the file, so that a damaged one cannot end ours.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cubeopt.data.reading.spool import Spool, no_space
from cubeopt.errors import DataError

_READER = "cubeopt.data.reading.parquet_reader"


def load(path: Path) -> dict[str, object]:
    """The columns of numbers at *path* as tensors, and what the file says of itself."""
    with Spool() as spool:
        told = _unpack(path, spool)
        content: dict[str, object] = dict(told["description"])
        content.update(dict.fromkeys(told["names"]))  # a column that is not read has no value
        for column in told["columns"]:
            dtype, shape = np.dtype(column["dtype"]), tuple(column["shape"])
            array = spool.array(shape, dtype, column["start"])
            content[column["name"]] = torch.from_numpy(array)
    return content


def _unpack(path: Path, spool: Spool) -> dict[str, Any]:
    """Have the numbers of *path* written to *spool*, and hear what they are."""
    search = os.pathsep.join(os.path.abspath(each) for each in sys.path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", _READER, str(path), str(path.stat().st_size)],
        stdin=subprocess.DEVNULL,
        stdout=spool.file,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": search},
        check=False,
    )
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    if done.returncode or not lines:
        raise DataError(f"{path}: {_cause(done.returncode, lines)}")
    told: dict[str, Any] = json.loads(lines[-1])
    if "refused" in told:
        raise DataError(f"{path}: refused: {told['refused']}")
    return told


def _cause(code: int, lines: list[str]) -> str:
    """Why the reader ended, from the last line of its traceback."""
    if code == -signal.SIGKILL:
        return "it needs more memory than there is"
    if any(f"[Errno {errno.ENOSPC}]" in line for line in lines):
        return no_space()
    # The last line of a traceback: the name of the error after that of our own.
    error = lines[-1].split(": ")[-1] if code > 0 and lines else "Arrow gave up"
    return f"truncated or damaged ({error})"
