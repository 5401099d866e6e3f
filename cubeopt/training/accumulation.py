"""Several batches to one update: their gradients are added up, each slot in its own rhythm.

P slots, N numbers of a slot's gradient.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.training import device as devices


class Accumulation:
    """The gradients of the batches since each slot's last update; nothing where all are alone."""

    def __init__(self, width: int, size: int, like: Tensor) -> None:
        self._shape, self._like = (width, size), like
        self._groups = [1] * width
        self._sums: Float[Tensor, "P N"] | None = None

    def fill(self, slot: int, group: int, gathered: Float[Tensor, " N"] | None) -> None:
        """A trial of *group* batches to an update is in *slot*, with what it has *gathered*."""
        self._groups[slot] = group
        if max(self._groups) == 1:
            self._sums = None
            return
        if self._sums is None:
            self._sums = self._like.new_zeros(self._shape)
        self._sums[slot] = 0.0 if gathered is None else gathered.to(self._sums)

    def empty(self, slot: int) -> None:
        """What *slot* has gathered is forgotten."""
        self.fill(slot, 1, None)

    def row(self, slot: int) -> Float[Tensor, " N"] | None:
        """A copy of what *slot* has gathered, on the CPU."""
        return None if self._sums is None else self._sums[slot].cpu().clone()

    def mean(self, gradient: Float[Tensor, "P N"], counts: Sequence[int]) -> Float[Tensor, "P N"]:
        """With this batch's *gradient*, the means of the slots whose group ends with it.

        *counts* says of how many batches; it is 0 where the group goes on, and so is the gradient.
        """
        if self._sums is None:
            return gradient
        self._sums.add_(gradient)
        if not any(counts):
            return torch.zeros_like(gradient)
        ended = devices.tensor(counts, gradient.dtype, gradient.device)[:, None]
        mean = torch.where(ended > 0, self._sums / ended.clamp(min=1.0), 0.0)
        self._sums = torch.where(ended > 0, 0.0, self._sums)
        return mean
