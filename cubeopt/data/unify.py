"""Many files of embeddings made one dataset, split so that no text stands on two sides.

A *group* is what must stay together: a dialogue, all pairs of one question, a lone sentence.
Sentences are known by a *digest* of the bytes of their float32 row.

Shapes: N rows, D embedding.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import cubeopt
from cubeopt.data import dataset, sources
from cubeopt.data.dataset import SPLITS, TASKS
from cubeopt.data.sources import DEFAULT_WIDTH, Kind, LeftOut, Source
from cubeopt.errors import DataError
from cubeopt.trial import Task

logger = logging.getLogger(__name__)

DUPLICATE = "duplicate: the same embeddings stand in the dataset already"
OVERLAP = "overlap: a sentence of the pair also stands in an earlier split"
BARE_ONLY = "bare tensors feed only the task reconstruct"

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all
Digest = bytes
Pair = tuple[Digest, Digest]  # of a lone sentence: twice the same


@dataclass(frozen=True)
class SourceRows:
    """One file that went into a dataset."""

    path: Path
    kind: Kind
    rows: int  # in the file
    usable_rows: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class BuildReport:
    """What a build took, what it left out, and where the dataset stands."""

    folder: Path
    fingerprint: str
    counts: Mapping[str, Mapping[str, int]]  # rows by task and split
    sources: tuple[SourceRows, ...]
    left_out: tuple[LeftOut, ...]
    unchanged: bool  # the same dataset stood there already

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "fingerprint": self.fingerprint,
            "rows": self.counts,
            "sources": [row.as_json() for row in self.sources],
            "left_out": [_left_out_json(row) for row in self.left_out],
            "unchanged": self.unchanged,
        }


def _left_out_json(row: LeftOut) -> dict[str, Any]:
    return {**asdict(row), "path": str(row.path)}


@dataclass(frozen=True)
class _Pool:
    """All usable rows of all files, and what belongs together."""

    sentences: dict[Digest, Tensor] = field(default_factory=dict)
    groups: dict[Kind, dict[Digest, set[Pair]]] = field(
        default_factory=lambda: {kind: {} for kind in Kind}
    )
    # Every pair of every file with its group: the same pair may stand in several.
    pairs: list[tuple[Path, Digest, Pair]] = field(default_factory=list)


def build(
    paths: Sequence[Path],
    out: Path,
    tasks: Sequence[Task],
    width: int = DEFAULT_WIDTH,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    progress: Progress | None = None,
) -> BuildReport:
    """Unify the files among and below *paths* into one dataset folder at *out*.

    What the dataset holds depends on the content of the files, *tasks*, *width*, *seed* and
    *fractions*; neither on names nor on order.
    """
    _check_fractions(fractions)
    assert tasks, "a dataset needs a task"
    tasks = [task for task in TASKS if task in tasks]
    dataset.check_place(out)
    read, left_out = _read(paths, width, progress)
    pool, left = _gather(read, tasks)
    left_out += left
    splits = _assign(pool.groups, fractions, seed)
    tensors, left = _rows(pool, splits, tasks)
    left_out += left
    counts = _counts(tensors, tasks)
    _check_counts(counts, pool.groups)
    used = tuple(_source_rows(source) for source in read)
    fingerprint = dataset.fingerprint(tensors)
    manifest = {
        "format": dataset.FORMAT,
        "fingerprint": fingerprint,
        "embedding_size": width,
        "sentences": len(tensors["embeddings"]),
        "tasks": [str(task) for task in tasks],
        "rows": counts,
        "sources": [row.as_json() for row in used],
        "left_out": [_left_out_json(row) for row in left_out],
        "seed": seed,
        "fractions": list(fractions),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "cubeopt": cubeopt.__version__,
    }
    written = dataset.write(out, tensors, manifest)
    logger.info("dataset %s at %s: %s", fingerprint[:12], out, counts)
    return BuildReport(out, fingerprint, counts, used, tuple(left_out), not written)


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if not all(part > 0 for part in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(
            f"fractions {list(fractions)}: three numbers above 0 that sum to 1 are needed, "
            f"for {', '.join(SPLITS)}"
        )


def _read(
    paths: Sequence[Path], width: int, progress: Progress | None
) -> tuple[list[Source], list[LeftOut]]:
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
    files = sources.find(paths)
    read: list[Source] = []
    left_out: list[LeftOut] = []
    for done, file in enumerate(files, start=1):
        try:
            source = sources.read(file, width)
        except DataError as error:
            left_out.append(LeftOut(file, str(error).removeprefix(f"{file}: "), None))
        else:
            read.append(source)
            left_out += source.left_out
        if progress is not None:
            progress("reading files", done, len(files))
    if not files:
        raise DataError(f"no .pt files in {', '.join(str(path) for path in paths) or 'no paths'}")
    if not read:
        first = left_out[0]
        raise DataError(
            f"no usable embeddings in {len(files)} files; the first, {first.path}: {first.reason}"
        )
    return read, left_out


def _gather(read: Sequence[Source], tasks: Sequence[Task]) -> tuple[_Pool, list[LeftOut]]:
    pool = _Pool()
    for source in read:
        if source.target is not None:
            _gather_pairs(pool, source, source.target)
    left_out = []
    # Lone sentences come last: one that a pair holds needs no group of its own, which
    # could only pull the pair's sentence into another split.
    for source in read:
        if source.target is not None:
            continue
        if Task.RECONSTRUCT not in tasks:
            left_out.append(LeftOut(source.path, BARE_ONLY, source.usable_rows))
        elif duplicates := _gather_sentences(pool, source):
            left_out.append(LeftOut(source.path, DUPLICATE, duplicates))
    return pool, left_out


def _gather_pairs(pool: _Pool, source: Source, target: Float[Tensor, "N D"]) -> None:
    questions = _add(pool, source.source)
    pairs = list(zip(questions, _add(pool, target), strict=True))
    if source.kind is Kind.DIALOGUE:
        keys = [_digest(b"dialogue", *(part for pair in pairs for part in pair))] * len(pairs)
    else:
        keys = [_digest(b"question", question) for question in questions]
    for key, pair in zip(keys, pairs, strict=True):
        pool.groups[source.kind].setdefault(key, set()).add(pair)
        pool.pairs.append((source.path, key, pair))


def _gather_sentences(pool: _Pool, source: Source) -> int:
    """Add lone sentences as groups of one; the number of those that were known already."""
    duplicates = 0
    for digest, row in zip(_digests(source.source), source.source, strict=True):
        if digest in pool.sentences:
            duplicates += 1
            continue
        pool.sentences[digest] = row
        pool.groups[Kind.BARE][_digest(b"sentence", digest)] = {(digest, digest)}
    return duplicates


def _add(pool: _Pool, rows: Float[Tensor, "N D"]) -> list[Digest]:
    digests = _digests(rows)
    for digest, row in zip(digests, rows, strict=True):
        pool.sentences.setdefault(digest, row)
    return digests


def _digests(rows: Float[Tensor, "N D"]) -> list[Digest]:
    return [hashlib.sha256(row).digest() for row in rows.contiguous().numpy()]


def _digest(*parts: bytes) -> Digest:
    return hashlib.sha256(b"".join(parts)).digest()


def _assign(
    groups: Mapping[Kind, Mapping[Digest, Collection[Pair]]],
    fractions: Sequence[float],
    seed: int,
) -> dict[Digest, int]:
    """The split of every group, so that each kind of file comes near *fractions* by rows."""
    splits: dict[Digest, int] = {}
    sizes = {kind: {key: len(pairs) for key, pairs in groups[kind].items()} for kind in Kind}
    for kind in Kind:
        splits.update(_assign_kind(sizes[kind], fractions, seed))
    with_pairs = {**sizes[Kind.DIALOGUE], **sizes[Kind.PREPARED]}
    for some in (*sizes.values(), with_pairs, {**with_pairs, **sizes[Kind.BARE]}):
        _fill_empty(splits, some)
    return splits


def _assign_kind(
    sizes: Mapping[Digest, int], fractions: Sequence[float], seed: int
) -> dict[Digest, int]:
    """Each group in turn, in an order drawn by *seed*, goes where most is missing.

    That is: the largest share of what a split should hold, where the group still fits; where it
    fits nowhere, most rows.
    """
    wanted = [part * sum(sizes.values()) for part in fractions]
    missing = list(wanted)
    splits = {}
    for key in sorted(sizes, key=lambda key: _digest(f"{seed} ".encode(), key)):
        fitting = [split for split, rows in enumerate(missing) if rows >= sizes[key]]
        if fitting:
            splits[key] = max(fitting, key=lambda split: missing[split] / wanted[split])
        else:
            splits[key] = missing.index(max(missing))
        missing[splits[key]] -= sizes[key]
    return splits


def _fill_empty(splits: dict[Digest, int], sizes: Mapping[Digest, int]) -> None:
    """Give each split without a group the smallest one of the split with most groups."""
    for split in range(len(SPLITS)):
        held = Counter(splits[key] for key in sizes)
        if len(sizes) < len(SPLITS) or split in held:
            continue
        donor = max(sorted(held), key=lambda split: held[split])
        moved = min((size, key) for key, size in sizes.items() if splits[key] == donor)
        splits[moved[1]] = split


def _rows(
    pool: _Pool, splits: Mapping[Digest, int], tasks: Sequence[Task]
) -> tuple[dict[str, Tensor], list[LeftOut]]:
    """The tensors of the dataset, in an order that only their content decides."""
    sentence_splits = _sentence_splits(pool, splits)
    rows: list[tuple[int, int, Digest, Digest]] = []  # task, split, source, target
    left_out: list[LeftOut] = []
    if Task.RECONSTRUCT in tasks:
        task = TASKS.index(Task.RECONSTRUCT)
        rows += [(task, split, one, one) for one, split in sentence_splits.items()]
    if Task.ANSWER in tasks:
        task = TASKS.index(Task.ANSWER)
        pair_splits, left_out = _pair_splits(pool, splits, sentence_splits)
        rows += [(task, split, *pair) for pair, split in pair_splits.items()]
    rows.sort()
    used = sorted({row[2] for row in rows} | {row[3] for row in rows})
    numbers = {digest: number for number, digest in enumerate(used)}
    tensors = {
        "embeddings": _stack([pool.sentences[digest] for digest in used]),
        "source": torch.tensor([numbers[row[2]] for row in rows], dtype=torch.int64),
        "target": torch.tensor([numbers[row[3]] for row in rows], dtype=torch.int64),
        "task": torch.tensor([row[0] for row in rows], dtype=torch.uint8),
        "split": torch.tensor([row[1] for row in rows], dtype=torch.uint8),
    }
    return tensors, left_out


def _stack(rows: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(rows)) if rows else torch.empty(0, 0)


def _sentence_splits(pool: _Pool, splits: Mapping[Digest, int]) -> dict[Digest, int]:
    """The split of every sentence: the earliest of those of its groups."""
    earliest: dict[Digest, int] = {}
    for groups in pool.groups.values():
        for key, pairs in groups.items():
            for sentence in {part for pair in pairs for part in pair}:
                earliest[sentence] = min(splits[key], earliest.get(sentence, splits[key]))
    return earliest


def _pair_splits(
    pool: _Pool, splits: Mapping[Digest, int], sentence_splits: Mapping[Digest, int]
) -> tuple[dict[Pair, int], list[LeftOut]]:
    """The split of every pair that no sentence ties to another split, and the others counted."""
    kept: dict[Pair, int] = {}
    lost: Counter[tuple[Path, str]] = Counter()
    seen: set[Pair] = set()
    for path, key, pair in sorted(pool.pairs, key=lambda row: splits[row[1]]):
        split = splits[key]
        if pair in seen:
            lost[path, DUPLICATE] += 1
        elif all(sentence_splits[sentence] == split for sentence in pair):
            kept[pair] = split
        else:
            lost[path, OVERLAP] += 1
        seen.add(pair)
    return kept, [LeftOut(path, reason, count) for (path, reason), count in lost.items()]


def _counts(tensors: Mapping[str, Tensor], tasks: Sequence[Task]) -> dict[str, dict[str, int]]:
    codes = Counter(zip(tensors["task"].tolist(), tensors["split"].tolist(), strict=True))
    return {
        str(task): {name: codes[TASKS.index(task), split] for split, name in enumerate(SPLITS)}
        for task in tasks
    }


def _check_counts(
    counts: Mapping[str, Mapping[str, int]],
    groups: Mapping[Kind, Mapping[Digest, Collection[Pair]]],
) -> None:
    for task, rows in counts.items():
        for split, count in rows.items():
            if count:
                continue
            have = (
                f"{len(groups[Kind.DIALOGUE])} dialogues, {len(groups[Kind.PREPARED])} questions "
                f"and {len(groups[Kind.BARE])} lone sentences"
            )
            raise DataError(
                f"task {task}: no rows for the {split} split: at least {len(SPLITS)} groups that "
                f"share no text are needed, got {have}; give more files"
            )


def _source_rows(source: Source) -> SourceRows:
    with source.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceRows(source.path, source.kind, source.rows, source.usable_rows, digest)
