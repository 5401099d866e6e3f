"""The weights of P trials in one arena, and the layers that read them.

P trials, N numbers of a trial's weights, R rows, I inputs, O outputs.

All weights of a trial lie in one row of an arena (P, N): one leaf for autograd, a handful of
operations for the optimizer whatever the number of layers, and a slot is refilled by copying a row.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Every parameter and every row starts on a 64-byte border in float32 and float64: a kernel may
# choose its path by alignment, and a trial must compute the same in every slot.
_ALIGNMENT = 16


@dataclass(frozen=True)
class Parameter:
    """One named block of a trial's weights."""

    name: str  # module.weight: the module is what metrics and figures name
    shape: tuple[int, ...]
    scale: float  # standard deviation of the initial values; 0: start at *fill*
    fill: float = 0.0
    decays: bool = True  # weight decay pulls matrices, not biases

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]


class Layout:
    """Where each parameter of a trial lies in its row of the arena."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        assert len({p.name for p in self.parameters}) == len(self.parameters)
        self._sizes = [_padded(p.count) for p in self.parameters]
        self.size = sum(self._sizes)
        self.modules = tuple(dict.fromkeys(p.module for p in self.parameters))
        place = [self.modules.index(p.module) for p in self.parameters]
        assert place == sorted(place), "the parameters of a module stand together"
        self._module_sizes = [0] * len(self.modules)
        for index, size in zip(place, self._sizes, strict=True):
            self._module_sizes[index] += size

    def views(self, arena: Float[Tensor, "P N"]) -> dict[str, Tensor]:
        """Each parameter as a view (P, *shape) of the *arena*."""
        blocks = arena.split(self._sizes, dim=1)
        return {
            # A block without a gap needs no slice, whose gradient would be copied once more.
            p.name: (block if size == p.count else block[:, : p.count]).unflatten(1, p.shape)
            for p, block, size in zip(self.parameters, blocks, self._sizes, strict=True)
        }

    def named(self, row: Float[Tensor, " N"]) -> dict[str, Tensor]:
        """Each parameter of one trial, without the trial axis."""
        return {name: view[0] for name, view in self.views(row[None]).items()}

    def row(self, named: dict[str, Tensor]) -> Float[Tensor, " N"]:
        """The inverse of `named`; the gaps between parameters are zero."""
        first = next(iter(named.values()))
        row = torch.zeros(1, self.size, dtype=first.dtype, device=first.device)
        for name, view in self.views(row).items():
            view[0].copy_(named[name])
        return row[0]

    def initial(self, seed: int) -> Float[Tensor, " N"]:
        """A trial's first weights, from its own *seed* and each parameter's name alone."""
        row = torch.zeros(1, self.size)
        for parameter, view in zip(self.parameters, self.views(row).values(), strict=True):
            if parameter.scale == 0.0:
                view.fill_(parameter.fill)
            else:
                generator = torch.Generator().manual_seed(_seed(seed, parameter.name))
                view.copy_(torch.randn(view.shape, generator=generator) * parameter.scale)
        return row[0]

    def decay_mask(self) -> Float[Tensor, " N"]:
        """1 where weight decay applies."""
        row = torch.zeros(1, self.size)
        for parameter, view in zip(self.parameters, self.views(row).values(), strict=True):
            view.fill_(float(parameter.decays))
        return row[0]

    def by_module(self, values: Float[Tensor, "P N"]) -> Float[Tensor, "P M"]:
        """Sum *values* over the weights of each module, in the order of `modules`."""
        blocks = values.split(self._module_sizes, dim=1)
        return torch.stack([block.sum(1) for block in blocks], dim=1)


def linear_parameters(name: str, inputs: int, outputs: int, gain: float = 1.0) -> list[Parameter]:
    """Weight and bias of a linear layer, so that unit inputs give outputs of size *gain*."""
    return [
        Parameter(f"{name}.weight", (inputs, outputs), gain / math.sqrt(inputs)),
        Parameter(f"{name}.bias", (outputs,), 0.0, decays=False),
    ]


def linear(
    weights: dict[str, Tensor],
    name: str,
    x: Float[Tensor, "P *rows I"],
    start: Float[Tensor, "P *rows O"] | None = None,
) -> Float[Tensor, "P *rows O"]:
    """P linear layers as one batched matrix product, added to *start* (else to the bias)."""
    first = weights[f"{name}.bias"][:, None] if start is None else start.flatten(1, -2)
    out = torch.baddbmm(first, x.flatten(1, -2), weights[f"{name}.weight"])
    return out.unflatten(1, x.shape[1:-1])


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _seed(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
