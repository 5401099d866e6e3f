"""The stencil against its formula, forwards and backwards."""

import torch

from cubeopt.lattice.stencil import stencil

OFFSETS = ((1, 0, 0), (0, -1, 0), (1, 1, -1), (0, 0, 2))


def test_each_cell_hears_the_cells_at_the_offsets_and_nothing_beyond_the_border():
    grid = torch.randn(2, 3, 4, 3, 2, 5, dtype=torch.float64)
    weight = torch.randn(2, 4, 5, dtype=torch.float64)
    out = stencil(grid, weight, OFFSETS)
    for x in range(3):
        for y in range(4):
            for z in range(3):
                expected = torch.zeros(2, 2, 5, dtype=torch.float64)
                for index, (dx, dy, dz) in enumerate(OFFSETS):
                    place = (x + dx, y + dy, z + dz)
                    if all(0 <= at < side for at, side in zip(place, (3, 4, 3), strict=True)):
                        expected += weight[:, index, None] * grid[(slice(None), *place)]
                torch.testing.assert_close(out[:, x, y, z], expected)


def test_its_gradients_are_those_of_finite_differences():
    grid = torch.randn(1, 2, 2, 3, 1, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g, w: stencil(g, w, OFFSETS), (grid, weight))
