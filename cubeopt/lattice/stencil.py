"""A weighted sum over fixed steps in the grid, without copies of the grid.

P trials, X Y Z the sides of the lattice, B samples, S state size, O offsets.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Offset = tuple[int, int, int]


def stencil(
    grid: Float[Tensor, "P X Y Z B S"],
    weight: Float[Tensor, "P O S"],
    offsets: tuple[Offset, ...],
) -> Float[Tensor, "P X Y Z B S"]:
    """out[cell] = sum over the offsets of weight[offset] * grid[cell + offset]; 0 outside."""
    return _Stencil.apply(grid, weight, offsets)


class _Stencil(torch.autograd.Function):
    """Slices added in place: autograd alone would fill a grid of zeros for every slice."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, weight: Tensor, offsets: tuple[Offset, ...]) -> Tensor:
        ctx.save_for_backward(grid, weight)
        ctx.offsets = offsets
        out = torch.zeros_like(grid)
        for index, offset in enumerate(offsets):
            here, there = _slices(offset, grid.shape)
            out[here].addcmul_(grid[there], _over(weight, index))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        grid, weight = ctx.saved_tensors
        of_grid, of_weight = torch.zeros_like(grid), torch.zeros_like(weight)
        for index, offset in enumerate(ctx.offsets):
            here, there = _slices(offset, grid.shape)
            of_grid[there].addcmul_(gradient[here], _over(weight, index))
            of_weight[:, index] = (gradient[here] * grid[there]).sum((1, 2, 3, 4))
        return of_grid, of_weight, None


def _slices(offset: Offset, shape: torch.Size) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The cells that have a neighbour at *offset*, and those neighbours."""
    sides = list(zip(offset, shape[1:4], strict=True))
    here = tuple(slice(max(0, -step), side - max(0, step)) for step, side in sides)
    there = tuple(slice(max(0, step), side - max(0, -step)) for step, side in sides)
    return (slice(None), *here), (slice(None), *there)


def _over(weight: Tensor, index: int) -> Tensor:
    return weight[:, index, None, None, None, None]
