"""The folder of one training: what its files are called, and its log read while it grows.

Needs no torch: whoever looks at a training does not compute.
"""

import json
from pathlib import Path
from typing import Any

from cubeopt.errors import CheckpointError

CONFIG, LOG, RESULT = "config.yaml", "metrics.jsonl", "result.json"
CHECKPOINTS = "checkpoints"

Row = dict[str, Any]  # of one epoch: its number beside what the loop reported


def read(path: Path) -> list[Row]:
    """The rows of the log *path*, by epoch; none when it is not there.

    A last line that is half written is left out. CheckpointError when another line is no row.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    lines = text.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [_row(path, number, line) for number, line in enumerate(whole, 1)]


def _row(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise CheckpointError(f"{path}, line {number}, is no JSON: {error}") from error
    epoch = row.get("epoch") if isinstance(row, dict) else None
    if isinstance(epoch, bool) or not isinstance(epoch, int):
        raise CheckpointError(f"{path}, line {number}, is no row of an epoch: it has no epoch")
    return dict(row)
