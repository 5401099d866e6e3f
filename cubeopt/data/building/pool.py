"""The sentences of all files, known by what they are: equal and nearly equal ones are one.

A *sentence* is known by the digest of its row as float32, and its number is its digest's place
among all, so that neither names nor order of files decide anything. Sentences that are nearly
equal, over any number of steps, are a *component*, whose number is that of its first sentence.

Shapes: N rows of a file, O occurrences of sentences, U distinct ones, K some of them, D embedding.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float, Int, UInt64
from torch import Tensor

from cubeopt.data.building import duplicates
from cubeopt.data.reading.sources import Source

DIGEST_BYTES = 16
_PIECE_BYTES = 1 << 23
_TAKEN = 256  # rows of a file fetched at a time

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


@dataclass(frozen=True)
class _Side:
    """One side of one file, whose occurrences begin at *start*."""

    source: Source
    number: int
    start: int


@dataclass(frozen=True, eq=False)
class Sentences:
    """The distinct sentences, read from the files when they are asked for."""

    sides: tuple[_Side, ...]
    where: Int[Tensor, " U"]  # the first occurrence of each

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, numbers: Int[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """The float32 rows of *numbers*."""
        places = self.where[numbers].numpy()
        order = np.argsort(places, kind="stable")
        starts = np.array([side.start for side in self.sides])
        held = np.searchsorted(starts, places[order], side="right") - 1
        cuts = np.flatnonzero(np.diff(held)) + 1
        rows = np.empty((len(places), self.sides[0].source.width), dtype=np.float32)
        # A few at a time, so that they are still in the cache when they get their place.
        ends = sorted({*cuts.tolist(), *range(_TAKEN, len(places), _TAKEN), len(places)} - {0})
        for begin, end in itertools.pairwise([0, *ends]):
            side, into = self.sides[held[begin]], order[begin:end]
            source = side.source
            some = source.good[torch.from_numpy(places[into] - side.start)]
            rows[into] = source.side(side.number, some).numpy()
        return torch.from_numpy(rows)


@dataclass(frozen=True, eq=False)
class Pool:
    """All sentences of all files, and which of them count as one."""

    sources: tuple[Source, ...]
    sentences: Sentences
    digests: UInt64[np.ndarray, "U 2"]  # ascending
    numbers: tuple[tuple[Int[Tensor, " _"], ...], ...]  # of each usable row, by source and side
    stands: Int[Tensor, " U"]  # the sentence that stands for each
    component: Int[Tensor, " U"]  # the first sentence that each is tied to


def gather(sources: Sequence[Source], near: float | None, progress: Progress) -> Pool:
    """Know every sentence of *sources*; those with a cosine of *near* or more count as one."""
    sides = []
    start = 0
    for source in sources:
        for number in range(len(source.sides)):
            sides.append(_Side(source, number, start))
            start += source.usable_rows
    digests = _digests(sides, start, progress)
    order, fresh = _ordered(digests)
    of_occurrence = np.empty(start, dtype=np.int64)
    of_occurrence[order] = np.cumsum(fresh) - 1
    sentences = Sentences(tuple(sides), torch.from_numpy(order[fresh]))
    pairs = torch.empty(0, 2, dtype=torch.int64)
    if near is not None:
        pairs = duplicates.near(
            sentences,
            near,
            order=torch.from_numpy(np.argsort(sentences.where.numpy())),
            progress=lambda done, total: progress("looking for near duplicates", done, total),
        )
    return Pool(
        tuple(sources),
        sentences,
        digests[order[fresh]],
        _by_source(sources, torch.from_numpy(of_occurrence)),
        duplicates.representatives(len(sentences), pairs),
        duplicates.components(len(sentences), pairs),
    )


def _ordered(
    digests: UInt64[np.ndarray, "O 2"],
) -> tuple[Int[np.ndarray, " O"], Bool[np.ndarray, " O"]]:
    """Stable places of ascending *digests*, and where each of equal ones comes for the first time.

    Their first halves nearly always tell, and sorting these and then numbers is ten times quicker.
    """
    first, second = (np.ascontiguousarray(half) for half in digests.T)
    order = np.argsort(first)
    fresh = np.append(True, np.diff(first[order]) != 0)
    both = (np.cumsum(fresh) - 1) * len(order) + order
    both.sort()
    order = both % len(order)
    seconds = second[order]
    if not fresh.all() and (~fresh[1:] & (seconds[1:] != seconds[:-1])).any():
        order = np.lexsort((second, first))
        changed = (half[order][1:] != half[order][:-1] for half in (first, second))
        fresh = np.append(True, np.logical_or(*changed))
    return order, fresh


def _by_source(
    sources: Sequence[Source], numbers: Int[Tensor, " O"]
) -> tuple[tuple[Int[Tensor, " _"], ...], ...]:
    lengths = [source.usable_rows for source in sources for _ in source.sides]
    parts = iter(numbers.split(lengths))
    return tuple(tuple(next(parts) for _ in source.sides) for source in sources)


def _digests(sides: Sequence[_Side], count: int, progress: Progress) -> UInt64[np.ndarray, "O 2"]:
    """Of every occurrence; the next rows are fetched while those before are hashed."""
    parts = [
        (side, rows) for side in sides for rows in side.source.good.split(_piece_rows(side.source))
    ]
    digests = bytearray()
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(side.source.side, side.number, rows) for side, rows in parts[:2]]
        for following in [*parts[2:], None, None][: len(parts)]:
            piece = coming.pop(0).result()
            if following is not None:
                side, rows = following
                coming.append(reader.submit(side.source.side, side.number, rows))
            digests += _row_digests(piece)
            progress("hashing rows", len(digests) // DIGEST_BYTES, count)
    found = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)
    return found.astype(np.uint64)  # big-endian, so that numbers are in the order of the bytes


def _piece_rows(source: Source) -> int:
    return max(1, _PIECE_BYTES // (4 * source.width))


def _row_digests(rows: Float[Tensor, "K D"]) -> bytes:
    return b"".join(map(xxhash.xxh3_128_digest, rows.contiguous().numpy()))
