"""The dataset folder, read: distinct sentences, and rows that say which is to become which.

``embeddings.npy`` holds the sentences (read as a memory map), ``rows.safetensors`` the columns,
``manifest.json`` the names and where everything came from. The *fingerprint* is of the content
alone, and it is checked whenever a folder is read.

Shapes: M distinct sentences, N rows, D embedding.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float, Int16, Int64, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cubeopt.data.normalisation import NAMES, Normalisation
from cubeopt.errors import DataError
from cubeopt.trial import Task

FORMAT = 3
EMBEDDINGS = "embeddings.npy"
ROWS = "rows.safetensors"
MANIFEST = "manifest.json"
FILES = (EMBEDDINGS, ROWS, MANIFEST)
TASKS = tuple(Task)  # a task's code in the file is its place here
SPLITS = ("train", "validation", "test")  # so is a split's
COLUMNS = {
    "source": torch.int64,
    "target": torch.int64,
    "task": torch.uint8,
    "split": torch.uint8,
    "corpus": torch.uint8,
    "label": torch.int16,
    "group": torch.int64,
}
# What the manifest says that is content: it decides, with the tensors, the fingerprint.
NAMED = ("format", "tasks", "corpora", "label_names", "weights", "normalisation")
_PIECE_BYTES = 1 << 24  # hashed at a time
_MISFIT = "damaged dataset: its tensors do not fit together"


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a dataset: row numbers in its embeddings, and what is known of each."""

    source: Int64[Tensor, " N"]
    target: Int64[Tensor, " N"]
    task: UInt8[Tensor, " N"]  # its place in TASKS
    corpus: UInt8[Tensor, " N"]  # its place in the dataset's corpora
    label: Int16[Tensor, " N"]  # its place in the label names of the task; -1: none
    group: Int64[Tensor, " N"]  # rows of one group stand in one split

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class _Names:
    corpora: tuple[str, ...]
    tasks: tuple[Task, ...]
    label_names: Mapping[Task, tuple[str, ...]]
    weights: Mapping[str, float]
    normalisation: str
    norm: float | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Distinct sentences and, for each task and split, which one is to become which."""

    folder: Path
    fingerprint: str
    manifest: Mapping[str, Any]
    embeddings: Float[Tensor, "M D"]  # a memory map where it was loaded, in the dtype stored
    columns: Mapping[str, Tensor]  # the names and dtypes of COLUMNS
    corpora: tuple[str, ...]
    tasks: tuple[Task, ...]
    label_names: Mapping[Task, tuple[str, ...]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)  # of mixing, for every corpus
    normalisation: Normalisation = field(default_factory=Normalisation)

    def rows(self, tasks: Sequence[Task], split: str) -> Rows:
        """The rows of *tasks* in *split*, in the order in which they are stored."""
        wanted = self._of(tasks) & (self.columns["split"] == SPLITS.index(split))
        return Rows(**{name: self.columns[name][wanted] for name in COLUMNS if name != "split"})

    def counts(self, tasks: Sequence[Task]) -> dict[str, int]:
        """Rows of *tasks* in each split."""
        splits = self.columns["split"][self._of(tasks)]
        return {name: int((splits == code).sum()) for code, name in enumerate(SPLITS)}

    def _of(self, tasks: Sequence[Task]) -> Bool[Tensor, " N"]:
        assert tasks, "rows are of at least one task"
        for task in tasks:
            if task not in self.tasks:
                raise DataError(
                    f"{self.folder}: no rows for the task {task}, only for "
                    f"{', '.join(self.tasks)}; give one of these, or build a dataset with it"
                )
        codes = torch.tensor([TASKS.index(task) for task in tasks], dtype=torch.uint8)
        return torch.isin(self.columns["task"], codes)

    def of_corpus(self, name: str) -> "Dataset":
        """The rows of one corpus alone."""
        mine = self.columns["corpus"] == self.corpora.index(name)
        return replace(self, columns={key: column[mine] for key, column in self.columns.items()})


def task_groups(task: UInt8[Tensor, " N"], tasks: Sequence[Task]) -> dict[str, Bool[Tensor, " N"]]:
    """All rows, and of several *tasks* those of each, by what names of their metrics end with."""
    groups = {"": torch.ones_like(task, dtype=torch.bool)}
    if len(tasks) > 1:
        groups |= {f"/{each}": task == TASKS.index(each) for each in tasks}
    return groups


def load(folder: Path) -> Dataset:
    """Read the dataset in *folder*; DataError when it is missing, damaged or of another format."""
    manifest = read_manifest(folder)
    if manifest["format"] != FORMAT:
        raise DataError(
            f"{folder}: dataset format {manifest['format']!r}, but this version reads {FORMAT}; "
            "build it again"
        )
    names = _names(folder, manifest)
    embeddings = _embeddings(folder)
    tensors = _tensors(folder)
    if not _well_formed(embeddings, tensors, names):
        raise DataError(f"{folder}: {_MISFIT}")
    pieces = _threaded_digests(embeddings)
    found = fingerprint(manifest, embeddings.shape, embeddings.dtype, pieces, tensors)
    if found != manifest["fingerprint"]:
        raise DataError(
            f"{folder}: damaged dataset: its content is not what its fingerprint says; "
            "build it again"
        )
    mean, deviation = tensors.pop("mean", None), tensors.pop("deviation", None)
    return Dataset(
        folder,
        found,
        manifest,
        embeddings,
        tensors,
        names.corpora,
        names.tasks,
        names.label_names,
        names.weights,
        Normalisation(names.normalisation, mean, deviation, names.norm),
    )


def fingerprint(
    manifest: Mapping[str, Any],
    shape: Sequence[int],
    dtype: torch.dtype,
    pieces: Iterable[bytes],
    tensors: Mapping[str, Tensor],
) -> str:
    """Of the content alone: names, types, shapes and numbers.

    *shape*, *dtype* and the digests of *pieces* are those of the embeddings, which need not be in
    memory.
    """
    total = hashlib.sha256()
    named = {name: manifest[name] for name in NAMED}
    total.update(json.dumps([named, list(shape), str(dtype)], sort_keys=True).encode())
    for piece in pieces:
        total.update(piece)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def piece_rows(width: int, dtype: torch.dtype) -> int:
    """Rows of embeddings that are hashed together, the last piece's apart."""
    return max(1, _PIECE_BYTES // (width * dtype.itemsize))


def piece_digest(rows: Float[Tensor, "_ D"]) -> bytes:
    """Of the bytes of *rows*, which must be contiguous."""
    return xxhash.xxh3_128_digest(rows.view(torch.uint8).numpy().data)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of any format in *folder*, a dictionary with format, fingerprint and tasks."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{folder}: no dataset there; make one with: cubeopt data build PATH... --out {folder}"
        ) from error
    except OSError as error:
        raise DataError(f"{folder}: cannot read {MANIFEST}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{folder}: damaged dataset: {MANIFEST} is not JSON") from error
    if not isinstance(manifest, dict) or not {"format", "fingerprint", "tasks"} <= set(manifest):
        raise DataError(f"{folder}: {MANIFEST} is not that of a dataset")
    return manifest


