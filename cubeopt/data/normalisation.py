"""What is done to the numbers of embeddings before the cube sees them, and how it is undone.

Three spaces: *file* (the teacher's numbers), *stored* (as they stand in a dataset) and *seen* (as
the cube is given them). Only ``l2`` changes what is stored, only ``standardise`` what is seen.

Shapes: N rows, D embedding.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

NAMES = ("none", "l2", "standardise")


@dataclass(frozen=True, eq=False)
class Normalisation:
    """A choice among NAMES and the numbers that it needs, measured when the dataset was built."""

    name: str = "none"
    mean: Float[Tensor, " D"] | None = None  # of the training sentences (standardise)
    deviation: Float[Tensor, " D"] | None = None  # of each number; 1 where it does not vary
    norm: float | None = None  # mean norm of the rows in the files (l2)

    def __post_init__(self) -> None:
        assert self.name in NAMES, f"normalisation {self.name!r} is not one of {', '.join(NAMES)}"
        standardised = self.name == "standardise"
        assert (self.mean is not None) == (self.deviation is not None) == standardised
        assert (self.norm is not None) == (self.name == "l2")

    def store(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """From file to stored: unit rows for ``l2``."""
        if self.name != "l2":
            return rows
        exact = rows.double()
        return (exact / torch.linalg.vector_norm(exact, dim=1, keepdim=True)).to(rows.dtype)

    def apply(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """From stored to seen: mean 0 and deviation 1 for ``standardise``."""
        if self.mean is None or self.deviation is None:
            return rows
        return (rows - self.mean.to(rows)) / self.deviation.to(rows)

    def undo(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """From seen to file; for ``l2`` by the mean norm, since each row's own is not kept.

        What `Scale.undo` gives is stored numbers already, which ``standardise`` leaves as in files.
        """
        if self.mean is not None and self.deviation is not None:
            return rows * self.deviation.to(rows) + self.mean.to(rows)
        return rows if self.norm is None else rows * self.norm

    def facts(self) -> dict[str, Any]:
        """The name and the norm, for a manifest; mean and deviation stand with the rows."""
        return {"name": self.name, "norm": self.norm}


def measure(
    name: str, everything: Iterable[Float[Tensor, "_ D"]], training: Iterable[Float[Tensor, "_ D"]]
) -> Normalisation:
    """The numbers that the choice *name* needs, of *everything* or of the *training* rows."""
    if name == "l2":
        norms = [torch.linalg.vector_norm(piece.double(), dim=1) for piece in everything]
        return Normalisation(name, norm=float(torch.cat(norms).mean()))
    return _standardise(training) if name == "standardise" else Normalisation(name)


def _standardise(pieces: Iterable[Float[Tensor, "_ D"]]) -> Normalisation:
    """Mean and deviation of each number over all rows of *pieces*, added up in float64.

    Sums are taken around the first piece's mean, or a large mean would swallow a small deviation.
    """
    count, shift = 0, None
    total = squares = torch.zeros(1, dtype=torch.float64)
    for piece in pieces:
        exact = piece.double()
        if shift is None:
            shift = exact.mean(0)
        moved = exact - shift
        count += len(moved)
        total = total + moved.sum(0)
        squares = squares + moved.square().sum(0)
    assert shift is not None, "a training split has rows"
    offset = total / count
    mean = shift + offset
    deviation = (squares / count - offset.square()).clamp_min(0).sqrt()
    # What rounding alone could have made is no variation.
    still = deviation <= 1e-7 * mean.abs().clamp_min(torch.finfo(torch.float32).tiny)
    return Normalisation("standardise", mean, deviation.masked_fill(still, 1.0))
