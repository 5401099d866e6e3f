"""Running averages of the weights, which are evaluated and served in place of the weights.

P slots, G of them, N weights of a trial.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.training import device as devices


class Averaging:
    """Exponential moving averages of the slots whose trials have an `ema_decay`.

    An average of n updates decays by min(ema_decay, (1 + n) / (10 + n)), so that it does not hold
    on to the first weights.
    """

    def __init__(self, arena: Float[Tensor, "P N"]) -> None:
        self._arena = arena
        self._decays = [0.0] * len(arena)
        self._rows: Float[Tensor, "P N"] | None = None

    def fill(self, slot: int, decay: float, average: Float[Tensor, " N"] | None) -> None:
        """A trial with *decay* is in *slot*, which holds its weights: the first average."""
        self._decays[slot] = decay
        if not any(self._decays):
            self._rows = None
            return
        if self._rows is None:
            self._rows = torch.zeros_like(self._arena)
        self._rows[slot] = self._arena[slot] if average is None else average.to(self._arena)

    def empty(self, slot: int) -> None:
        """The average in *slot*, where nothing is left of its trial, has ended."""
        self.fill(slot, 0.0, None)

    def has(self, slot: int) -> bool:
        """Whether the trial in *slot* has an average."""
        return self._decays[slot] > 0.0

    def row(self, slot: int) -> Float[Tensor, " N"] | None:
        """A copy of the average in *slot*, on the CPU."""
        if self._rows is None or not self.has(slot):
            return None
        return self._rows[slot].cpu().clone()

    def follow(self, updates: Mapping[int, int]) -> None:
        """Take in the weights of averaged slots after an update; *updates* counts it, by slot."""
        if self._rows is None or not updates:
            return
        shares = [0.0] * len(self._decays)
        for slot, count in updates.items():
            shares[slot] = 1.0 - min(self._decays[slot], (1 + count) / (10 + count))
        share = devices.tensor(shares, self._arena.dtype, self._arena.device)
        self._rows.lerp_(self._arena, share[:, None])

    def evaluated(self, slots: Sequence[int]) -> Float[Tensor, "G N"]:
        """The average of each slot that has one, the weights of the others."""
        rows = self._arena[list(slots)]
        averaged = [place for place, slot in enumerate(slots) if self._decays[slot]]
        if self._rows is not None and averaged:
            rows[averaged] = self._rows[[slots[place] for place in averaged]]
        return rows
