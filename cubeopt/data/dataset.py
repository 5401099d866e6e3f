"""The dataset folder: written whole or not at all, verified when read.

Shapes: M distinct sentences, N rows of a task, D embedding, B batch.
"""

import ctypes
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cubeopt.errors import DataError
from cubeopt.trial import Task

FORMAT = 1
TENSORS = "embeddings.safetensors"
MANIFEST = "manifest.json"
TASKS = (Task.RECONSTRUCT, Task.ANSWER)  # a task's code in the file is its place here
SPLITS = ("train", "validation", "test")  # so is a split's
_DTYPES = {
    "embeddings": torch.float32,
    "source": torch.int64,
    "target": torch.int64,
    "task": torch.uint8,
    "split": torch.uint8,
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Distinct sentences and, for each task and split, which one is to become which."""

    folder: Path
    fingerprint: str
    manifest: Mapping[str, Any]
    embeddings: Float[Tensor, "M D"]
    rows: Mapping[str, Tensor]  # source, target, task and split of every row

    def pairs(self, task: Task, split: str) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
        """Row numbers in the embeddings: inputs and what they are to become."""
        self._check(task)
        wanted = self.rows["task"] == TASKS.index(task)
        wanted &= self.rows["split"] == SPLITS.index(split)
        return self.rows["source"][wanted], self.rows["target"][wanted]

    def counts(self, task: Task) -> dict[str, int]:
        """Rows of *task* in each split."""
        return {split: len(self.pairs(task, split)[0]) for split in SPLITS}

    def _check(self, task: Task) -> None:
        if task not in self.manifest["tasks"]:
            raise DataError(
                f"{self.folder}: no rows for the task {task}, only for "
                f"{', '.join(self.manifest['tasks'])}; build it again with --task {task} or both"
            )


def batch_rows(count: int, batch_size: int, seed: int, epoch: int) -> Int[Tensor, "steps B"]:
    """The order in which *epoch* visits *count* rows, as full batches.

    The last batch is filled up from the start of the same order.
    """
    assert count > 0, "an empty split has no order"
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    order = torch.randperm(count, generator=generator)
    steps = -(-count // batch_size)
    return order[torch.arange(steps * batch_size) % count].view(steps, batch_size)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Of the content alone: names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load(folder: Path) -> Dataset:
    """Read the dataset in *folder*; DataError when it is missing, damaged or of another format."""
    manifest = _read_manifest(folder)
    if manifest["format"] != FORMAT:
        raise DataError(
            f"{folder}: dataset format {manifest['format']!r}, but this version reads {FORMAT}; "
            "build it again"
        )
    try:
        tensors = load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: damaged dataset: {TENSORS}: {error}") from error
    if fingerprint(tensors) != manifest["fingerprint"]:
        raise DataError(
            f"{folder}: damaged dataset: its content is not what its fingerprint says; "
            "build it again"
        )
    if not _well_formed(tensors):
        raise DataError(f"{folder}: damaged dataset: its tensors do not fit together")
    embeddings = tensors.pop("embeddings")
    return Dataset(folder, manifest["fingerprint"], manifest, embeddings, tensors)


def _read_manifest(folder: Path) -> dict[str, Any]:
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


def _well_formed(tensors: Mapping[str, Tensor]) -> bool:
    if {name: tensor.dtype for name, tensor in tensors.items()} != _DTYPES:
        return False
    embeddings, *columns = (tensors[name] for name in _DTYPES)
    if embeddings.ndim != 2 or {column.shape for column in columns} != {columns[0].shape}:
        return False
    limits = (len(embeddings), len(embeddings), len(TASKS), len(SPLITS))
    return columns[0].ndim == 1 and all(
        bool(((column >= 0) & (column < limit)).all())
        for column, limit in zip(columns, limits, strict=True)
    )


def write(folder: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> bool:
    """Put a dataset at *folder* in one step; False when the same one already stands there."""
    check_place(folder)
    if _holds(folder, manifest["fingerprint"]):
        return False
    folder = folder.resolve()
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        save_file(dict(tensors), fresh / TENSORS)
        (fresh / TENSORS).chmod(0o644)  # safetensors makes it readable to its owner alone
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in (fresh / TENSORS, fresh / MANIFEST, fresh):
            _sync(path)
        _put(fresh, folder)
        _sync(folder.parent)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}") from error
    except SafetensorError as error:
        raise DataError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # what failed, or what was replaced
    return True


def check_place(folder: Path) -> None:
    """Refuse a *folder* whose replacement would destroy anything but a dataset."""
    try:
        held = {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}") from error
    if not held:
        return
    if MANIFEST not in held or held - {MANIFEST, TENSORS}:
        other = min(held - {MANIFEST, TENSORS}, default=TENSORS)
        raise DataError(
            f"{folder} is not a dataset folder (it holds {other}); "
            "choose a folder that does not exist yet"
        )
    _read_manifest(folder)


def _holds(folder: Path, wanted: str) -> bool:
    try:
        return load(folder).fingerprint == wanted
    except DataError:
        return False


def _put(fresh: Path, folder: Path) -> None:
    """Give *fresh* the name *folder*; what had it before is found at *fresh* afterwards."""
    if not folder.exists() or not any(folder.iterdir()):
        os.rename(fresh, folder)
    elif not _exchange(fresh, folder):
        old = fresh.with_name(f"{fresh.name}.old")
        os.rename(folder, old)
        try:
            os.rename(fresh, folder)
        except OSError:
            os.rename(old, folder)
            raise
        os.rename(old, fresh)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, where system and file system can."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and not renameat2(
        here, os.fsencode(one), here, os.fsencode(other), exchange
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