def _names(folder: Path, manifest: Mapping[str, Any]) -> _Names:
    """What the manifest says, with its types; a file that a person changed may say anything."""
    try:
        normalisation = manifest["normalisation"]
        return _Names(
            tuple(str(name) for name in manifest["corpora"]),
            tuple(Task(task) for task in manifest["tasks"]),
            {Task(task): tuple(names) for task, names in manifest["label_names"].items()},
            {str(name): float(weight) for name, weight in manifest["weights"].items()},
            NAMES[NAMES.index(normalisation["name"])],
            None if normalisation["norm"] is None else float(normalisation["norm"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder}: damaged dataset: {MANIFEST}: {_said(error)}") from error


def _embeddings(folder: Path) -> Float[Tensor, "M D"]:
    try:
        # Mode "c": torch wants what it could write to, and what it wrote would stay in memory.
        table = np.load(folder / EMBEDDINGS, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder}: damaged dataset: {EMBEDDINGS}: {_said(error)}") from error
    fit = isinstance(table, np.ndarray) and table.dtype.str in ("<f4", "<f2")
    if not fit or table.ndim != 2 or 0 in table.shape or not table.flags.c_contiguous:
        raise DataError(f"{folder}: {_MISFIT}")
    return torch.from_numpy(table)


def _tensors(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / ROWS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: damaged dataset: {ROWS}: {_said(error)}") from error


def _said(error: Exception) -> str:
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return message.splitlines()[0]


def _threaded_digests(embeddings: Float[Tensor, "M D"]) -> Iterator[bytes]:
    pieces = embeddings.split(piece_rows(embeddings.shape[1], embeddings.dtype))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(piece_digest, pieces)


def _well_formed(
    embeddings: Float[Tensor, "M D"], tensors: Mapping[str, Tensor], names: _Names
) -> bool:
    if (names.norm is not None) != (names.normalisation == "l2"):
        return False
    scale: dict[str, torch.dtype] = {}
    if names.normalisation == "standardise":
        scale = dict.fromkeys(("mean", "deviation"), torch.float64)
    if {name: tensor.dtype for name, tensor in tensors.items()} != COLUMNS | scale:
        return False
    columns = [tensors[name] for name in COLUMNS]
    if columns[0].ndim != 1 or {column.shape for column in columns} != {columns[0].shape}:
        return False
    if any(tensors[name].shape != embeddings.shape[1:] for name in scale):
        return False
    limits = {
        **dict.fromkeys(("source", "target"), len(embeddings)),
        **{"task": len(TASKS), "split": len(SPLITS), "corpus": len(names.corpora)},
    }
    return all(
        bool(((tensors[name] >= 0) & (tensors[name] < limit)).all())
        for name, limit in limits.items()
    )
