"""What an epoch adds up for each trial: its terms batch by batch, its gradients update by update.

P slots, G of them, K numbers of a batch, M numbers of an update.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.training import device as devices
from cubeopt.training.losses import TERMS


def batch_names() -> list[str]:
    """What there is of each batch: the loss, each term unweighted and weighted, and its weight."""
    kinds = ("loss", "weighted", "weight")
    return ["loss/total", *(f"{kind}/{term}" for kind in kinds for term in TERMS)]


class Tally:
    """Sums in float64 over the current epoch of each of P slots."""

    def __init__(self, width: int, modules: Sequence[str], device: torch.device) -> None:
        self._modules = ("all", *modules)
        self._batches = torch.zeros(width, len(batch_names()), dtype=torch.float64, device=device)
        self._updates = torch.zeros(width, len(self._modules), dtype=torch.float64, device=device)

    def fill(self, slot: int, kept: Mapping[str, Tensor]) -> None:
        """A trial is in *slot*; *kept* holds the sums of an epoch that it has begun."""
        for name, sums in self._memory().items():
            sums[slot] = kept[name].to(sums) if name in kept else 0.0

    def empty(self, slot: int) -> None:
        """An epoch of *slot* has ended, or its trial."""
        self.fill(slot, {})

    def kept(self, slot: int) -> dict[str, Tensor]:
        """A copy of the sums of *slot*, on the CPU."""
        return {name: sums[slot].cpu().clone() for name, sums in self._memory().items()}

    def add(self, batches: Float[Tensor, "P K"]) -> None:
        """The numbers of a batch of each slot."""
        self._batches.add_(batches)

    def add_updates(self, norms: Float[Tensor, "P M"], counts: Sequence[int]) -> None:
        """The gradients' norms, by module, of the slots whose *counts* is not 0."""
        if not all(counts):
            counted = devices.tensor(counts, torch.int64, norms.device)[:, None] > 0
            norms = torch.where(counted, norms, 0.0)
        self._updates.add_(norms)

    def means(self, slot: int, batches: int, updates: int) -> dict[str, float]:
        """By name, over the so many *batches* and *updates* of an epoch so far."""
        means = (self._batches[slot] / batches).tolist()
        norms = (self._updates[slot] / updates).tolist()
        named = dict(zip(batch_names(), means, strict=True))
        return named | {
            f"gradient_norm/{module}": norm
            for module, norm in zip(self._modules, norms, strict=True)
        }

    def _memory(self) -> dict[str, Tensor]:
        return {"tally_batches": self._batches, "tally_updates": self._updates}
