"""How unlike the states of adjacent cells are.

P trials, C cells, B samples, S state size, L links.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.lattice.links import Hearing, Links, Strengths, hear


class Roughness:
    """Mean square difference of the states of adjacent cells, over pairs, samples and numbers.

    A mean over the pairs along each axis, then over the axes. The sum of the squared differences is
    state . (L state), where L is the Laplacian of the grid (diagonal: the links of a cell): one sum
    over links, which is the gradient at the same time.
    """

    def __init__(self, size: tuple[int, int, int]) -> None:
        cells = torch.arange(size[0] * size[1] * size[2])
        grid = cells.view(size)
        first, second, weight = [], [], []
        for axis, count in enumerate(size):
            one, other = (grid.narrow(axis, at, count - 1).flatten() for at in (0, 1))
            first.append(one)
            second.append(other)
            weight.append(torch.full((len(one),), 1.0 / (3.0 * len(one)), dtype=torch.float64))
        one, other, share = (torch.cat(each) for each in (first, second, weight))
        own = torch.zeros(len(cells), dtype=torch.float64)
        own.index_add_(0, one, share).index_add_(0, other, share)
        listener, speaker = torch.cat([one, other, cells]), torch.cat([other, one, cells])
        order = listener.argsort(stable=True)
        self._links = Links(len(cells), listener[order], speaker[order])
        self._share = torch.cat([-share, -share, own])[order]
        self._made: dict[tuple[int, torch.device, torch.dtype], tuple[Hearing, Strengths]] = {}

    def __call__(self, state: Float[Tensor, "P C B S"]) -> Float[Tensor, " P"]:
        """Of each trial."""
        hearing, strength = self._for(state)
        return _Rough.apply(hearing, strength, state.flatten(1, 2)) / state[0, 0].numel()

    def _for(self, state: Float[Tensor, "P C B S"]) -> tuple[Hearing, Strengths]:
        key = (len(state), state.device, state.dtype)
        if key not in self._made:
            share = self._share.to(state).repeat(len(state))
            # Who hears whom is the same from either end, and so are the strengths.
            self._made[key] = Hearing([self._links.to(state.device)]), Strengths(share, share)
        return self._made[key]


class _Rough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hearing: Hearing, strength: Strengths, rows: Float[Tensor, "P R S"]
    ) -> Float[Tensor, " P"]:
        (heard,) = hear(hearing, strength, rows)
        ctx.save_for_backward(heard)
        return (heard * rows).sum((1, 2))

    @staticmethod
    def backward(ctx: Any, of_sum: Float[Tensor, " P"]) -> tuple[None, None, Tensor]:
        (heard,) = ctx.saved_tensors
        return None, None, heard * (2.0 * of_sum[:, None, None])
