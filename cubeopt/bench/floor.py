"""What a training step must cost at least: its arithmetic and its traffic, at this machine's rates.

C cells, B samples, S state size, D embedding size, F cells of a face, T steps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cubeopt.lattice.cube import Cube
from cubeopt.trial import CubeShape

_REPEATS = 7
_SHAPES = ((8192, 32), (32, 160), (8192, 160))  # of the factors whose products are timed
# Numbers that one exchange moves for each number of the state, forward and back, if each matrix
# product and each sum over links is a kernel of its own, and what is element by element goes with
# one of them. Counted on a cube with attention; ours moves some more.
_TRAFFIC = 65
_PRODUCTS = 9  # of S x S weights over all rows in one exchange, forward
_ADAMW = 7  # numbers that an update reads and writes for each weight


@dataclass(frozen=True)
class Rates:
    """The best that one thread (or one GPU) was seen to do."""

    flops: float  # a second, in a product of the shape that an exchange has
    bytes: float  # a second, adding two large tensors


@dataclass(frozen=True)
class Work:
    """Of one training step of one trial."""

    flops: float
    bytes: float

    def seconds(self, rates: Rates) -> float:
        """One after the other: arithmetic, then traffic."""
        return self.flops / rates.flops + self.bytes / rates.bytes


def rates(device: torch.device) -> Rates:
    """Measure the machine: the best of some repeats."""
    rows, left, right = (torch.randn(n, m, device=device) for n, m in _SHAPES)
    product = _best(lambda: torch.mm(rows, left), device)
    wide = _best(lambda: torch.mm(right, left.mT.contiguous()), device)
    flops = max(2.0 * 8192 * 32 * 160 / product, 2.0 * 8192 * 160 * 32 / wide)
    one = torch.zeros(1 << 26, device=device)
    two, out = torch.zeros_like(one), torch.zeros_like(one)
    moved = _best(lambda: torch.add(one, two, out=out), device)
    return Rates(flops, 3.0 * one.nbytes / moved)


def work(cube: Cube) -> Work:
    """Count the products and sums of a training step, and the numbers it must move."""
    shape, size = cube.shape, cube.shape.state_size
    links = sum(map(len, (cube.wiring.local, cube.wiring.functional, cube.wiring.distant)))
    rows = shape.cells * shape.batch_size
    exchange = 2.0 * rows * size * (_PRODUCTS * size + 3) + 2.0 * links * shape.batch_size * size
    edges = 2.0 * shape.batch_size * shape.embedding_size * (shape.face_cells + _read(shape))
    forward = shape.lattice_steps * exchange + edges
    moved = _TRAFFIC * rows * size * shape.lattice_steps + _ADAMW * cube.layout.size
    return Work(3.0 * forward, 4.0 * moved)


def _read(shape: CubeShape) -> int:
    """Numbers that the output is made of."""
    return shape.face_cells * (1 if shape.readout == "value" else shape.state_size)


def _best(call: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
