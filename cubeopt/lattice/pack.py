"""Slots side by side: every knob becomes one value per slot, and who may be computed together.

P slots.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cubeopt.trial import CubeKnobs, CubeShape, LossKnobs, TrialSpec

_VECTOR = 16  # numbers in the widest vector of a CPU, and in 64 bytes of float32


class Column:
    """The knobs of P slots: a number becomes a tensor of size P, a choice a mask of size P."""

    def __init__(
        self, knobs: Sequence[CubeKnobs | LossKnobs], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._knobs, self._device, self._dtype = knobs, device, dtype
        self._columns: dict[str, Tensor] = {}

    def number(self, name: str) -> Tensor:
        """The float knob *name* of each slot, shape (P,)."""
        return self._column(name, [float(getattr(k, name)) for k in self._knobs], self._dtype)

    def chose(self, name: str, choice: str) -> Tensor:
        """Whether each slot's knob *name* is *choice*, shape (P,), bool."""
        marks = [getattr(k, name) == choice for k in self._knobs]
        return self._column(f"{name}={choice}", marks, torch.bool)

    def anyone_chose(self, name: str, choice: str) -> bool:
        """Whether the knob *name* of some slot is *choice*."""
        return any(getattr(k, name) == choice for k in self._knobs)

    def _column(self, key: str, values: list[Any], dtype: torch.dtype) -> Tensor:
        if key not in self._columns:
            self._columns[key] = torch.tensor(values, dtype=dtype, device=self._device)
        return self._columns[key]


class Columns(NamedTuple):
    """The knobs of the slots of one pass through the cube, by part of TrialSpec."""

    cube: Column
    loss: Column


def columns(specs: Sequence[TrialSpec | None], device: torch.device, dtype: torch.dtype) -> Columns:
    """The knobs of *specs*, one for each slot; idle slots (None) have the defaults."""
    idle = TrialSpec()
    held = [idle if spec is None else spec for spec in specs]
    return Columns(
        Column([spec.cube for spec in held], device, dtype),
        Column([spec.loss for spec in held], device, dtype),
    )


def computes_together(shape: CubeShape, device: torch.device) -> bool:
    """Whether the slots of a pack go through the cube in one pass, or one after the other.

    On a CPU the last bits of a product depend on how its operands lie in memory, and those of a
    function (tanh, exp) on whether an element is in a whole vector. Only when every slot fills
    whole vectors does each compute the same; other shapes pay for equal bits with single passes.
    """
    cells, face, batch = shape.cells, shape.face_cells, shape.batch_size
    counts = (shape.state_size, shape.embedding_size, cells * batch, face * batch, batch * batch)
    return device.type != "cpu" or all(count % _VECTOR == 0 for count in counts)
