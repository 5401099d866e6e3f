"""What a pack is fed: standardised embeddings on its device, batches by seed, epoch and step.

P slots, B samples, D embedding size, M distinct sentences, N rows of a split.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cubeopt.data.dataset import Dataset, batch_rows
from cubeopt.errors import DataError
from cubeopt.trial import Task

_ORDERS_KEPT = 64  # orders of an epoch kept at hand: packs mix trials at different epochs


@dataclass(frozen=True)
class Scale:
    """Standardisation of embeddings: (x - mean) / deviation, with one deviation for all D numbers.

    One deviation, so that a mean squared error in these units is the fraction of variance
    unexplained: 1 is as good as predicting the mean.
    """

    mean: Float[Tensor, " D"]
    deviation: Float[Tensor, ""]

    def apply(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return (x - self.mean) / self.deviation

    def undo(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return x * self.deviation + self.mean


class Feed:
    """The rows of one task of a dataset, ready for packs of any width."""

    def __init__(
        self,
        dataset: Dataset,
        task: Task,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dataset, self.task = dataset, task
        self._pairs = {name: dataset.pairs(task, name) for name in ("train", "validation", "test")}
        empty = [name for name, (source, _) in self._pairs.items() if len(source) == 0]
        if empty:
            raise DataError(
                f"{dataset.folder}: no rows for task {task.value!r} in split {', '.join(empty)}; "
                f"build the dataset with --task {task.value}"
            )
        sources, targets = self._pairs["train"]
        self.source_scale = _scale(dataset.embeddings, sources)
        self.target_scale = _scale(dataset.embeddings, targets)
        self._source = self.source_scale.apply(dataset.embeddings.double()).to(device, dtype)
        self._target = self._source
        if not torch.equal(sources, targets):
            self._target = self.target_scale.apply(dataset.embeddings.double()).to(device, dtype)
        self.raw = dataset.embeddings.to(device, dtype)
        self.device = device
        self._orders: OrderedDict[tuple[int, int, int], Tensor] = OrderedDict()

    @property
    def train_rows(self) -> int:
        return len(self._pairs["train"][0])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last one is filled up from the start of the epoch's order."""
        return -(-self.train_rows // batch_size)

    def batch(
        self, places: Mapping[int, tuple[int, int]], width: int, batch_size: int
    ) -> tuple[Float[Tensor, "P B D"], Float[Tensor, "P B D"]]:
        """Sources and targets of the next step of each slot.

        *places* maps a slot to its (data seed, steps done); the other slots repeat row 0.
        """
        steps = self.steps_per_epoch(batch_size)
        rows = torch.zeros(width, batch_size, dtype=torch.int64)
        for slot, (seed, done) in places.items():
            rows[slot] = self._order(seed, done // steps, batch_size)[done % steps]
        sources, targets = self._pairs["train"]
        return (
            self._source[sources[rows].to(self.device)],
            self._target[targets[rows].to(self.device)],
        )

    def parts(
        self, split: str, batch_size: int
    ) -> Iterator[tuple[Float[Tensor, "B D"], Float[Tensor, "B D"], Float[Tensor, "B D"]]]:
        """A *split* in pieces of nearly equal size: sources, targets, targets as they were."""
        sources, targets = self._pairs[split]
        pieces = -(-len(sources) // batch_size)
        for source, target in zip(
            sources.tensor_split(pieces), targets.tensor_split(pieces), strict=True
        ):
            target = target.to(self.device)
            yield self._source[source.to(self.device)], self._target[target], self.raw[target]

    def _order(self, seed: int, epoch: int, batch_size: int) -> Int[Tensor, "steps B"]:
        key = (seed, epoch, batch_size)
        if key not in self._orders:
            self._orders[key] = batch_rows(self.train_rows, batch_size, seed, epoch)
            if len(self._orders) > _ORDERS_KEPT:
                self._orders.popitem(last=False)
        self._orders.move_to_end(key)
        return self._orders[key]


def _scale(embeddings: Float[Tensor, "M D"], rows: Int[Tensor, " N"]) -> Scale:
    """Mean, and root mean square distance to it per number, over *rows*; float64."""
    seen = embeddings[rows].double()
    mean = seen.mean(0)
    deviation = (seen - mean).square().mean().sqrt()
    if not bool(deviation > 0):
        raise DataError("all training rows are equal: there is nothing to learn from them")
    return Scale(mean, deviation)
