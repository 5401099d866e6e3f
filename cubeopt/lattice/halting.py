"""When a sample has been through enough exchanges.

P trials, B samples, C cells, F cells that are read, S state size.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cubeopt.lattice.layers import Parameter, linear
from cubeopt.trial import CubeShape

_ENOUGH = 0.99  # of the sum of halting probabilities: the rest is the remainder (Graves 2016)


def parameters(shape: CubeShape) -> list[Parameter]:
    """The weights of learned halting; at first it takes all the steps there are."""
    if shape.halting != "learned":
        return []
    late = -math.log(max(1, shape.lattice_steps - 1))
    return [
        Parameter("halt.weight", (shape.state_size, 1), 0.1 / math.sqrt(shape.state_size)),
        Parameter("halt.bias", (1,), 0.0, fill=late, decays=False),
    ]


def settled(
    before: Float[Tensor, "P C B S"], after: Float[Tensor, "P C B S"], limit: Float[Tensor, " P"]
) -> Bool[Tensor, "P B"]:
    """Whether a step changed the state of a sample by less than *limit*, relative to its size."""
    before, after = before.detach(), after.detach()
    change, size = (each.square().sum((1, 3)) for each in (after - before, before))
    return change < limit.square()[:, None] * size


class Pondering:
    """Adaptive computation time (Graves 2016): the output is a mean of states, one of each step.

    Each step has the probability that the sample halts there; it takes steps until these sum to 1,
    and the last one has what is left, the remainder.
    """

    def __init__(self, state: Float[Tensor, "P C B S"]) -> None:
        self.state = torch.zeros_like(state)
        self._total = state.new_zeros(state.shape[0], state.shape[2])
        self._cost = torch.zeros_like(self._total)

    def take(
        self,
        weights: dict[str, Tensor],
        state: Float[Tensor, "P C B S"],
        read: Float[Tensor, "P F B S"],
        going: Bool[Tensor, "P B"],
        last: bool,
    ) -> Bool[Tensor, "P B"]:
        """Add the *state* that a step led to, and say who goes on; nobody after the *last* step."""
        shown = read * torch.rsqrt(1.0 + read.square().mean(-1, keepdim=True))
        chance = torch.sigmoid(linear(weights, "halt", shown.mean(1)))[..., 0]
        halts = going & (self._total + chance >= _ENOUGH) if not last else going
        remainder = 1.0 - self._total
        share = torch.where(halts, remainder, chance) * going
        self.state = self.state + share[:, None, :, None] * state
        self._cost = self._cost + going + torch.where(halts, remainder, torch.zeros_like(remainder))
        self._total = self._total + share
        return going & ~halts

    def cost(self) -> Float[Tensor, " P"]:
        """Steps and remainder, mean over the samples; only the remainder has a gradient."""
        return self._cost.mean(1)
