"""Where the cells are, which lie on a face, and the three tiers of neighbours.

C cells, F cells of a face, O offsets of the local tier, K distant links of a cell.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cubeopt.errors import ConfigError
from cubeopt.trial import CubeShape

_LINK_SEED = 20_25  # the wiring is part of the architecture: equal for every trial of a shape


@dataclass(frozen=True)
class Geometry:
    """The wiring of one lattice; the same for all trials of a shape."""

    size: tuple[int, int, int]
    input_face: Int[Tensor, " F"]  # cells with z = 0
    output_face: Int[Tensor, " F"]  # cells with the largest z
    local_offsets: tuple[tuple[int, int, int], ...]  # O of them
    functional: Bool[Tensor, "C C"]  # True: the row's cell listens to the column's
    distant: Int[Tensor, "C K"]  # cells the row's cell listens to

    def to(self, device: torch.device) -> "Geometry":
        return Geometry(
            self.size,
            self.input_face.to(device),
            self.output_face.to(device),
            self.local_offsets,
            self.functional.to(device),
            self.distant.to(device),
        )


def geometry(shape: CubeShape) -> Geometry:
    """Wire the lattice of *shape*; ConfigError, saying what would do, when a tier has no links."""
    squared = _squared_distances(shape.lattice_size)
    depth = positions(shape.lattice_size)[:, 2]
    near = squared <= shape.local_radius**2
    far = squared > shape.functional_radius**2
    functional = ~near & ~far
    _check_tiers(shape, functional, far)
    built = Geometry(
        shape.lattice_size,
        torch.nonzero(depth == 0).squeeze(1),
        torch.nonzero(depth == depth.max()).squeeze(1),
        _offsets(shape.local_radius),
        functional,
        _links(far, shape.distant_links),
    )
    _check_reach(built, near, shape)
    return built


def positions(size: tuple[int, int, int]) -> Int[Tensor, "C 3"]:
    """Coordinates of the cells; z runs fastest."""
    return torch.cartesian_prod(*(torch.arange(n) for n in size))


def _squared_distances(size: tuple[int, int, int]) -> Int[Tensor, "C C"]:
    """Whole numbers, so that a radius of 1.0 means exactly the adjacent cells."""
    where = positions(size)
    apart = where[:, None] - where
    return apart.square().sum(-1)


def _offsets(radius: float) -> tuple[tuple[int, int, int], ...]:
    """Every step to another cell of length at most *radius*."""
    reach = range(-int(radius), int(radius) + 1)
    return tuple(
        (x, y, z)
        for x in reach
        for y in reach
        for z in reach
        if 0 < x * x + y * y + z * z <= radius * radius
    )


def _links(far: Bool[Tensor, "C C"], count: int) -> Int[Tensor, "C K"]:
    """*count* distant cells for each cell, drawn once and for all without repetition."""
    generator = torch.Generator().manual_seed(_LINK_SEED)
    order = torch.rand(far.shape, generator=generator).masked_fill(~far, 2.0)
    return order.argsort(dim=1)[:, :count].contiguous()


def _check_tiers(shape: CubeShape, functional: Tensor, far: Tensor) -> None:
    size = list(shape.lattice_size)
    if shape.local_radius < 1.0:
        raise ConfigError(
            f"local_radius {shape.local_radius} reaches no cell: the nearest is 1.0 away; "
            "set local_radius to 1.0 or more"
        )
    if not bool(functional.any(1).all()):
        raise ConfigError(
            f"no cell lies between local_radius {shape.local_radius} and functional_radius "
            f"{shape.functional_radius} for some cells of {size}; a functional_radius of "
            f"{shape.local_radius + 1.0} would do"
        )
    fewest = int(far.sum(1).min())
    if fewest < shape.distant_links:
        raise ConfigError(
            f"distant_links is {shape.distant_links}, but some cell of {size} has only {fewest} "
            f"cells beyond functional_radius {shape.functional_radius}; "
            "lower distant_links or functional_radius"
        )


def _check_reach(built: Geometry, near: Bool[Tensor, "C C"], shape: CubeShape) -> None:
    """Within lattice_steps exchanges every cell of the output face must hear the input face."""
    cells = len(near)
    hears = near | built.functional  # a cell is near itself
    hears.scatter_(1, built.distant, torch.ones_like(built.distant, dtype=torch.bool))
    reached = torch.zeros(cells, dtype=torch.bool)
    reached[built.input_face] = True
    for step in range(cells):
        if bool(reached[built.output_face].all()):
            if step > shape.lattice_steps:
                raise ConfigError(
                    f"lattice_steps is {shape.lattice_steps}, but from the input face to the "
                    f"output face of {list(built.size)} it takes {step} steps; "
                    f"set lattice_steps to {step} or more"
                )
            return
        reached = (hears & reached).any(1)
