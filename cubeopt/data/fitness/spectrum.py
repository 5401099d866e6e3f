"""How the variance of embeddings is spread, and what is left of them through K numbers.

*fvu*, the fraction of variance unexplained, is the sum of squared errors over the sum of squared
distances to the mean of the training rows.

Shapes: N rows, D embedding, K numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.fitness import excerpt


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows: enough for the mean, the covariance and every PCA's error on them."""

    count: int
    total: Float64[Tensor, " D"]
    squares: Float64[Tensor, "D D"]  # of the rows, not centred
    directions: Float64[Tensor, " D"]  # sum of the rows, each at length 1

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.directions + other.directions,
        )

    @property
    def mean(self) -> Float64[Tensor, " D"]:
        return self.total / self.count

    def about(self, point: Float64[Tensor, " D"]) -> Float64[Tensor, "D D"]:
        """Mean products of the rows' distances to *point*."""
        mean = self.mean
        covariance = self.squares / self.count - torch.outer(mean, mean)
        return covariance + torch.outer(mean - point, mean - point)


@dataclass(frozen=True, eq=False)
class Axes:
    """The principal axes of some rows, those of most variance first."""

    mean: Float64[Tensor, " D"]
    values: Float64[Tensor, " D"]  # variance along each axis
    vectors: Float64[Tensor, "D D"]  # an axis a column

    def encode(self, rows: Float32[Tensor, "N D"], width: int) -> Float32[Tensor, "N K"]:
        """The first *width* numbers of each row."""
        return (rows - self.mean.to(rows)) @ self.vectors[:, :width].to(rows)

    def decode(self, codes: Float32[Tensor, "N K"]) -> Float32[Tensor, "N D"]:
        """Rows from their codes."""
        return self.mean.to(codes) + codes @ self.vectors[:, : codes.shape[1]].T.to(codes)


@dataclass(frozen=True)
class Score:
    """How near predictions come to their targets, on held-out rows."""

    name: str
    width: int | None  # numbers that the prediction goes through, where that is fixed
    mse: float
    cosine: float | None  # None where a prediction has no direction
    fvu: float


def moments(width: int, pieces: Iterable[Float64[Tensor, "_ D"]]) -> Moments:
    """Added up in float64, piece by piece."""
    count = 0
    total, directions = (torch.zeros(width, dtype=torch.float64) for _ in range(2))
    squares = torch.zeros(width, width, dtype=torch.float64)
    for piece in pieces:
        count += len(piece)
        total += piece.sum(0)
        squares.addmm_(piece.T, piece)
        directions += excerpt.unit(piece).sum(0)
    return Moments(count, total, squares, directions)


def axes(sums: Moments) -> Axes:
    """PCA of the rows that were added up."""
    values, vectors = torch.linalg.eigh(sums.about(sums.mean))
    return Axes(sums.mean, values.flip(0).clamp(min=0.0), vectors.flip(1))


def explained(values: Float64[Tensor, " D"]) -> Float64[Tensor, " D"]:
    """Share of the variance that the first 1, 2, ... D axes hold; 0 where nothing varies."""
    total = values.sum()
    return values.cumsum(0) / total if total > 0 else torch.zeros_like(values)


def effective_rank(values: Float64[Tensor, " D"]) -> float:
    """exp of the entropy of the shares of variance: equal axes that would be as diverse."""
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values / total
    return float(torch.special.entr(shares).sum().exp())


def mean_cosine(sums: Moments) -> float:
    """Mean cosine of two different rows, exactly, from the sum of the rows' directions."""
    others = sums.count * (sums.count - 1)
    return float((sums.directions.square().sum() - sums.count) / others) if others else 0.0


def unexplained(fitted: Axes, sums: Moments, width: int) -> float | None:
    """fvu, about the mean of *fitted*, of the rows of *sums* through its first *width* axes."""
    spread = sums.about(fitted.mean)
    total = float(spread.trace())
    kept = fitted.vectors[:, :width]
    return 1.0 - float((kept * (spread @ kept)).sum()) / total if total > 0 else None


def reconstructions(
    fitted: Axes, pieces: Iterable[Float64[Tensor, "_ D"]], widths: Sequence[int]
) -> list[Score]:
    """What is left of unseen rows through each of *widths* axes.

    In the coordinates of the axes every width is a prefix, so one turn of the rows serves all.
    """
    places = torch.tensor(widths) - 1
    mean = fitted.mean @ fitted.vectors
    errors, cosines = (torch.zeros(len(widths), dtype=torch.float64) for _ in range(2))
    spread, count = 0.0, 0
    for piece in pieces:
        turned = piece @ fitted.vectors
        codes = turned - mean
        lost = codes.square().sum(1, keepdim=True) - codes.square().cumsum(1)
        along = (mean * turned).sum(1, keepdim=True) + (codes * turned).cumsum(1)
        length = mean.square().sum() + (codes.square() + 2.0 * codes * mean).cumsum(1)
        norms = length.clamp(min=0.0).sqrt() * turned.norm(dim=1, keepdim=True)
        errors += lost[:, places].clamp(min=0.0).sum(0)
        cosines += (along / norms.clamp(min=1e-30))[:, places].sum(0)
        spread += float(codes.square().sum())
        count += len(piece)
    return [
        Score(
            "pca",
            width,
            float(error) / (count * len(mean)),
            float(cosine) / count,
            _ratio(float(error), spread),
        )
        for width, error, cosine in zip(widths, errors, cosines, strict=True)
    ]


def yardsticks(fitted: Axes, pieces: Iterable[Float64[Tensor, "_ D"]], width: int) -> list[Score]:
    """The same rows predicted as zeros, as the training mean, and by *width* random axes."""
    size = len(fitted.mean)
    drawn = torch.randn(size, width, generator=excerpt.generator(), dtype=torch.float64)
    random = torch.linalg.qr(drawn).Q
    names = ("zeros", "mean", "random")
    errors, cosines = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    count = 0
    for piece in pieces:
        centred = piece - fitted.mean
        guesses = {
            "zeros": torch.zeros_like(piece),
            "mean": fitted.mean.expand_as(piece),
            "random": fitted.mean + centred @ random @ random.T,
        }
        for name, guess in guesses.items():
            errors[name] += float((piece - guess).square().sum())
            cosines[name] += float(F.cosine_similarity(piece, guess, dim=1).sum())
        count += len(piece)
    return [
        Score(
            name,
            width if name == "random" else None,
            errors[name] / (count * size),
            None if name == "zeros" else cosines[name] / count,
            _ratio(errors[name], errors["mean"]),
        )
        for name in names
    ]


def score(
    name: str,
    prediction: Float[Tensor, "N D"],
    target: Float[Tensor, "N D"],
    mean: Float[Tensor, " D"],
    width: int | None = None,
) -> Score:
    """How near *prediction* comes to *target*, whose training mean is *mean*."""
    error = float((prediction - target).double().square().sum())
    spread = float((target - mean).double().square().sum())
    cosine = float(F.cosine_similarity(prediction.double(), target.double(), dim=1).mean())
    return Score(name, width, error / target.numel(), cosine, _ratio(error, spread))


def _ratio(error: float, spread: float) -> float:
    """What does not vary is explained by its mean; any error on it is endless."""
    if spread > 0:
        return error / spread
    return 0.0 if error == 0 else float("inf")
