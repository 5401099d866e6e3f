"""Slots side by side: every knob becomes one value per slot.

P slots.
"""

from typing import Any

import torch
from torch import Tensor

from cubeopt.trial import LossKnobs


class LossColumn:
    """The loss knobs of P slots: a number becomes a tensor of size P, a choice a mask of size P."""

    def __init__(self, width: int, device: torch.device, dtype: torch.dtype) -> None:
        self._knobs = [LossKnobs()] * width
        self._device, self._dtype = device, dtype
        self._columns: dict[str, Tensor] = {}

    def put(self, slot: int, knobs: LossKnobs) -> None:
        """Give *slot* the knobs of its new trial."""
        self._knobs[slot] = knobs
        self._columns.clear()

    def number(self, name: str) -> Tensor:
        """The float knob *name* of each slot, shape (P,)."""
        return self._column(name, [float(getattr(k, name)) for k in self._knobs], self._dtype)

    def chose(self, name: str, choice: str) -> Tensor:
        """Whether each slot's knob *name* is *choice*, shape (P,), bool."""
        marks = [getattr(k, name) == choice for k in self._knobs]
        return self._column(f"{name}={choice}", marks, torch.bool)

    def _column(self, key: str, values: list[Any], dtype: torch.dtype) -> Tensor:
        if key not in self._columns:
            self._columns[key] = torch.tensor(values, dtype=dtype, device=self._device)
        return self._columns[key]
