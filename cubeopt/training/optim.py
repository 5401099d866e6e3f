"""AdamW with one rate, decay, clip and step count per trial.

P trials, N weights of a trial.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.training import device as devices

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Pace(NamedTuple):
    """How each trial is moved by an update."""

    rate: Float[Tensor, " P"]
    decay: Float[Tensor, " P"]
    number: Float[Tensor, " P"]  # of the update, from 1; 0: the trial stands still
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
        """One update in place; the trials *resting* stay as they are.

        A CPU passes once over each trial, with torch's own kernel; a GPU launches the same few
        operations whatever the number of trials.
        """
        way = self.one_by_one if arena.device.type == "cpu" else self.together
        way(arena, gradient, pace, resting)

    def together(
        self,
        arena: Float[Tensor, "P N"],
        gradient: Float[Tensor, "P N"],
        pace: Pace,
        resting: Sequence[int],
    ) -> None:
        """The update in operations over all trials."""
        held: list[tuple[Tensor, Tensor]] = []
        if resting:
            still = devices.tensor(resting, torch.int64, arena.device)
            held = [(rows, rows[still]) for rows in (arena, self.mean, self.square)]
        self.mean.lerp_(gradient, 1.0 - _BETA1)
        self.square.mul_(_BETA2).addcmul_(gradient, gradient, value=1.0 - _BETA2)
        arena.mul_(1.0 - (pace.rate * pace.decay)[:, None] * self._decay_mask)
        scale = (pace.rate / pace.of_mean)[:, None]
        root = self.square.sqrt() / pace.of_square[:, None]
        arena.sub_(scale * self.mean / (root + _EPSILON))
        for rows, before in held:
            rows[still] = before

    def one_by_one(
        self,
        arena: Float[Tensor, "P N"],
        gradient: Float[Tensor, "P N"],
        pace: Pace,
        resting: Sequence[int],
    ) -> None:
        """The update in one pass over each trial."""
        numbers = zip(*(each.tolist() for each in pace[:3]), strict=True)
        for slot, (rate, decay, number) in enumerate(numbers):
            if number == 0 or slot in resting:
                continue
            if decay > 0.0:
                arena[slot].addcmul_(arena[slot], self._decay_mask, value=-rate * decay)
            torch._fused_adamw_(
                [arena[slot]],
                [gradient[slot]],
                [self.mean[slot]],
                [self.square[slot]],
                [],
                [torch.tensor(number)],
                lr=rate,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=0.0,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )


def corrections(count: int) -> tuple[float, float]:
    """What the first moment and the root of the second are divided by at update *count*, from 1."""
    return 1.0 - _BETA1**count, math.sqrt(1.0 - _BETA2**count)


def clipped(
    gradient: Float[Tensor, "P N"], norm: Float[Tensor, " P"], limit: Float[Tensor, " P"]
) -> Float[Tensor, "P N"]:
    """*gradient* scaled down, trial by trial, so that its *norm* is at most *limit*."""
    return gradient * (limit / (norm + 1e-6)).clamp(max=1.0)[:, None]
