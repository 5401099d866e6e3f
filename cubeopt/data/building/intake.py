"""Which of the user's files go into a dataset, and why the others do not."""

import glob
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cubeopt.data.reading import files, sources
from cubeopt.data.reading.sources import Kind, LeftOut, Source
from cubeopt.errors import DataError, StrictError, WidthError
from cubeopt.trial import Task

NOT_ASKED = "of use only to tasks that were not asked for"
OTHER_TEACHER = "made by another teacher than the one asked for"

_LARGEST_LABEL = torch.iinfo(torch.int16).max
_BLOCK = 1 << 24  # bytes of a file that are hashed at a time

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class SourceRows:
    """One file that went into a dataset."""

    path: Path
    kind: Kind
    task: Task
    corpus: str
    teacher: str | None
    rows: int  # in the file
    usable_rows: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}


@dataclass(frozen=True)
class Intake:
    """The files that are taken, sorted, and what there is to say of all files."""

    sources: tuple[Source, ...]
    left_out: tuple[LeftOut, ...]
    problems: tuple[str, ...]  # with the file's name


def read(
    paths: Sequence[Path],
    width: int,
    tasks: Sequence[Task] | None,
    teacher: str | None,
    labels: Mapping[Path, Path],
    corpora: Mapping[Path, str],
    strict: bool,
    progress: Progress,
) -> Intake:
    """Read the files among, below or matched by *paths*; keep those that fit the rest.

    With *strict*, StrictError when anything in them is left out by a fault, or is suspicious.
    """
    check_given(paths)
    found = files.find(paths)
    if not found:
        raise DataError(f"no files in {', '.join(map(str, paths)) or 'no paths'}")
    names = _names(corpora)
    labels_of = {os.path.realpath(path): file for path, file in labels.items()}
    _check_labels(labels, found)
    taken: list[Source] = []
    left_out: list[LeftOut] = []
    refusals: list[DataError] = []
    for done, path in enumerate(found, start=1):
        real = os.path.realpath(path)
        try:
            source = _read(path, width, labels_of.get(real), paths)
        except DataError as error:
            if real in labels_of:  # what the person tied together must fit
                raise
            refusals.append(error)
            reason = str(error).removeprefix(f"{path}: ")
            left_out.append(LeftOut(path, reason, None, fault=reason not in files.BY_DESIGN))
        else:
            taken.append(replace(source, corpus=names.get(real, source.corpus)))
            left_out += source.left_out
        progress("reading files", done, len(found))
    if strict:
        _check_strict(left_out, taken)
    if not taken:
        raise _nothing(left_out, refusals)
    taken, more = _chosen(taken, tasks, teacher)
    problems = [f"{source.path}: {problem}" for source in taken for problem in source.problems]
    return Intake(tuple(taken), (*left_out, *more), tuple(problems))


def _check_strict(left_out: Sequence[LeftOut], taken: Sequence[Source]) -> None:
    reasons = [
        f"{row.path}: {row.reason}" + ("" if row.rows is None else f" ({row.rows} rows)")
        for row in left_out
        if row.fault
    ]
    reasons += [f"{source.path}: {problem}" for source in taken for problem in source.problems]
    if reasons:
        raise StrictError(f"strict: nothing written, {len(reasons)} faults: {'; '.join(reasons)}")


def check_given(paths: Sequence[Path]) -> None:
    """Refuse a path that is not there, and a pattern that matches nothing."""
    for path in paths:
        if not os.path.lexists(path) and files.find([path]) == [path]:
            pattern = ", and no file matches it" if glob.has_magic(str(path)) else ""
            raise DataError(f"{path}: no such file or folder{pattern}")


def describe(source: Source) -> SourceRows:
    """What a manifest says of *source*; reads the whole file once more."""
    return SourceRows(
        source.path,
        source.kind,
        source.task,
        source.corpus,
        source.teacher,
        source.rows,
        source.usable_rows,
        _sha256(source.path),
    )


def label_names(
    read: Sequence[Source],
) -> tuple[list[Source], dict[Task, tuple[str, ...]]]:
    """*read* with the labels of all files of a task numbered alike, and the names of each task."""
    lists: dict[Task, set[tuple[str, ...]]] = {}
    for source in read:
        if source.labels is not None:
            lists.setdefault(source.task, set()).add(source.label_names)
    named = {task: {some for some in all_ if not _numerals(some)} for task, all_ in lists.items()}
    names = {
        task: next(iter(some)) if len(some) == 1 else tuple(sorted(set().union(*some)))
        for task, some in named.items()
        if some
    }
    # Where no file has names, the longest list of numbers holds the others.
    bare = {task: max(lists[task], key=len) for task, some in named.items() if not some}
    mixed = {task for task, some in named.items() if len(some) > 1}
    read = [_renumbered(source, names.get(source.task, ()), mixed) for source in read]
    return list(read), names | bare


