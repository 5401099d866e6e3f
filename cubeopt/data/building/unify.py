"""Many files of embeddings made one dataset, split so that no text stands on two sides.

Shapes: M sentences of the dataset, D embedding.
"""

import logging
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import cubeopt
from cubeopt.data import dataset, folder, normalisation
from cubeopt.data.building import columns, entries, intake, pool, splits
from cubeopt.data.building.columns import Columns
from cubeopt.data.building.duplicates import THRESHOLDS
from cubeopt.data.building.intake import Intake, Progress, SourceRows
from cubeopt.data.building.pool import Pool, Sentences
from cubeopt.data.dataset import SPLITS, TASKS
from cubeopt.data.normalisation import Normalisation
from cubeopt.data.reading.sources import DEFAULT_WIDTH, LeftOut
from cubeopt.errors import DataError
from cubeopt.trial import Task, did_you_mean

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16}
_MOST_CORPORA = 256  # codes of one byte


@dataclass(frozen=True)
class BuildOptions:
    """What a person may choose; none of it depends on the names or the order of files."""

    tasks: tuple[Task, ...] | None = None  # None: every task that the files have
    width: int = DEFAULT_WIDTH
    seed: int = 0
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    near: float | None = 0.999  # cosine from which two sentences count as one; None: equal bytes
    normalisation: str = "none"
    dtype: str = "float32"
    weights: Mapping[str, float] = field(default_factory=dict)  # of mixing, by corpus
    teacher: str | None = None  # take the files of this teacher, and those that name none
    labels: Mapping[Path, Path] = field(default_factory=dict)  # file -> JSON lines
    corpora: Mapping[Path, str] = field(default_factory=dict)  # path as given -> corpus
    strict: bool = False  # StrictError instead of leaving anything out by fault


_DEFAULTS = BuildOptions()


@dataclass(frozen=True)
class Duplicates:
    """Sentences that are one with others, and pairs that are labelled in two ways."""

    occurrences: int  # of sentences in the files
    exact: int  # of them equal to another
    near: int  # distinct sentences replaced by one that is almost the same
    conflicting_labels: int


@dataclass(frozen=True)
class BuildReport:
    """What a build took, what it left out, and where the dataset stands."""

    folder: Path
    fingerprint: str
    sentences: int
    counts: Mapping[str, Mapping[str, int]]  # rows by task and split
    corpora: Mapping[str, Mapping[str, Any]]  # rows by corpus and split, and the weight
    duplicates: Duplicates
    sources: tuple[SourceRows, ...]
    left_out: tuple[LeftOut, ...]
    problems: tuple[str, ...]
    unchanged: bool  # the same dataset stood there already

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "fingerprint": self.fingerprint,
            "sentences": self.sentences,
            "rows": self.counts,
            "corpora": self.corpora,
            "duplicates": asdict(self.duplicates),
            "sources": [row.as_json() for row in self.sources],
            "left_out": [_left_out_json(row) for row in self.left_out],
            "problems": list(self.problems),
            "unchanged": self.unchanged,
        }


def _left_out_json(row: LeftOut) -> dict[str, Any]:
    return {**asdict(row), "path": str(row.path), "lines": list(row.lines)}


def build(
    paths: Sequence[Path],
    out: Path,
    options: BuildOptions = _DEFAULTS,
    progress: Progress | None = None,
) -> BuildReport:
    """Unify the files among, below or matched by *paths* into one dataset folder at *out*.

    What the dataset holds depends on the content of the files and *options*; neither on names
    nor on order.
    """
    tell = progress or (lambda stage, done, total: None)
    _check(options)
    folder.check_place(out)
    taken = intake.read(
        paths,
        options.width,
        options.tasks,
        options.teacher,
        options.labels,
        options.corpora,
        options.strict,
        tell,
    )
    corpora = _corpora(taken, options.weights)
    sources, label_names = intake.label_names(taken.sources)
    gathered = pool.gather(sources, options.near, tell)
    describer = ThreadPoolExecutor(1)  # while one thread decides and the disk is waited for
    try:
        described = [describer.submit(intake.describe, source) for source in sources]
        draft = _draft(taken, label_names, gathered, corpora, options)
        _check_counts(draft)
        return _write(out, draft, described, options, tell)
    finally:
        describer.shutdown(cancel_futures=True)


