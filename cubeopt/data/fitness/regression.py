"""Ridge regression from embeddings to embeddings, its strength chosen on the training rows.

Shapes: N rows, D embedding.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

# In units of the rows' mean squared length: for unit rows the usual absolute numbers.
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, eq=False)
class Products:
    """Sums over pairs of rows: enough for every ridge regression, and for its error on them."""

    count: int
    source: Float64[Tensor, " D"]
    target: Float64[Tensor, " D"]
    within: Float64[Tensor, "D D"]  # source by source
    across: Float64[Tensor, "D D"]  # source by target
    squares: float  # of the targets

    def __add__(self, other: "Products") -> "Products":
        return Products(
            self.count + other.count,
            self.source + other.source,
            self.target + other.target,
            self.within + other.within,
            self.across + other.across,
            self.squares + other.squares,
        )


@dataclass(frozen=True, eq=False)
class Ridge:
    """Target from source: ``target mean + (source - source mean) @ weights``."""

    strength: float
    source_mean: Float64[Tensor, " D"]
    target_mean: Float64[Tensor, " D"]
    weights: Float64[Tensor, "D D"]

    def predict(self, rows: Float32[Tensor, "N D"]) -> Float32[Tensor, "N D"]:
        """What *rows* lead to."""
        return self.target_mean.to(rows) + (rows - self.source_mean.to(rows)) @ self.weights.to(
            rows
        )


def products(
    width: int,
    pieces: Iterable[tuple[Float64[Tensor, "_ D"], Float64[Tensor, "_ D"]]],
) -> Products:
    """Added up in float64, piece by piece."""
    count, squares = 0, 0.0
    source, target = (torch.zeros(width, dtype=torch.float64) for _ in range(2))
    within, across = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    for given, wanted in pieces:
        count += len(given)
        squares += float(wanted.square().sum())
        source += given.sum(0)
        target += wanted.sum(0)
        within.addmm_(given.T, given)
        across.addmm_(given.T, wanted)
    return Products(count, source, target, within, across, squares)


def ridge(most: Products, rest: Products | None) -> Ridge:
    """Fitted on all pairs, with the strength that serves *rest* best when *most* are fitted.

    Where there is no *rest*, the strength is the middle one.
    """
    path = _Path(most)
    if rest is None or rest.count == 0:
        return path.solve(STRENGTHS[len(STRENGTHS) // 2])
    best = min(STRENGTHS, key=lambda strength: _error(path.solve(strength), rest))
    return _Path(most + rest).solve(best)


class _Path:
    """The regressions of all strengths on the same pairs, for one decomposition."""

    def __init__(self, sums: Products) -> None:
        self._source, self._target = sums.source / sums.count, sums.target / sums.count
        self._unit = float(sums.within.trace()) / sums.count  # mean squared length
        centred = sums.within - sums.count * torch.outer(self._source, self._source)
        self._values, self._vectors = torch.linalg.eigh(centred)
        products = sums.across - sums.count * torch.outer(self._source, self._target)
        self._turned = self._vectors.T @ products

    def solve(self, strength: float) -> Ridge:
        # A source that is always zero has nothing to weigh: any divisor will do.
        divisors = self._values.clamp(min=0.0) + (strength * self._unit or 1.0)
        weights = self._vectors @ (self._turned / divisors[:, None])
        return Ridge(strength, self._source, self._target, weights)


def _error(fitted: Ridge, sums: Products) -> float:
    """Sum of squared errors on the pairs of *sums*."""
    shift = fitted.target_mean - fitted.source_mean @ fitted.weights
    led = sums.source @ fitted.weights
    explained = float((fitted.weights * sums.across).sum() + shift @ sums.target)
    size = float((fitted.weights * (sums.within @ fitted.weights)).sum())
    size += float(2.0 * shift @ led + sums.count * shift.square().sum())
    return sums.squares - 2.0 * explained + size
