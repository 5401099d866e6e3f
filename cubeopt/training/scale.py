"""The units of the loss: embeddings as the cube sees them, and back.

M distinct sentences, N rows, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cubeopt.data.normalisation import Normalisation
from cubeopt.errors import DataError

_PIECE_BYTES = 1 << 25  # of float64 at a time
_ROUNDING = 1e-12  # relative: what adding up in float64 can make of rows that are all equal


@dataclass(frozen=True, eq=False)
class Scale:
    """Standardisation of embeddings: (x - mean) / deviation.

    The deviation is the same for all D numbers, except in a dataset built with ``standardise``,
    where each number has its own. Either way a mean squared error in these units is a fraction of
    variance unexplained: 1 is as good as predicting the mean.
    """

    mean: Float[Tensor, " D"]
    deviation: Float[Tensor, " D"]

    def apply(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return (x - self.mean) / self.deviation

    def undo(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return x * self.deviation + self.mean

    def to(self, device: torch.device) -> "Scale":
        return Scale(self.mean.to(device), self.deviation.to(device))


def fit(
    embeddings: Float[Tensor, "M D"],
    sides: Sequence[Int64[Tensor, " N"]],
    normalisation: Normalisation,
) -> list[Scale]:
    """For each of *sides* (row numbers) the scale that gives it mean 0 and mean square 1.

    In float64, sentence after sentence: the table may be larger than memory.
    """
    counts = [torch.bincount(side, minlength=len(embeddings)).double() for side in sides]
    times = torch.stack(counts)
    totals = times.sum(1, keepdim=True)
    width = embeddings.shape[1]
    size = max(1, _PIECE_BYTES // (8 * width))
    pieces = list(zip(embeddings.split(size), times.split(size, dim=1), strict=True))
    means = torch.zeros(len(sides), width, dtype=torch.float64)
    for piece, each in pieces:
        means += each @ piece.double()
    means /= totals
    squares = torch.zeros_like(means)
    for piece, each in pieces:
        for mean, square, part in zip(means, squares, each, strict=True):
            square += part @ (piece.double() - mean).square()
    squares /= totals
    return [
        _scale(mean, square, normalisation) for mean, square in zip(means, squares, strict=True)
    ]


def _scale(
    mean: Float[Tensor, " D"], variance: Float[Tensor, " D"], normalisation: Normalisation
) -> Scale:
    unit = normalisation.deviation
    unit = torch.ones_like(mean) if unit is None else unit.to(mean)
    common = (variance / unit.square()).mean().sqrt()
    size = (mean / unit).square().mean().sqrt()
    if not bool(common > _ROUNDING * size):
        raise DataError("all training rows are equal: there is nothing to learn from them")
    return Scale(mean, unit * common)
