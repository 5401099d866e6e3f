"""From files of text to files of embeddings, through a cache that an interrupt leaves whole.

Equal texts are embedded once, whichever files they stand in. The texts that the cache lacks go to
the teacher in batches of similar length; the files are written when all are known.

Shapes: M distinct texts of all files, N texts of a file, D embedding.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8

from cubeopt.data.reading import files, texts
from cubeopt.data.reading.sources import LeftOut
from cubeopt.data.reading.texts import TextRows
from cubeopt.data.teaching import embedding_files, teacher
from cubeopt.data.teaching.embedding_cache import DIGEST_BYTES, Cache
from cubeopt.data.teaching.embedding_files import Plan
from cubeopt.data.teaching.teacher import Teacher
from cubeopt.errors import DataError, StrictError

EMBEDDINGS_ALREADY = "a file of embeddings: it needs no teacher"

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class EmbedOptions:
    """What is to be embedded, with what."""

    model: str  # a name, or a folder
    device: torch.device
    width: int | None = None  # None: the teacher's own
    batch_size: int = 64
    strict: bool = False


@dataclass(frozen=True)
class FileReport:
    """One file of text and the file of embeddings that was made of it."""

    path: Path
    output: Path
    task: str
    corpus: str
    rows: int  # in the output
    texts: int  # distinct ones
    from_cache: int  # of the texts
    embedded: int  # of the texts
    truncated: int  # of the texts
    unchanged: bool  # the output stood there already

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "output": str(self.output)}


@dataclass(frozen=True)
class EmbedReport:
    """What a call did; where it was stopped there are no files yet."""

    teacher: str
    identity: str
    width: int
    pooling: str
    max_length: int | None
    folder: Path
    stopped: bool
    files: tuple[FileReport, ...]
    texts: int  # distinct ones of all files that were to be written
    from_cache: int
    embedded: int
    truncated: int
    seconds: float  # of embedding
    left_out: tuple[LeftOut, ...]
    problems: tuple[str, ...]

    @property
    def texts_per_second(self) -> float:
        return self.embedded / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "folder": str(self.folder),
            "files": [file.as_json() for file in self.files],
            "left_out": [{**asdict(row), "path": str(row.path)} for row in self.left_out],
            "texts_per_second": self.texts_per_second,
        }


def embed(
    paths: Sequence[Path],
    out: Path,
    cache: Path,
    options: EmbedOptions,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> EmbedReport:
    """Write into *out* a file of embeddings for each file of text among and below *paths*.

    What was embedded is kept below *cache*, also when *stop* is set or the process is killed, and
    the next call goes on from there.
    """
    read, left_out = _read(paths, out, progress)
    problems = tuple(f"{text.path}: {problem}" for text in read for problem in text.problems)
    if options.strict:
        _check_strict(left_out, problems)
    model = teacher.load(options.model, options.device)
    _check_width(model, options.width)
    embedding_files.check_folder(out, model)
    numbers: dict[str, int] = {}
    plans = [embedding_files.plan(text, numbers, out, model) for text in read]
    distinct, digests = list(numbers), _digests(numbers)
    del numbers
    wanted = _wanted(plans, len(distinct))
    store = Cache(cache / model.identity, model.width, digests[wanted])
    missing = store.missing()
    started = time.monotonic()
    stopped = _embed(model, store, [distinct[number] for number in wanted], options, progress, stop)
    seconds = time.monotonic() - started
    left = len(store.missing())
    place = np.full(len(distinct), -1, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    reports = () if stopped else tuple(_write(plan, store, place, missing) for plan in plans)
    return EmbedReport(
        teacher=model.name,
        identity=model.identity,
        width=model.width,
        pooling=model.pooling,
        max_length=model.max_length,
        folder=out,
        stopped=stopped,
        files=reports,
        texts=len(wanted),
        from_cache=len(wanted) - len(missing),
        embedded=len(missing) - left,
        truncated=int(store.truncated.sum()),
        seconds=seconds,
        left_out=tuple(left_out),
        problems=(*problems, *store.damaged),
    )


def _read(
    paths: Sequence[Path], out: Path, progress: Progress | None
) -> tuple[list[TextRows], list[LeftOut]]:
    """The files of text among and below *paths*, without what an earlier call has made."""
    results = os.path.realpath(out)
    found = [
        path for path in files.find(paths) if os.path.dirname(os.path.realpath(path)) != results
    ]
    read: list[TextRows] = []
    left_out: list[LeftOut] = []
    for done, path in enumerate(found, start=1):
        if not os.path.lexists(path):
            raise DataError(f"{path}: no such file or folder")
        text = _read_file(path, paths)
        if isinstance(text, TextRows):
            read.append(text)
            left_out += text.left_out
        else:
            left_out.append(text)
        if progress is not None:
            progress("reading files", done, len(found))
    if not read:
        first = f"; the first, {left_out[0].path}: {left_out[0].reason}" if left_out else ""
        raise DataError(
            f"no usable text in {len(found)} files of {', '.join(map(str, paths))}{first}"
        )
    return read, left_out


def _read_file(path: Path, paths: Sequence[Path]) -> TextRows | LeftOut:
    try:
        form = files.format_of(path)
        if form is files.Format.UNKNOWN:
            return LeftOut(path, files.unknown(path), None)
        if not form.is_text:
            return LeftOut(path, EMBEDDINGS_ALREADY, None, fault=False)
        if reason := files.passed_over(path, form, paths):
            return LeftOut(path, reason, None, fault=False)
        return texts.read(path)
    except DataError as error:
        return LeftOut(path, str(error).removeprefix(f"{path}: "), None)


def _check_strict(left_out: Sequence[LeftOut], problems: Sequence[str]) -> None:
    faults = [f"{row.path}: {row.reason}" for row in left_out if row.fault] + list(problems)
    if faults:
        raise StrictError(
            f"--strict: nothing was embedded, for {len(faults)} things are left out or "
            f"suspicious; the first: {faults[0]}"
        )


def _check_width(model: Teacher, width: int | None) -> None:
    if width not in (None, model.width):
        raise DataError(
            f"--width {width}: the teacher {model.name} gives {model.width} numbers; choose "
            f"another teacher, or leave --width out and build the dataset with --width "
            f"{model.width}"
        )


def _digests(numbers: dict[str, int]) -> UInt8[np.ndarray, "M 32"]:
    digests = bytearray(DIGEST_BYTES * len(numbers))
    for number, text in enumerate(numbers):
        digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)] = embedding_files.digest(text)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def _wanted(plans: Sequence[Plan], count: int) -> Int[np.ndarray, " _"]:
    """The numbers of the texts of the files that are still to be written."""
    wanted = np.zeros(count, dtype=bool)
    for plan in plans:
        if plan.standing is None:
            for side in plan.sides:
                wanted[side] = True
    return np.flatnonzero(wanted)


def _embed(
    model: Teacher,
    store: Cache,
    wanted: Sequence[str],
    options: EmbedOptions,
    progress: Progress | None,
    stop: threading.Event | None,
) -> bool:
    """Embed what is missing; whether *stop* came before the end."""
    total = len(wanted)
    done = total - len(store.missing())
    try:
        for batch in _batches(store.missing(), wanted, options.batch_size):
            if progress is not None:
                progress("embedding", done, total)
            if stop is not None and stop.is_set():
                return True
            some = [wanted[number] for number in batch]
            rows = model.embed(some).numpy()
            store.add(batch, rows, model.truncated(some).numpy())
            done += len(batch)
        if progress is not None:
            progress("embedding", done, total)
    finally:
        store.flush()
    return False


def _batches(
    missing: Int[np.ndarray, " _"], wanted: Sequence[str], size: int
) -> Iterator[Int[np.ndarray, " _"]]:
    """Texts of similar length together, the longest first: what does not fit shows at once."""
    lengths = np.fromiter((len(wanted[number]) for number in missing), dtype=np.int64)
    ordered = missing[np.argsort(-lengths, kind="stable")]
    yield from (ordered[start : start + size] for start in range(0, len(ordered), size))


def _write(
    plan: Plan,
    store: Cache,
    place: Int[np.ndarray, " M"],
    missing: Int[np.ndarray, " _"],
) -> FileReport:
    """Write one file of embeddings, unless the same stands there already."""
    embedded = cut = 0
    texts_here = plan.numbers
    if plan.standing is None:
        here = place[texts_here]
        embedded, cut = int(np.isin(here, missing).sum()), int(store.truncated[here].sum())
        embedding_files.write(plan, store, place, cut)
    return FileReport(
        path=plan.text.path,
        output=plan.output,
        task=str(plan.text.task),
        corpus=plan.text.corpus,
        rows=len(plan.sides[0]),
        texts=len(texts_here),
        from_cache=len(texts_here) - embedded if plan.standing is None else 0,
        embedded=embedded,
        truncated=cut if plan.standing is None else plan.standing,
        unchanged=plan.standing is not None,
    )
