"""AdamW with one rate, decay, clip and step count per trial.

P trials, N weights of a trial.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Pace(NamedTuple):
    """How each trial is moved by an update."""

    rate: Float[Tensor, " P"]
    decay: Float[Tensor, " P"]
    of_mean: Float[Tensor, " P"]  # this and the next: `corrections`
    of_square: Float[Tensor, " P"]


class PackAdamW:
    """AdamW (Loshchilov and Hutter 2019) over an arena (P, N); equal to torch's for each trial."""

    def __init__(self, arena: Float[Tensor, "P N"], decay_mask: Float[Tensor, " N"]) -> None:
        self.mean = torch.zeros_like(arena)
        self.square = torch.zeros_like(arena)
        self._decay_mask = decay_mask.to(arena)

    @torch.no_grad()
    def step(
        self,
        arena: Float[Tensor, "P N"],
        gradient: Float[Tensor, "P N"],
        pace: Pace,
        resting: Sequence[int] = (),
    ) -> None:
        """One update in place; the trials *resting* stay as they are."""
        held = [(rows, rows[resting]) for rows in (arena, self.mean, self.square) if resting]
        self.mean.lerp_(gradient, 1.0 - _BETA1)
        self.square.mul_(_BETA2).addcmul_(gradient, gradient, value=1.0 - _BETA2)
        arena.mul_(1.0 - (pace.rate * pace.decay)[:, None] * self._decay_mask)
        scale = (pace.rate / pace.of_mean)[:, None]
        root = self.square.sqrt() / pace.of_square[:, None]
        arena.sub_(scale * self.mean / (root + _EPSILON))
        for rows, before in held:
            rows[resting] = before


def corrections(count: int) -> tuple[float, float]:
    """What the first moment and the root of the second are divided by at update *count*, from 1."""
    return 1.0 - _BETA1**count, math.sqrt(1.0 - _BETA2**count)


def clipped(
    gradient: Float[Tensor, "P N"], norm: Float[Tensor, " P"], limit: Float[Tensor, " P"]
) -> Float[Tensor, "P N"]:
    """*gradient* scaled down, trial by trial, so that its *norm* is at most *limit*."""
    return gradient * (limit / (norm + 1e-6)).clamp(max=1.0)[:, None]
