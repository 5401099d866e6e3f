"""What files hold and what is wrong with them, told without raising."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cubeopt.data.reading import files, sources, texts
from cubeopt.data.reading.sources import DEFAULT_WIDTH, Kind, LeftOut
from cubeopt.errors import DataError
from cubeopt.trial import Task


@dataclass(frozen=True)
class FileFacts:
    """One file: what it holds, how much of it is usable, and the problems in plain words."""

    path: Path
    kind: Kind | Literal["text"] | None = None  # None: neither embeddings nor text
    task: Task | None = None
    corpus: str | None = None
    teacher: str | None = None
    width: int | None = None  # numbers in an embedding, also where they are too many or too few
    keys: tuple[str, ...] = ()
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    usable_rows: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def as_json(self) -> dict[str, Any]:
        left_out = [{**asdict(each), "path": str(each.path)} for each in self.left_out]
        return {**asdict(self), "path": str(self.path), "left_out": left_out}


def inspect(paths: Sequence[Path], width: int = DEFAULT_WIDTH) -> list[FileFacts]:
    """Facts on each file among and below *paths*; a bad file is a row with its problem."""
    rows = [_facts(file, paths, width) for file in files.find(paths)]
    for path in paths:
        if os.path.isdir(path) and not files.find([path]):
            rows.append(FileFacts(path, problems=("no files in this folder",)))
    return sorted({row.path: row for row in rows}.values(), key=lambda row: row.path)


def _facts(path: Path, paths: Sequence[Path], width: int) -> FileFacts:
    try:
        form = files.format_of(path)
        if reason := files.passed_over(path, form, paths):
            passed = LeftOut(path, reason, None, fault=False)
            return FileFacts(path, notes=(reason,), left_out=(passed,))
        if form.is_text:
            return _of_text(texts.read(path))
        return _of_embeddings(sources.load(path), path, width)
    except DataError as error:
        return FileFacts(path, problems=(_problem(path, error),), left_out=_refused(path, error))


def _of_text(text: texts.TextRows) -> FileFacts:
    return FileFacts(
        path=text.path,
        kind="text",
        task=text.task,
        corpus=text.corpus,
        rows=text.rows,
        usable_rows=len(text.sources),
        notes=_told(text.left_out, text.rows, fault=False),
        problems=(*text.problems, *_told(text.left_out, text.rows, fault=True)),
        left_out=text.left_out,
    )


def _of_embeddings(content: object, path: Path, width: int) -> FileFacts:
    tensors = sources.named_tensors(content)
    # A nested tensor refuses to tell its shape.
    shapes = {
        name: [] if tensor.is_nested else [int(size) for size in tensor.shape]
        for name, tensor in tensors.items()
    }
    form = [shapes[name] for name in sources.sides_of(content) if len(shapes.get(name, ())) == 2]
    facts = FileFacts(
        path=path,
        kind=sources.kind_of(content),
        width=form[0][1] if form else None,
        keys=sources.names(content),
        shapes=shapes,
        dtypes={name: sources.dtype_name(tensor) for name, tensor in tensors.items()},
        rows=form[0][0] if form else None,
    )
    try:
        source = sources.parse(content, path, width)
    except DataError as error:
        problems = (_problem(path, error),)
        return replace(facts, problems=problems, left_out=_refused(path, error))
    return replace(
        facts,
        task=source.task,
        corpus=source.corpus,
        teacher=source.teacher,
        usable_rows=source.usable_rows,
        notes=source.notes,
        problems=(*source.problems, *_told(source.left_out, source.rows, fault=True)),
        left_out=source.left_out,
    )


def _told(left_out: Sequence[LeftOut], rows: int, *, fault: bool) -> tuple[str, ...]:
    """A line on each reason for which rows are left out, by a fault or by design."""
    return tuple(
        f"{each.rows} of {rows} rows left out: {texts.told_reason(each)}"
        for each in left_out
        if each.fault == fault
    )


def _refused(path: Path, error: DataError) -> tuple[LeftOut, ...]:
    return (LeftOut(path, _problem(path, error), None),)


def _problem(path: Path, error: DataError) -> str:
    return str(error).removeprefix(f"{path}: ")
