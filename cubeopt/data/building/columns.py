"""The columns of a dataset: which sentence is to become which, in which split.

Shapes: N rows, P pairs, U sentences of the pool, M of them in the dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from cubeopt.data.building.entries import DUPLICATE, NEAR, OVERLAP, Entries, counted
from cubeopt.data.building.pool import Pool
from cubeopt.data.building.splits import Members, Splits
from cubeopt.data.dataset import COLUMNS, TASKS
from cubeopt.data.reading.sources import LeftOut
from cubeopt.trial import Task

_RECONSTRUCT = TASKS.index(Task.RECONSTRUCT)

Numbers = Int[np.ndarray, " N"]


@dataclass(frozen=True, eq=False)
class Columns:
    """What is written, but for the embeddings themselves."""

    sentences: Int[Tensor, " M"]  # of the pool
    tensors: dict[str, Tensor]
    left_out: tuple[LeftOut, ...]
    conflicts: int  # rows of one pair that were labelled differently


def members(rows: Entries, pool: Pool) -> Members:
    """Each distinct row of each group once, for the sharing out."""
    stands, component = pool.stands.numpy(), pool.component.numpy()
    source, target = stands[rows.source], stands[rows.target]
    order = ascending(rows.group, source, target, rows.task, rows.corpus)
    kept = order[_fresh(rows.group[order], source[order], target[order], rows.task[order])]
    return Members(
        rows.group[kept],
        rows.corpus[kept] * len(TASKS) + rows.task[kept],
        component[rows.source[kept]],
        component[rows.target[kept]],
    )


def columns(
    rows: Entries,
    everything: Entries,
    splits: Splits,
    pool: Pool,
    tasks: Sequence[Task],
) -> Columns:
    """The rows of *tasks*, in an order that their content alone decides.

    *everything* are the rows before lone sentences that are known were taken out.
    """
    stands = pool.stands.numpy()
    kept, left_out, conflicts = _pairs(rows, splits, pool, tasks)
    parts = [kept]
    if Task.RECONSTRUCT in tasks:
        parts.append(_sentences(rows, everything, splits, pool))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    order = ascending(*(joined[name] for name in ("task", "split", "source", "target")))
    held = np.zeros(len(stands), dtype=bool)
    held[joined["source"]] = held[joined["target"]] = True
    used = np.flatnonzero(held)
    number = np.full(len(stands), -1)
    number[used] = np.arange(len(used))
    for name in ("source", "target"):
        joined[name] = number[joined[name]]
    tensors = {
        name: torch.from_numpy(joined[name][order]).to(dtype) for name, dtype in COLUMNS.items()
    }
    return Columns(torch.from_numpy(used), tensors, tuple(left_out), conflicts)


def _pairs(
    rows: Entries, splits: Splits, pool: Pool, tasks: Sequence[Task]
) -> tuple[dict[str, Numbers], list[LeftOut], int]:
    """Each distinct pair that no sentence ties to another split; the others, counted."""
    codes = [TASKS.index(task) for task in tasks if task is not Task.RECONSTRUCT]
    rows = rows.at(np.isin(rows.task, codes))
    stands, component = pool.stands.numpy(), pool.component.numpy()
    source, target = stands[rows.source], stands[rows.target]
    split = splits.group[rows.group]
    fits = splits.component[component[source]] == split
    fits &= splits.component[component[target]] == split
    # Of equal pairs one that fits comes first, and exact ones before near ones.
    changed = (source != rows.source) | (target != rows.target)
    order = ascending(rows.task, source, target, ~fits, changed, splits.merged[rows.group])
    rows, source, target, fits = rows.at(order), source[order], target[order], fits[order]
    split, changed = split[order], changed[order]
    fresh = _fresh(rows.task, source, target)
    exact = ~fresh & ~changed
    left_out = counted(rows.file[exact], DUPLICATE, pool)
    left_out += counted(rows.file[~fresh & changed], NEAR, pool)
    left_out += counted(rows.file[fresh & ~fits], OVERLAP, pool)
    label, conflicts = _labels(rows.label, fresh)
    corpus = np.minimum.reduceat(rows.corpus, np.flatnonzero(fresh)) if len(fresh) else rows.corpus
    kept = fits[fresh]
    columns = {
        "source": source[fresh],
        "target": target[fresh],
        "task": rows.task[fresh],
        "split": split[fresh],
        "corpus": corpus,
        "label": label,
        "group": splits.merged[rows.group[fresh]],
    }
    return {name: column[kept] for name, column in columns.items()}, left_out, conflicts


def _labels(label: Numbers, fresh: Bool[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " P"], int]:
    """The label of each run of equal pairs, -1 where known ones differ; how many differ."""
    starts = np.flatnonzero(fresh)
    if not len(starts):
        return starts, 0
    most = np.maximum.reduceat(label, starts)
    unknown = np.iinfo(label.dtype).max
    least = np.minimum.reduceat(np.where(label < 0, unknown, label), starts)
    differ = (most >= 0) & (least != most)
    return np.where(differ, -1, most), int(differ.sum())


def _sentences(
    rows: Entries, everything: Entries, splits: Splits, pool: Pool
) -> dict[str, Numbers]:
    """Each sentence that stands for itself, to itself."""
    stands, component = pool.stands.numpy(), pool.component.numpy()
    kept = np.flatnonzero(stands == np.arange(len(stands)))
    corpus = np.full(len(stands), np.iinfo(np.int64).max)
    group = corpus.copy()
    for side in (everything.source, everything.target):
        np.minimum.at(corpus, stands[side], everything.corpus)
    for side in (rows.source, rows.target):
        # The smallest of the groups that hold it in its split; near ones may be in others.
        own = component[side]
        inside = splits.group[rows.group] == splits.component[own]
        np.minimum.at(group, own[inside], splits.merged[rows.group[inside]])
    return {
        "source": kept,
        "target": kept,
        "task": np.full(len(kept), _RECONSTRUCT),
        "split": splits.component[component[kept]],
        "corpus": corpus[kept],
        "label": np.full(len(kept), -1),
        "group": group[component[kept]],
    }


def ascending(*keys: Shaped[np.ndarray, " N"]) -> Numbers:
    """Places of rows in ascending order of the first of *keys*, of the second where equal, ...

    Stable. No key is negative: keys next to each other are made one number where that can hold
    both, because sorting by few is quicker.
    """
    packed = [keys[0].astype(np.int64)]
    for key in keys[1:]:
        if not len(key):
            break
        span = int(key.max()) + 1
        if (int(packed[-1].max()) + 1) * span < 1 << 63:
            packed[-1] = packed[-1] * span + key
        else:
            packed.append(key)
    return np.lexsort(packed[::-1])


def _fresh(*columns: Numbers) -> Bool[np.ndarray, " N"]:
    """Where sorted *columns* change from the row before."""
    fresh = np.ones(len(columns[0]), dtype=bool)
    fresh[1:] = False
    for column in columns:
        fresh[1:] |= column[1:] != column[:-1]
    return fresh
