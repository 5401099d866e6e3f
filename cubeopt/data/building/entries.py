"""What the files ask, row by row: which sentence is to become which, and what it is grouped with.

Sentences are numbered as in the pool. A raw *group* is what one file says must stay together: a
dialogue, the pairs of one question, what the file's own groups say, or a lone sentence; questions
and lone sentences are known by their component, so that near duplicates are of one group.

Shapes: N rows, G raw groups.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

from cubeopt.data.building.pool import DIGEST_BYTES, Pool
from cubeopt.data.dataset import TASKS
from cubeopt.data.reading.sources import Kind, LeftOut, Source
from cubeopt.trial import Task

DUPLICATE = "duplicate: the same embeddings stand in the dataset already"
NEAR = "near duplicate: almost the same embeddings stand in the dataset already"
OVERLAP = "overlap: a sentence of the pair stands in another split"

Numbers = Int[np.ndarray, " N"]


@dataclass(frozen=True, eq=False)
class Entries:
    """Columns of one length; every row is one usable row of a file."""

    file: Numbers  # its place among the sources
    source: Numbers  # sentences as they stand in the file
    target: Numbers
    task: Numbers  # its place in TASKS
    corpus: Numbers  # its place among the corpora
    label: Numbers
    group: Numbers

    def at(self, rows: Shaped[np.ndarray, " N"]) -> "Entries":
        """Some of the rows, by their numbers or by a mask."""
        return Entries(**{name: column[rows] for name, column in vars(self).items()})


def entries(pool: Pool, corpora: Sequence[str]) -> tuple[Entries, UInt64[np.ndarray, " G"]]:
    """All rows of all files, and for each group a number that depends on its content alone."""
    digests = np.ascontiguousarray(pool.digests).astype(">u8")
    component = pool.component.numpy()
    parts: list[dict[str, Numbers]] = []
    keys: list[bytes] = []  # of the groups that are no component, by their number
    for index, source in enumerate(pool.sources):
        sides = [side.numpy() for side in pool.numbers[index]]
        group = component[sides[0]]
        own = _own_groups(source)
        if own is not None:
            group = len(component) + len(keys) + own
            keys += _keys(sides, own, digests)
        labels = np.full(len(group), -1)
        if source.labels is not None:
            labels = source.labels[source.good].numpy()
        parts.append(
            {
                "file": np.full(len(group), index),
                "source": sides[0],
                "target": sides[-1],
                "task": np.full(len(group), TASKS.index(source.task)),
                "corpus": np.full(len(group), corpora.index(source.corpus)),
                "label": labels,
                "group": group,
            }
        )
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # Groups of equal content, be it from copies of one file, are one.
    distinct, place = np.unique(np.array(keys, dtype=f"S{DIGEST_BYTES}"), return_inverse=True)
    number = np.concatenate([np.arange(len(component)), len(component) + place])
    columns["group"] = number[columns["group"]]
    heads = np.frombuffer(b"".join(key.ljust(DIGEST_BYTES, b"\0") for key in distinct), dtype=">u8")
    content = np.concatenate([pool.digests[:, 0], heads[::2].astype(np.uint64)])
    return Entries(**columns), content


def _own_groups(source: Source) -> Numbers | None:
    """The group of each usable row within its file, from 0; None where its component decides."""
    if source.groups is not None:
        groups = source.groups[source.good].numpy()
        return np.unique(groups, return_inverse=True)[1].astype(np.int64)
    if source.kind is Kind.DIALOGUE:
        return np.zeros(source.usable_rows, dtype=np.int64)
    return None


def _keys(
    sides: Sequence[Numbers], own: Numbers, digests: Shaped[np.ndarray, "U 2"]
) -> list[bytes]:
    """A digest for each group of a file: of its sentences, row by row."""
    order = np.argsort(own, kind="stable")
    content = np.stack([digests[side[order]] for side in sides], axis=1)
    cuts = np.cumsum(np.bincount(own))[:-1]
    return [
        hashlib.sha256(b"group" + part.tobytes()).digest()[:DIGEST_BYTES]
        for part in np.split(content, cuts)
    ]


def without_known(rows: Entries, pool: Pool) -> tuple[Entries, list[LeftOut]]:
    """*rows* without lone sentences that a pair or an earlier lone one holds, and these counted.

    A lone sentence of which a pair holds all but the same needs no group of its own, which could
    only pull the pair's sentence into another split.
    """
    lone = rows.task == TASKS.index(Task.RECONSTRUCT)
    stands = pool.stands.numpy()
    paired = np.concatenate([rows.source[~lone], rows.target[~lone]])
    places = np.flatnonzero(lone)
    exact = np.isin(rows.source[places], paired) | _seen(rows.source[places])
    near = np.isin(stands[rows.source[places]], stands[paired]) | _seen(stands[rows.source[places]])
    left_out = counted(rows.file[places[exact]], DUPLICATE, pool)
    left_out += counted(rows.file[places[near & ~exact]], NEAR, pool)
    component = pool.component.numpy()
    tied = np.isin(component[rows.source[places]], component[paired])
    keep = ~lone
    keep[places[~(near | tied)]] = True
    return rows.at(keep), left_out


def counted(file: Numbers, reason: str, pool: Pool) -> list[LeftOut]:
    """Rows left out by design, by their file."""
    return [
        LeftOut(pool.sources[index].path, reason, count, fault=False)
        for index, count in sorted(Counter(file.tolist()).items())
    ]


def _seen(values: Numbers) -> Bool[np.ndarray, " N"]:
    """Which of *values* stand there earlier, too."""
    earlier = np.ones(len(values), dtype=bool)
    earlier[np.unique(values, return_index=True)[1]] = False
    return earlier
