"""Which sentences and pairs of a dataset are measured, and their numbers as the cube sees them.

What is too much to measure is drawn, always the same of the same dataset.

Shapes: N rows, D embedding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from cubeopt.data.dataset import SPLITS, Dataset, Rows
from cubeopt.trial import Task

_PIECE = 8192  # rows held in float64 at a time
_SEED = 20_261_123


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Distinct sentences of one split, or those drawn from them."""

    rows: Int64[Tensor, " N"]  # in the dataset's embeddings, ascending
    groups: Int64[Tensor, " N"]
    of: int  # how many there are

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, wanted: Bool[Tensor, " N"]) -> "Excerpt":
        """Those that are *wanted*."""
        return replace(self, rows=self.rows[wanted], groups=self.groups[wanted])

    def drawn(self, limit: int) -> "Excerpt":
        """At most *limit* of them, by chance."""
        chosen = draw(len(self), limit)
        return replace(self, rows=self.rows[chosen], groups=self.groups[chosen])


def generator(salt: int = 0) -> torch.Generator:
    """Chance that is the same in every run; another *salt*, another chance."""
    return torch.Generator().manual_seed(_SEED + salt)


def draw(count: int, limit: int) -> Int64[Tensor, " N"]:
    """At most *limit* of *count* places, by chance, ascending."""
    if count <= limit:
        return torch.arange(count)
    return torch.randperm(count, generator=generator())[:limit].sort().values


def sentences(dataset: Dataset, split: str) -> Excerpt:
    """Every sentence that a row of *split* gives or asks for, once, whatever the task."""
    within = dataset.columns["split"] == SPLITS.index(split)
    rows = torch.cat([dataset.columns[side][within] for side in ("source", "target")])
    groups = dataset.columns["group"][within].repeat(2)
    rows, order = rows.sort(stable=True)
    first = torch.ones(len(rows), dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    return Excerpt(rows[first], groups[order][first], int(first.sum()))


def pairs(dataset: Dataset, task: Task, split: str, limit: int) -> Rows:
    """At most *limit* rows of *task* in *split*."""
    return chosen(
        rows := dataset.rows([task], split),
        draw(len(rows), limit),
    )


def chosen(rows: Rows, places: Int64[Tensor, " K"] | Bool[Tensor, " N"]) -> Rows:
    """The rows at these *places*, all columns of them."""
    return Rows(**{each.name: getattr(rows, each.name)[places] for each in fields(rows)})


def held_out(groups: Int64[Tensor, " N"], share: float, salt: int = 0) -> Bool[Tensor, " N"]:
    """True for whole groups, drawn until they hold *share* of the rows; never for all groups."""
    _, which, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    order = torch.randperm(len(sizes), generator=generator(salt))
    before = sizes[order].cumsum(0) - sizes[order]
    taken = torch.zeros(len(sizes), dtype=torch.bool)
    taken[order[before < share * len(groups)]] = True
    if len(sizes) > 0 and bool(taken.all()):
        taken[order[-1]] = False
    return taken[which]


def numbers(dataset: Dataset, rows: Int64[Tensor, " N"]) -> Float32[Tensor, "N D"]:
    """Sentences as the cube is given them: with the dataset's normalisation."""
    return dataset.normalisation.apply(dataset.embeddings[rows].float())


def pieces(
    dataset: Dataset, rows: Int64[Tensor, " N"], size: int = _PIECE
) -> Iterator[Float64[Tensor, "_ D"]]:
    """The same in float64, a part at a time."""
    for part in rows.split(size):
        yield numbers(dataset, part).double()


def unit(rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Rows of length 1; a row of zeros stays one."""
    return torch.nn.functional.normalize(rows, dim=1)
