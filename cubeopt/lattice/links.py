"""What cells hear over links of different strength: a weighted sum, without dense matrices.

P trials, L links of a lattice, R rows (cells times samples), S state size.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Links:
    """Who listens to whom, by listener; the same for all trials of a shape."""

    cells: int
    listener: Int64[Tensor, " L"]  # ascending
    speaker: Int64[Tensor, " L"]
    _packs: dict[int, "_Bags"] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.listener)

    def to(self, device: torch.device) -> "Links":
        return Links(self.cells, self.listener.to(device), self.speaker.to(device))

    def of_pack(self, trials: int) -> "_Bags":
        """The links of *trials* lattices side by side, none of them between two."""
        if trials not in self._packs:
            shift = self.cells * torch.arange(trials, device=self.listener.device)[:, None]
            listener, speaker = ((shift + side).flatten() for side in (self.listener, self.speaker))
            self._packs[trials] = _Bags(listener, speaker, trials * self.cells)
        return self._packs[trials]


class _Bags:
    """Links in the form in which a sum over them is fast, from either end."""

    def __init__(
        self, listener: Int64[Tensor, " L"], speaker: Int64[Tensor, " L"], count: int
    ) -> None:
        self.listener, self.speaker = listener, speaker
        self.starts = _starts(listener, count)
        self.by_speaker = speaker.argsort(stable=True)
        self.back = listener[self.by_speaker]
        self.back_starts = _starts(speaker, count)


def hear(
    links: Links, weight: Float[Tensor, "P L"], shown: Float[Tensor, "P R S"]
) -> Float[Tensor, "P R S"]:
    """For each cell the sum over its links of *weight* times what the speaker has *shown*."""
    bags = links.of_pack(len(shown))
    return _summed(_cells(shown, links), bags.speaker, bags.starts, weight).view(shown.shape)


def hear_backward(
    gradient: Float[Tensor, "P R S"],
    links: Links,
    weight: Float[Tensor, "P L"],
    shown: Float[Tensor, "P R S"],
) -> tuple[Float[Tensor, "P R S"], Float[Tensor, "P L"]]:
    """The gradients of `hear`: of what was *shown* and of the *weight* of each link."""
    bags, heard = links.of_pack(len(shown)), _cells(gradient, links)
    turned = weight.flatten()[bags.by_speaker]
    of_shown = _summed(heard, bags.back, bags.back_starts, turned).view(shown.shape)
    of_weight = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        heard, _cells(shown, links), bags.speaker, bags.starts, bags.listener, 0
    )
    return of_shown, of_weight.view(weight.shape)


def _cells(rows: Float[Tensor, "P R S"], links: Links) -> Tensor:
    """One row for each cell of each trial."""
    return rows.reshape(len(rows) * links.cells, -1)


def _summed(rows: Tensor, chosen: Tensor, starts: Tensor, weight: Tensor) -> Tensor:
    weights = weight.flatten()
    return F.embedding_bag(chosen, rows, starts, mode="sum", per_sample_weights=weights)


def _starts(cell: Int64[Tensor, " L"], count: int) -> Int64[Tensor, " count"]:
    """Where the links of each cell begin among those ordered by *cell*."""
    sizes = torch.bincount(cell, minlength=count)
    return sizes.cumsum(0) - sizes
