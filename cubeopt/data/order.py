"""In which order an epoch visits the rows of a training split: by seed and epoch alone.

Nothing is remembered from one epoch to the next, so training can start at any step of any epoch.

Shapes: N rows, B batch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor


def batches(rows: Int64[Tensor, " N"], batch_size: int) -> Int64[Tensor, "steps B"]:
    """*rows* as full batches; the last one is filled up from their start."""
    steps = -(-len(rows) // batch_size)
    return rows[torch.arange(steps * batch_size) % len(rows)].view(steps, batch_size)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The rows of an epoch, as many as there are, with a fixed number from each corpus.

    The rows of a corpus are an endless stream: one whole permutation after another. Each epoch
    takes the next piece of it, of the corpus's *quota*. A corpus with a large weight thus comes
    more than once in an epoch, every row equally often but for one; of one with a small weight
    every row comes within some epochs. With equal weights the quota is the corpus's own size, and
    every row comes exactly once an epoch.
    """

    count: int  # rows in all, and of an epoch
    members: Mapping[int, Int64[Tensor, " _"]]  # row numbers by corpus, where the weight is not 0
    quotas: Mapping[int, int]  # rows of an epoch by corpus

    def order(self, seed: int, epoch: int) -> Int64[Tensor, " N"]:
        """The rows that *epoch* visits, in their order."""
        times = torch.zeros(self.count, dtype=torch.int64)
        for corpus, rows in self.members.items():
            times[rows] = self._times(corpus, seed, epoch)
        rows = torch.repeat_interleave(torch.arange(self.count), times)
        return rows[_permutation(len(rows), f"{seed} {epoch}")]

    def _times(self, corpus: int, seed: int, epoch: int) -> Int64[Tensor, " _"]:
        """How often each row of *corpus* comes in *epoch*."""
        size, quota = len(self.members[corpus]), self.quotas[corpus]
        first, skipped = divmod(quota * epoch, size)
        last, taken = divmod(quota * (epoch + 1), size)
        times = torch.full((size,), last - first)  # all of a permutation needs no permutation
        for number, rows, sign in ((first, skipped, -1), (last, taken, 1)):
            if rows:
                times[_permutation(size, f"{seed} corpus {corpus} {number}")[:rows]] += sign
        return times


def mixture(corpora: UInt8[Tensor, " N"], weights: Mapping[int, float]) -> Mixture:
    """Rows of *corpora*, whose shares of an epoch are as *weights* (by corpus) times their rows.

    Shares are rounded to whole rows, and a corpus whose weight is not 0 has at least one.
    """
    present, sizes = (each.tolist() for each in torch.unique(corpora, return_counts=True))
    wanted = {
        corpus: weights[corpus] * size
        for corpus, size in zip(present, sizes, strict=True)
        if weights[corpus] > 0
    }
    assert wanted, "a mixture needs a corpus whose weight is not 0"
    members = {corpus: (corpora == corpus).nonzero()[:, 0] for corpus in wanted}
    if len({weights[corpus] for corpus in present}) == 1:  # exactly, whatever rounding would do
        quotas = {corpus: len(rows) for corpus, rows in members.items()}
    else:
        quotas = _apportioned(wanted, len(corpora))
    return Mixture(len(corpora), members, quotas)


def _apportioned(wanted: Mapping[int, float], count: int) -> dict[int, int]:
    """*count* rows in the proportions of *wanted*, by largest remainder, at least one each."""
    total = sum(wanted.values())
    exact = {corpus: count * each / total for corpus, each in wanted.items()}
    quotas = {corpus: max(1, int(share)) for corpus, share in exact.items()}
    while (missing := count - sum(quotas.values())) != 0:
        step = 1 if missing > 0 else -1
        able = [corpus for corpus in quotas if quotas[corpus] + step >= 1]
        quotas[max(able, key=lambda corpus: step * (exact[corpus] - quotas[corpus]))] += step
    return quotas


def _permutation(count: int, name: str) -> Int[Tensor, " count"]:
    digest = hashlib.sha256(name.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randperm(count, generator=generator)