def _check(options: BuildOptions) -> None:
    """Refuse what a person wrote and no file could make right."""
    fractions = options.fractions
    if not all(part > 0 for part in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(
            f"fractions {list(fractions)}: three numbers above 0 that sum to 1 are needed, "
            f"for {', '.join(SPLITS)}"
        )
    low, high = THRESHOLDS
    if options.near is not None and not low <= options.near <= high:
        raise DataError(f"near {options.near}: a cosine from {low} to {high} is needed, or off")
    for name, weight in options.weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(
                f"weight {name}={weight}: a number above 0 is needed; "
                "to leave a corpus out, leave out its files"
            )
    _check_name("normalisation", options.normalisation, normalisation.NAMES)
    _check_name("dtype", options.dtype, tuple(DTYPES))
    assert options.tasks is None or options.tasks, "a dataset needs a task"


def _check_name(what: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise DataError(
            f"{what} {given!r}: expected one of {', '.join(known)}"
            f"{did_you_mean(given, frozenset(known))}"
        )


@dataclass(frozen=True, eq=False)
class _Draft:
    """A dataset that is decided, but not written."""

    intake: Intake
    label_names: Mapping[Task, tuple[str, ...]]
    pool: Pool
    columns: Columns
    tasks: tuple[Task, ...]
    corpora: tuple[str, ...]

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return (*self.intake.left_out, *self.columns.left_out)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows by task and split."""
        codes = self.columns.tensors["task"]
        return {
            str(task): _by_split(self.columns, codes == TASKS.index(task)) for task in self.tasks
        }

    @property
    def duplicates(self) -> Duplicates:
        occurrences = sum(len(side) for sides in self.pool.numbers for side in sides)
        distinct = len(self.pool.sentences)
        near = int((self.pool.stands != torch.arange(distinct)).sum())
        return Duplicates(occurrences, occurrences - distinct, near, self.columns.conflicts)


def _corpora(taken: Intake, weights: Mapping[str, float]) -> tuple[str, ...]:
    names = tuple(sorted({source.corpus for source in taken.sources}))
    for name in weights:
        if name not in names:
            raise DataError(f"weight for the corpus {name!r}: there are only {', '.join(names)}")
    if len(names) > _MOST_CORPORA:
        raise DataError(f"{len(names)} corpora, but at most {_MOST_CORPORA} are possible")
    return names


def _tasks(taken: Intake, asked: Sequence[Task] | None) -> tuple[Task, ...]:
    """The tasks of the dataset: those asked for; else all that the files have rows for."""
    known = {source.task for source in taken.sources} | {Task.RECONSTRUCT}
    return tuple(task for task in TASKS if task in (known if asked is None else asked))


def _draft(
    taken: Intake,
    label_names: Mapping[Task, tuple[str, ...]],
    gathered: Pool,
    corpora: tuple[str, ...],
    options: BuildOptions,
) -> _Draft:
    tasks = _tasks(taken, options.tasks)
    everything, keys = entries.entries(gathered, corpora)
    rows, known = entries.without_known(everything, gathered)
    shared = splits.assign(
        columns.members(rows, gathered),
        keys,
        len(gathered.sentences),
        options.fractions,
        options.seed,
    )
    made = columns.columns(rows, everything, shared, gathered, tasks)
    left_out = (*(known if Task.RECONSTRUCT in tasks else ()), *made.left_out)
    return _Draft(taken, label_names, gathered, replace(made, left_out=left_out), tasks, corpora)


def _check_counts(draft: _Draft) -> None:
    for task, rows in draft.counts.items():
        for split, count in rows.items():
            if count:
                continue
            of_task = draft.columns.tensors["task"] == TASKS.index(Task(task))
            groups = len(draft.columns.tensors["group"][of_task].unique())
            raise DataError(
                f"task {task}: no rows for the {split} split: at least {len(SPLITS)} groups that "
                "share no text are needed (dialogues, pairs of one question, lone sentences), "
                f"got {groups}; give more files"
            )


def _write(
    out: Path,
    draft: _Draft,
    described: Sequence[Future[SourceRows]],
    options: BuildOptions,
    tell: Progress,
) -> BuildReport:
    numbers, tensors = draft.columns.sentences, draft.columns.tensors
    training = tensors["source"][tensors["split"] == SPLITS.index("train")].unique()
    read, step = draft.pool.sentences, dataset.piece_rows(options.width, torch.float32)
    scale = normalisation.measure(
        options.normalisation,
        _pieces(read, numbers, step, "measuring norms", tell),
        _pieces(read, numbers[training], step, "measuring numbers", tell),
    )
    if scale.mean is not None and scale.deviation is not None:
        tensors = tensors | {"mean": scale.mean, "deviation": scale.deviation}
    dtype = DTYPES[options.dtype]

    def rows(begin: int, end: int) -> Float[Tensor, "_ D"]:
        return scale.store(read[numbers[begin:end]]).to(dtype)

    fingerprint, written = folder.write(
        out,
        lambda: _manifest(draft, scale, [each.result() for each in described], options),
        (len(numbers), options.width),
        dtype,
        rows,
        tensors,
        lambda done: tell("writing", done, len(numbers)),
    )
    logger.info("dataset %s at %s: %s", fingerprint[:12], out, draft.counts)
    return BuildReport(
        folder=out,
        fingerprint=fingerprint,
        sentences=len(numbers),
        counts=draft.counts,
        corpora=_corpora_rows(draft, options),
        duplicates=draft.duplicates,
        sources=tuple(each.result() for each in described),
        left_out=draft.left_out,
        problems=draft.intake.problems,
        unchanged=not written,
    )


def _pieces(
    sentences: Sentences, numbers: Int[Tensor, " M"], step: int, stage: str, tell: Progress
) -> Iterator[Float[Tensor, "_ D"]]:
    """The rows of *numbers*, some at a time; the next are fetched while those are used."""
    done = 0
    with ThreadPoolExecutor(1) as reader:
        coming: deque[Future[Tensor]] = deque()
        for some in numbers.split(step):
            coming.append(reader.submit(sentences.__getitem__, some))
            if len(coming) > 1:
                yield coming.popleft().result()
                done += step
                tell(stage, done, len(numbers))
        yield coming.popleft().result()
        tell(stage, len(numbers), len(numbers))


def _manifest(
    draft: _Draft, scale: Normalisation, files: Sequence[SourceRows], options: BuildOptions
) -> dict[str, Any]:
    corpora = _corpora_rows(draft, options)
    return {
        "format": dataset.FORMAT,
        "embedding_size": options.width,
        "dtype": options.dtype,
        "sentences": len(draft.columns.sentences),
        "tasks": [str(task) for task in draft.tasks],
        "label_names": {
            str(task): list(draft.label_names[task])
            for task in draft.tasks
            if task in draft.label_names
        },
        "corpora": list(draft.corpora),
        "weights": {name: row["weight"] for name, row in corpora.items()},
        "normalisation": scale.facts(),
        "rows": draft.counts,
        "corpora_rows": corpora,
        "duplicates": asdict(draft.duplicates),
        "sources": [row.as_json() for row in files],
        "left_out": [_left_out_json(row) for row in draft.left_out],
        "problems": list(draft.intake.problems),
        "seed": options.seed,
        "fractions": list(options.fractions),
        "near": options.near,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "cubeopt": cubeopt.__version__,
    }


def _corpora_rows(draft: _Draft, options: BuildOptions) -> dict[str, dict[str, Any]]:
    """The mixing weight of each corpus, and its rows by split."""
    codes = draft.columns.tensors["corpus"]
    return {
        name: {
            "weight": float(options.weights.get(name, 1.0)),
            **_by_split(draft.columns, codes == code),
        }
        for code, name in enumerate(draft.corpora)
    }


def _by_split(made: Columns, wanted: Bool[Tensor, " N"]) -> dict[str, int]:
    split = made.tensors["split"][wanted]
    return {name: int((split == code).sum()) for code, name in enumerate(SPLITS)}
