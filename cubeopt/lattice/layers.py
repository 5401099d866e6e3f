"""The weights of P trials in one arena, and the layers that read them.

P trials, N numbers of a trial's weights, R rows, I inputs, O outputs.

All weights of a trial lie in one row of an arena (P, N): one leaf for autograd, a handful of
operations for the optimizer whatever the number of layers, and a slot is refilled by copying a row.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
        self.count = sum(p.count for p in self.parameters)  # of the weights, without the gaps
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

    def opened(self, arena: Float[Tensor, "P N"], gradients: "Gradients") -> dict[str, Tensor]:
        """`views`, whose gradients are what autograd finds and what *gradients* was given."""
        views = _Opened.apply(self, gradients, arena)
        # Each has a node of its own in the graph: a way back to one does not lead to all others.
        return {p.name: v.view(v.shape) for p, v in zip(self.parameters, views, strict=True)}

    def joined(self, parts: Sequence[Tensor | None], like: Float[Tensor, "P N"]) -> Tensor:
        """The inverse of `views`, of as many trials as *like* has; None and gaps are zero."""
        zero = like.new_zeros(1, 1)
        blocks = []
        for part, parameter, size in zip(parts, self.parameters, self._sizes, strict=True):
            if part is not None:
                blocks.append(part.reshape(len(like), -1))
                size -= parameter.count
            if size:
                blocks.append(zero.expand(len(like), size))
        return torch.cat(blocks, dim=1)

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

    def norms(self, values: Float[Tensor, "P N"]) -> Float[Tensor, "P M"]:
        """The norm of *values* over the weights of each module, in the order of `modules`."""
        blocks = [block for row in values for block in row.split(self._module_sizes)]
        norms = torch.stack(torch._foreach_norm(blocks))
        return norms.view(len(values), len(self.modules))


class Gradients:
    """What layers that write out their gradients add up, by the name of a weight.

    A weight that is used in every step has as many gradients; autograd would keep each of them and
    add them in passes of their own.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add *value*, which belongs to nobody else."""
        if name in self._sums:
            self._sums[name].add_(value)
        else:
            self._sums[name] = value

    def add_product(self, name: str, left: Tensor, right: Tensor) -> None:
        """Add the matrix product of two factors, trial by trial."""
        if name in self._sums:
            self._sums[name].baddbmm_(left, right)
        else:
            self._sums[name] = torch.bmm(left, right)

    def add_multiple(self, name: str, left: Tensor, right: Tensor) -> None:
        """Add the product of two factors, element by element."""
        if name in self._sums:
            self._sums[name].addcmul_(left, right)
        else:
            self._sums[name] = left * right

    def taken(self, name: str) -> Tensor | None:
        """The sum, which is nought from now on; None if nothing was added."""
        return self._sums.pop(name, None)


class _Opened(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layout: Layout, gradients: Gradients, arena: Float[Tensor, "P N"]
    ) -> tuple[Tensor, ...]:
        ctx.layout, ctx.gradients = layout, gradients
        ctx.save_for_backward(arena)
        ctx.set_materialize_grads(False)
        return tuple(layout.views(arena).values())

    @staticmethod
    def backward(ctx: Any, *found: Tensor | None) -> tuple[None, None, Tensor]:
        parts = []
        for parameter, each in zip(ctx.layout.parameters, found, strict=True):
            more = ctx.gradients.taken(parameter.name)
            parts.append(more if each is None else each if more is None else each + more)
        return None, None, ctx.layout.joined(parts, ctx.saved_tensors[0])


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
