"""The sentences of a dataset that a feed needs: on its device, or in the file they stand in.

M distinct sentences, U of them in use, K asked for at once, D embedding size.
"""

import logging

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from cubeopt.training.device import free_memory

logger = logging.getLogger(__name__)

# Of the memory that is free now. On a CPU several workers share it; a GPU is one worker's, whose
# packs need the rest.
_SHARES = {"cpu": 0.25, "cuda": 0.5}
_PIECE_BYTES = 1 << 25  # copied at a time


class Table:
    """Sentences by number: gathered on the device that holds them, or from the file and moved.

    The numbers are the same bits either way: rows are copied, nothing is computed.
    """

    def __init__(
        self,
        embeddings: Float[Tensor, "M D"],
        used: Bool[Tensor, " M"],
        device: torch.device,
        resident_bytes: int | None = None,
    ) -> None:
        self.device, self.width = device, embeddings.shape[1]
        self._places: Int64[Tensor, " M"] | None = None
        sentences = used.nonzero()[:, 0]
        needed = len(sentences) * self.width * embeddings.element_size()
        limit = resident_bytes
        if limit is None:
            limit = int(free_memory(device) * _SHARES[device.type])
        self.resident = needed <= limit
        if self.resident:
            self._rows = _copied(embeddings, sentences, device)
            if len(sentences) < len(embeddings):
                self._places = used.cumsum(0) - 1
        else:
            logger.info("%d bytes of sentences exceed %d: left in the file", needed, limit)
            self._rows = embeddings

    @property
    def home(self) -> torch.device:
        """Where `gather` wants its row numbers."""
        return self._rows.device

    def numbers(self, sentences: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """What `gather` calls these *sentences* of the dataset."""
        own = sentences if self._places is None else self._places[sentences]
        return own.to(self.home)

    def gather(self, numbers: Int64[Tensor, " K"]) -> Float[Tensor, "K D"]:
        """These rows on the device, in the dtype stored, in memory of their own."""
        rows = self._rows.index_select(0, numbers)
        if self.resident or self.device.type == "cpu":
            return rows
        return rows.pin_memory().to(self.device, non_blocking=True)


def _copied(
    embeddings: Float[Tensor, "M D"], sentences: Int64[Tensor, " U"], device: torch.device
) -> Float[Tensor, "U D"]:
    """These *sentences* on *device*, without a second copy of all of them on the way."""
    width = embeddings.shape[1]
    rows = torch.empty(len(sentences), width, dtype=embeddings.dtype, device=device)
    size = max(1, _PIECE_BYTES // (width * embeddings.element_size()))
    for piece, place in zip(sentences.split(size), rows.split(size), strict=True):
        place.copy_(embeddings.index_select(0, piece))
    return rows
