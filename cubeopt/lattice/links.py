"""What cells hear over links of different strength: a weighted sum, without dense matrices.

P trials, K tiers, C cells, L links of a tier, W links of all tiers and trials, R rows (cells times
samples), S state size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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

    def __len__(self) -> int:
        return len(self.listener)

    def to(self, device: torch.device) -> "Links":
        return Links(self.cells, self.listener.to(device), self.speaker.to(device))


class Hearing:
    """Tiers of links over the same rows, heard in one sum."""

    def __init__(self, tiers: Sequence[Links]) -> None:
        self.tiers = tuple(tiers)
        self.cells = self.tiers[0].cells
        self._packs: dict[int, _Bags] = {}

    def of_pack(self, trials: int) -> "_Bags":
        """The links of *trials* lattices side by side, none of them between two."""
        if trials not in self._packs:
            self._packs[trials] = _Bags(self.tiers, trials)
        return self._packs[trials]


class _Bags:
    """Links in the form in which a sum over them is fast, from either end.

    They stand by tier, then by trial, then by listener. A listener is a cell in its tier.
    """

    def __init__(self, tiers: Sequence[Links], trials: int) -> None:
        count = tiers[0].cells
        shift = count * torch.arange(trials, device=tiers[0].listener.device)[:, None]
        self.sizes = [len(links) for links in tiers]
        self.speaker = torch.cat([(shift + links.speaker).flatten() for links in tiers])
        self.listener = torch.cat(
            [
                (tier * trials * count + shift + links.listener).flatten()
                for tier, links in enumerate(tiers)
            ]
        )
        self.starts = _starts(self.listener, len(tiers) * trials * count)
        self.by_speaker = self.speaker.argsort(stable=True)
        self.back = self.listener[self.by_speaker]
        self.back_starts = _starts(self.speaker, trials * count)


@dataclass(frozen=True)
class Strengths:
    """Those of all links of a `Hearing`, in both orders."""

    by_listener: Float[Tensor, " W"]
    by_speaker: Float[Tensor, " W"]


def strengths(hearing: Hearing, weights: Sequence[Float[Tensor, "P _"]]) -> Strengths:
    """The *weights* of the links, tier by tier, as `hear` takes them."""
    joined = torch.cat([each.flatten() for each in weights])
    return Strengths(joined, joined[hearing.of_pack(len(weights[0])).by_speaker])


def hear(
    hearing: Hearing, strength: Strengths, shown: Float[Tensor, "P R S"]
) -> Float[Tensor, "K P R S"]:
    """For each cell and tier the sum, over its links, of strength times what is *shown*."""
    bags = hearing.of_pack(len(shown))
    heard = _summed(_cells(shown, hearing), bags.speaker, bags.starts, strength.by_listener)
    return heard.view(len(hearing.tiers), *shown.shape)


def hear_backward(
    gradient: Float[Tensor, "K P R S"],
    hearing: Hearing,
    strength: Strengths,
    shown: Float[Tensor, "P R S"],
) -> tuple[Float[Tensor, "P R S"], list[Float[Tensor, "P _"]]]:
    """The gradients of `hear`: of what was *shown*, and of the links' weights tier by tier."""
    bags = hearing.of_pack(len(shown))
    heard = gradient.view(bags.starts.shape[0], -1)
    of_shown = _summed(heard, bags.back, bags.back_starts, strength.by_speaker).view(shown.shape)
    of_weight = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        heard, _cells(shown, hearing), bags.speaker, bags.starts, bags.listener, 0
    )
    parts = of_weight.split([size * len(shown) for size in bags.sizes])
    return of_shown, [part.view(len(shown), -1) for part in parts]


def _cells(rows: Float[Tensor, "P R S"], hearing: Hearing) -> Tensor:
    """One row for each cell of each trial."""
    return rows.reshape(len(rows) * hearing.cells, -1)


def _summed(rows: Tensor, chosen: Tensor, starts: Tensor, weight: Tensor) -> Tensor:
    return F.embedding_bag(chosen, rows, starts, mode="sum", per_sample_weights=weight)


def _starts(cell: Int64[Tensor, " L"], count: int) -> Int64[Tensor, " count"]:
    """Where the links of each cell begin among those ordered by *cell*."""
    sizes = torch.bincount(cell, minlength=count)
    return sizes.cumsum(0) - sizes
