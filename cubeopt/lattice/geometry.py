"""Where the cells are, which are written and read, and the three tiers of neighbours.

C cells, F cells of a face, K cells.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from cubeopt.errors import ConfigError
from cubeopt.lattice.links import Hearing, Links
from cubeopt.trial import CubeShape, Expert

Offset = tuple[int, int, int]

_LINK_SEED = 20_25  # the wiring is part of the architecture: equal for every trial of a shape
_PIECE = 1 << 22  # pairs of cells looked at in one go


@dataclass(frozen=True)
class Tiers:
    """How far each tier reaches."""

    local: float  # radius: cells nearer than this are local
    functional: float  # radius: up to here they are functional
    distant_links: int  # of a cell, to cells farther away


@dataclass(frozen=True, eq=False)
class Geometry:
    """The wiring of one lattice; the same for all trials of a shape."""

    size: tuple[int, int, int]
    tiers: Tiers
    written: Int64[Tensor, " F"]  # the cells that hold the numbers of the bottleneck, one each
    read: Int64[Tensor, " F"]  # the cells that the output is made of
    local: Links
    functional: Links
    distant: Links

    @cached_property
    def of_shown(self) -> Hearing:
        """What the local and the distant tier hear of what the cells show."""
        return Hearing([self.local, self.distant])

    @cached_property
    def of_said(self) -> Hearing:
        """What the functional tier hears of what the cells say."""
        return Hearing([self.functional])

    def to(self, device: torch.device) -> "Geometry":
        return Geometry(
            self.size,
            self.tiers,
            self.written.to(device),
            self.read.to(device),
            self.local.to(device),
            self.functional.to(device),
            self.distant.to(device),
        )


def geometry(shape: CubeShape) -> Geometry:
    """Wire the lattice of *shape*; ConfigError, saying what would do, when a tier has no links."""
    tiers = resolve(shape)
    local = functional = distant = _neighbours(shape.lattice_size, iter(()))
    if Expert.LOCAL in shape.experts:
        local = _neighbours(shape.lattice_size, _offsets(0.0, tiers.local))
    if Expert.FUNCTIONAL in shape.experts:
        functional = _neighbours(shape.lattice_size, _offsets(tiers.local, tiers.functional))
    _check_tiers(shape, tiers, functional)
    if Expert.DISTANT in shape.experts:
        distant = _distant(shape, tiers)
    written, read = _faces(shape)
    built = Geometry(shape.lattice_size, tiers, written, read, local, functional, distant)
    _check_reach(built, shape)
    return built


def resolve(shape: CubeShape) -> Tiers:
    """The radii of *shape*: its own, or those that give each tier its share of the links.

    Cells at one distance stay together, or a cell would listen to one side more than to another:
    of the whole shells, those are taken whose number of cells comes nearest to the share.
    """
    if shape.tiers == "radius":
        return Tiers(shape.local_radius, shape.functional_radius, shape.distant_links)
    shells = _shells(max(shape.lattice_size))
    local = _nearest(shells, 0, shape.local_share * shape.links)
    functional = _nearest(shells, local, shape.functional_share * shape.links)
    distant = 1.0 - shape.local_share - shape.functional_share
    return Tiers(math.sqrt(local), math.sqrt(functional), max(1, round(distant * shape.links)))


def positions(size: tuple[int, int, int]) -> Int64[Tensor, "C 3"]:
    """Coordinates of the cells; z runs fastest."""
    return torch.cartesian_prod(*(torch.arange(n) for n in size))


def _shells(reach: int) -> dict[int, int]:
    """How many cells lie at each squared distance from a cell, up to *reach*."""
    counts: dict[int, int] = {}
    for offset in _offsets(0.0, float(reach)):
        squared = sum(step * step for step in offset)
        counts[squared] = counts.get(squared, 0) + 1
    return dict(sorted(counts.items()))


def _nearest(shells: dict[int, int], beyond: int, wanted: float) -> int:
    """The squared radius within which the cells *beyond* another one are nearest to *wanted*."""
    count, best, miss = 0, 0, math.inf
    for squared, cells in shells.items():
        if squared > beyond:
            count += cells
            if abs(count - wanted) < miss:
                best, miss = squared, abs(count - wanted)
    return best


def _offsets(beyond: float, radius: float) -> Iterator[Offset]:
    """Every step to another cell longer than *beyond* and of length at most *radius*."""
    reach = range(-int(radius), int(radius) + 1)
    for x in reach:
        for y in reach:
            for z in reach:
                squared = x * x + y * y + z * z
                if squared > 0 and beyond * beyond < squared <= _squared(radius):
                    yield x, y, z


def _squared(radius: float) -> float:
    """Whole where *radius* is the root of a whole number: a radius of a shell has the shell."""
    squared = radius * radius
    return float(round(squared)) if math.isclose(squared, round(squared)) else squared


def _neighbours(size: tuple[int, int, int], offsets: Iterator[Offset]) -> Links:
    """Links from every cell to those at *offsets* from it that exist."""
    where = positions(size)
    cells, sides = len(where), torch.tensor(size)
    listeners, speakers = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for offset in offsets:
        there = where + torch.tensor(offset)
        inside = ((there >= 0) & (there < sides)).all(1)
        listeners.append(inside.nonzero()[:, 0])
        speakers.append(_cell(there[inside], size))
    listener, speaker = torch.cat(listeners), torch.cat(speakers)
    order = (listener * cells + speaker).argsort()
    return Links(cells, listener[order], speaker[order])


def _cell(where: Int64[Tensor, "K 3"], size: tuple[int, int, int]) -> Int64[Tensor, " K"]:
    """The numbers of the cells at these places."""
    return (where[:, 0] * size[1] + where[:, 1]) * size[2] + where[:, 2]


def _faces(shape: CubeShape) -> tuple[Int64[Tensor, " F"], Int64[Tensor, " F"]]:
    """The cells that are written and those that are read: one of each column (x, y) each."""
    width, height, depth = shape.lattice_size
    column = torch.cartesian_prod(torch.arange(width), torch.arange(height))
    first, last = torch.zeros(len(column), dtype=torch.int64), torch.full((len(column),), depth - 1)
    if shape.placement == "same_face":
        levels = (first, first)
    elif shape.placement == "spread":
        # Heights run through the volume, so that cells written are far from one another; each is
        # read half the depth away.
        rising = (column[:, 0] + 2 * column[:, 1]) % depth
        levels = (rising, (rising + depth // 2) % depth)
    else:
        levels = (first, last)
    written, read = (_cell(torch.cat([column, z[:, None]], 1), shape.lattice_size) for z in levels)
    return written, read


def _distant(shape: CubeShape, tiers: Tiers) -> Links:
    """For each cell so many distant ones, drawn once and for all without repetition."""
    where = positions(shape.lattice_size)
    cells, count = len(where), tiers.distant_links
    generator = torch.Generator().manual_seed(_LINK_SEED)
    chosen = []
    for piece in where.split(max(1, _PIECE // cells)):
        squared = sum((a[:, None] - b).square() for a, b in zip(piece.T, where.T, strict=True))
        near = squared <= _squared(tiers.functional)
        draw = torch.rand(near.shape, generator=generator).masked_fill(near, 2.0)
        chosen.append(draw.topk(count, dim=1, largest=False).indices.sort(1).values)
    listener = torch.arange(cells).repeat_interleave(count)
    return Links(cells, listener, torch.cat(chosen).flatten())


def _check_tiers(shape: CubeShape, tiers: Tiers, functional: Links) -> None:
    size = list(shape.lattice_size)
    if Expert.LOCAL in shape.experts and tiers.local < 1.0:
        raise ConfigError(
            f"local_radius {tiers.local:g} reaches no cell: the nearest is 1.0 away; "
            "set local_radius to 1.0 or more"
        )
    fewest = int(torch.bincount(functional.listener, minlength=functional.cells).min())
    if Expert.FUNCTIONAL in shape.experts and fewest == 0:
        raise ConfigError(
            f"no cell lies between local_radius {tiers.local:g} and functional_radius "
            f"{tiers.functional:g} for some cells of {size}; a functional_radius of "
            f"{tiers.local + 1.0:g} would do"
        )
    if Expert.DISTANT in shape.experts:
        _check_distant(shape, tiers)


def _check_distant(shape: CubeShape, tiers: Tiers) -> None:
    """The cell in the middle has the fewest far from it."""
    where = positions(shape.lattice_size)
    middle = torch.tensor([side // 2 for side in shape.lattice_size])
    squared = (where - middle).square().sum(1).sort().values
    far = int((squared > _squared(tiers.functional)).sum())
    if far >= tiers.distant_links:
        return
    needed = squared[-tiers.distant_links :] if tiers.distant_links < len(squared) else squared
    nearer = squared[squared < needed[0]]
    shell = float(nearer[-1]) if len(nearer) else 0.0
    if far == 0:
        advice = "take a larger lattice_size or a lower functional_radius"
    elif shape.tiers == "share":
        advice = "lower links"
    elif shell <= _squared(tiers.local):
        advice = f"set distant_links to {far} or less"
    else:
        radius = math.ceil(math.sqrt(shell) * 100) / 100
        advice = f"a functional_radius of {radius:g} would do"
    raise ConfigError(
        f"a cell of {list(shape.lattice_size)} is to have {tiers.distant_links} distant links, but "
        f"some cell has only {far} cells beyond radius {tiers.functional:g}; {advice}"
    )


def fewest_steps(built: Geometry) -> int | None:
    """Exchanges until all cells that are read have heard one that is written; None: never."""
    tiers = [built.local, built.functional, built.distant]
    reached = torch.zeros(built.local.cells, dtype=torch.bool)
    reached[built.written] = True
    for step in range(built.local.cells):
        if bool(reached[built.read].all()):
            return step
        reached = _heard(reached, tiers)
    return None


def _check_reach(built: Geometry, shape: CubeShape) -> None:
    """Within lattice_steps exchanges every cell that is read must hear one that is written."""
    needed = fewest_steps(built)
    if needed is None:
        raise ConfigError(
            f"the links of {', '.join(shape.experts)} never lead from the cells that are written "
            f"to all that are read in {list(built.size)}; take another expert in"
        )
    if needed > shape.lattice_steps:
        raise ConfigError(
            f"lattice_steps is {shape.lattice_steps}, but from the cells that are written to those "
            f"that are read in {list(built.size)} it takes {needed} steps; "
            f"set lattice_steps to {needed} or more"
        )


def _heard(reached: Bool[Tensor, " C"], tiers: list[Links]) -> Bool[Tensor, " C"]:
    """The cells reached already, and those that listen to one of them."""
    now = reached.clone()
    for links in tiers:
        now[links.listener[reached[links.speaker]]] = True
    return now