def _numerals(names: tuple[str, ...]) -> bool:
    """Whether *names* are the numbers of labels that have none."""
    return names == tuple(str(number) for number in range(len(names)))


def _renumbered(source: Source, names: tuple[str, ...], mixed: set[Task]) -> Source:
    if source.labels is None or not names or source.label_names == names:
        return source
    if _numerals(source.label_names):
        if source.task in mixed:
            raise DataError(
                f"{source.path}: its labels have no names, and those of other files for the task "
                f"{source.task} are named differently: {', '.join(names)}; build it apart"
            )
        if (largest := int(source.labels.max())) >= len(names):
            raise DataError(
                f"{source.path}: label {largest}, but there are only: {', '.join(names)}"
            )
        return source
    # The last number stands for -1, unknown.
    numbers = torch.tensor([names.index(name) for name in source.label_names] + [-1])
    return replace(source, labels=numbers[source.labels])


def _names(corpora: Mapping[Path, str]) -> dict[str, str]:
    return {
        os.path.realpath(file): name
        for path, name in corpora.items()
        for file in files.find([path])
    }


def _check_labels(labels: Mapping[Path, Path], found: Sequence[Path]) -> None:
    known = {os.path.realpath(path) for path in found}
    for path in labels:
        if os.path.realpath(path) not in known:
            raise DataError(f"labels for {path}, which is not among the files of embeddings")


def _read(path: Path, width: int, labels: Path | None, paths: Sequence[Path]) -> Source:
    form = files.format_of(path)
    if reason := files.passed_over(path, form, paths):
        raise DataError(f"{path}: {reason}")
    if form.is_text:
        raise DataError(
            f"{path}: raw text: embed it first with: cubeopt data embed {path} --model MODEL"
        )
    source = sources.read(path, width, labels)
    if source.labels is not None:
        low, high = int(source.labels.min()), int(source.labels.max())
        if low < -1 or high > _LARGEST_LABEL:
            raise DataError(
                f"{path}: labels must be -1 (unknown) to {_LARGEST_LABEL}, got {low} to {high}"
            )
    return source


def _nothing(left_out: Sequence[LeftOut], refusals: Sequence[DataError]) -> DataError:
    widths = {error.found for error in refusals if isinstance(error, WidthError)}
    if len(widths) == 1 and all(isinstance(error, WidthError) for error in refusals):
        found = widths.pop()
        return DataError(
            f"all {len(left_out)} files have embeddings of width {found}; "
            f"for a dataset of these add --width {found}"
        )
    first = left_out[0]
    return DataError(
        f"no usable embeddings in {len(left_out)} files; the first, {first.path}: {first.reason}"
    )


def _chosen(
    read: Sequence[Source], tasks: Sequence[Task] | None, teacher: str | None
) -> tuple[list[Source], list[LeftOut]]:
    """Those of the asked teacher and of use to *tasks*, and the others."""
    teachers = sorted({source.teacher for source in read if source.teacher is not None})
    if teacher is None and len(teachers) > 1:
        raise DataError(
            f"files of {len(teachers)} teachers cannot be mixed: {', '.join(teachers)}; "
            "choose one with --teacher NAME"
        )
    if teacher is not None and teachers and teacher not in teachers:
        raise DataError(f"no file is of the teacher {teacher!r}, only of {', '.join(teachers)}")
    taken: list[Source] = []
    left_out: list[LeftOut] = []
    for source in read:
        if teacher is not None and source.teacher not in (None, teacher):
            reason = f"{OTHER_TEACHER}: {source.teacher}"
        elif tasks is not None and not {source.task, Task.RECONSTRUCT} & set(tasks):
            reason = f"{NOT_ASKED}: {Task.RECONSTRUCT}" + (
                f", {source.task}" if source.task is not Task.RECONSTRUCT else ""
            )
        else:
            taken.append(source)
            continue
        left_out.append(LeftOut(source.path, reason, source.usable_rows, fault=False))
    if not taken:
        raise DataError(f"no file is left for the dataset: {left_out[0].reason}")
    return taken, left_out


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    buffer = bytearray(_BLOCK)  # long blocks: each ends with a fight for the interpreter's lock
    try:
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                total.update(memoryview(buffer)[:read])
    except OSError as error:
        raise DataError(f"{path}: {files.os_reason(error)}") from error
    return total.hexdigest()
