"""What files hold and what is wrong with them, told without raising."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cubeopt.data import sources
from cubeopt.data.sources import DEFAULT_WIDTH, Kind
from cubeopt.errors import DataError


@dataclass(frozen=True)
class FileFacts:
    """One file: what it holds, how much of it is usable, and the problems in plain words."""

    path: Path
    kind: Kind | None = None  # None: no file of embeddings
    keys: tuple[str, ...] = ()
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    usable_rows: int = 0
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def inspect(paths: Sequence[Path], width: int = DEFAULT_WIDTH) -> list[FileFacts]:
    """Facts on each file among and below *paths*; a bad file is a row with its problem."""
    rows = []
    for path in paths:
        files = sources.find([path])
        rows += [_facts(file, width) for file in files]
        if not files:
            rows.append(FileFacts(path, problems=("no .pt files in this folder",)))
    return list({row.path: row for row in rows}.values())


def _facts(path: Path, width: int) -> FileFacts:
    try:
        content = sources.load(path)
    except DataError as error:
        return FileFacts(path, problems=(_problem(path, error),))
    tensors = sources.named_tensors(content)
    # A nested tensor refuses to tell its shape.
    shapes = {
        name: [] if tensor.is_nested else [int(size) for size in tensor.shape]
        for name, tensor in tensors.items()
    }
    dtypes = {name: sources.dtype_name(tensor) for name, tensor in tensors.items()}
    kind = sources.kind_of(content)
    usable, problems = _usable(content, path, width)
    return FileFacts(
        path=path,
        kind=kind,
        keys=sources.names(content),
        shapes=shapes,
        dtypes=dtypes,
        rows=_rows(kind, shapes),
        usable_rows=usable,
        problems=problems,
    )


def _usable(content: object, path: Path, width: int) -> tuple[int, tuple[str, ...]]:
    """Usable rows, and everything there is to say against the file."""
    try:
        source = sources.parse(content, path, width)
    except DataError as error:
        return 0, (_problem(path, error),)
    lost = [f"{row.rows} of {source.rows} rows left out: {row.reason}" for row in source.left_out]
    return source.usable_rows, (*source.problems, *lost)


def _problem(path: Path, error: DataError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _rows(kind: Kind | None, shapes: Mapping[str, list[int]]) -> int | None:
    """Rows of the first tensor that matters, as far as it has the form of rows."""
    known = [shapes[name] for name in sources.KEYS.get(kind, ()) if name in shapes] if kind else []
    return known[0][0] if known and len(known[0]) == 2 else None
