"""How many sentences have a near copy, in their own split and in another one.

Exact cosines of every sentence looked at against every sentence it is compared with; the work is
bounded by drawing both.

Shapes: N sentences, Q sentences looked at, D embedding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from cubeopt.data.dataset import SPLITS, Dataset
from cubeopt.data.fitness import excerpt
from cubeopt.data.fitness.excerpt import Excerpt

THRESHOLDS = (0.999, 0.99, 0.95)
COMPARED = 100_000  # sentences of all splits that others are compared with, at most
PRODUCTS = 1_000_000_000  # cosines, at most: about ten seconds on one core
_BLOCK = 4096  # sentences on a side of one matrix of cosines


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of the sentences of one split."""

    split: str
    sentences: int
    looked_at: int
    compared_with: int  # sentences of all splits
    within: dict[str, int]  # by threshold: how many have a neighbour as near in their own split
    across: dict[str, int]  # and in another split


def neighbours(
    dataset: Dataset, splits: Mapping[str, Excerpt], step: Callable[[float], None]
) -> list[Neighbours]:
    """Of each split, by brute force; *step* is told the share that is done."""
    total = sum(map(len, splits.values()))
    base = {name: each.drawn(_share(COMPARED, len(each), total)) for name, each in splits.items()}
    compared = sum(map(len, base.values()))
    asked = {
        name: each.drawn(max(1, PRODUCTS // max(1, compared) // len(SPLITS)))
        if compared * compared > PRODUCTS
        else each
        for name, each in base.items()
    }
    nearest = _Nearest(dataset, asked)
    seen = 0
    for name, each in base.items():
        for part in each.rows.split(_BLOCK):
            nearest.compare(name, part)
            seen += len(part)
            step(seen / compared)
    return [
        Neighbours(
            name,
            splits[name].of,
            len(asked[name]),
            compared,
            _counts(nearest.within[name]),
            _counts(nearest.across[name]),
        )
        for name in splits
    ]


def _share(limit: int, count: int, total: int) -> int:
    """As many of *count* as are due to it when *limit* of *total* are drawn."""
    return count if total <= limit else max(1, limit * count // total)


class _Nearest:
    """The highest cosine met so far, for each sentence looked at."""

    def __init__(self, dataset: Dataset, asked: Mapping[str, Excerpt]) -> None:
        self._dataset, self._asked = dataset, asked
        self._units = {name: self._unit(each.rows) for name, each in asked.items()}
        self.within = {name: torch.full((len(each),), -1.0) for name, each in asked.items()}
        self.across = {name: best.clone() for name, best in self.within.items()}

    def compare(self, split: str, rows: Int64[Tensor, " N"]) -> None:
        """Against sentences of *split*; a sentence is no neighbour of itself in its own split."""
        if not len(rows):
            return
        units = self._unit(rows)
        for name, asked in self._asked.items():
            best = self.within[name] if name == split else self.across[name]
            for first in range(0, len(asked), _BLOCK):
                part = slice(first, first + _BLOCK)
                cosines = self._units[name][part] @ units.T
                if name == split:
                    cosines[asked.rows[part, None] == rows] = -1.0
                best[part] = torch.maximum(best[part], cosines.amax(1))

    def _unit(self, rows: Int64[Tensor, " N"]) -> Float32[Tensor, "N D"]:
        return excerpt.unit(excerpt.numbers(self._dataset, rows))


def _counts(nearest: Float32[Tensor, " Q"]) -> dict[str, int]:
    return {str(threshold): int((nearest >= threshold).sum()) for threshold in THRESHOLDS}
