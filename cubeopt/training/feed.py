"""What a pack is fed: standardised embeddings on its device, batches by seed, epoch and step.

P slots, B samples, S steps, D embedding size, K sentences, N rows of a split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cubeopt.data import order
from cubeopt.data.dataset import SPLITS, Dataset, Rows
from cubeopt.data.order import Mixture
from cubeopt.errors import DataError
from cubeopt.training import scale
from cubeopt.training.device import free_memory
from cubeopt.training.kept import Earliest, Recent
from cubeopt.training.scale import Scale
from cubeopt.training.table import Table
from cubeopt.trial import Task

_AHEAD_BYTES = 1 << 20  # of batches gathered in one go: a call costs as much as some rows
_BATCHES_SHARE = 1 / 16  # of the device's free memory: the trials of a study ask for the same ones
_BATCHES_MOST = 1 << 28  # bytes of them
_PASSING_KEPT = 1 << 27  # bytes of those that found no room, one piece for each of a pack's epochs
_ORDERS_KEPT = 1 << 26  # bytes: packs mix trials at different epochs
_ALIGNMENT = 64  # bytes: where a batch starts in memory can decide the last bits of what follows

_Batches = Sequence[tuple[Tensor, Tensor]]  # source and target (1, B, D) of some steps


@dataclass(frozen=True, eq=False)
class Part:
    """Some samples of a split, in the order in which they are stored."""

    first: int  # place in the split of the first of them
    source: Float[Tensor, "B D"]
    target: Float[Tensor, "B D"]
    stored: Float[Tensor, "B D"]  # the target as it stands in the dataset
    sentence: Int64[Tensor, " B"]  # the target's number: equal for equal targets
    task: UInt8[Tensor, " B"]  # its place in dataset.TASKS
    corpus: UInt8[Tensor, " B"]  # its place in the dataset's corpora


@dataclass(frozen=True, eq=False)
class _Split:
    """The rows of a split by the table's numbers, and their codes on the feed's device."""

    source: Int64[Tensor, " N"]
    target: Int64[Tensor, " N"]
    task: UInt8[Tensor, " N"]
    corpus: UInt8[Tensor, " N"]


class _Pace(NamedTuple):
    """How an epoch is walked at one batch size."""

    steps: int
    ahead: int  # steps whose batches are gathered in one go: a piece
    size: int  # bytes of a batch


class Feed:
    """The rows of some tasks of a dataset, ready for packs of any width.

    Their sentences live on the device, in the dtype stored, or stay in the dataset's file where
    they exceed *resident_bytes*: by default, a share of the device's free memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        tasks: Sequence[Task],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        resident_bytes: int | None = None,
    ) -> None:
        check_rows(dataset, tasks)
        self.dataset, self.tasks = dataset, tuple(tasks)
        self.device, self.dtype = device, dtype
        rows = {split: dataset.rows(tasks, split) for split in SPLITS}
        train = rows["train"]
        self.source_scale, self.target_scale = scale.fit(
            dataset.embeddings, (train.source, train.target), dataset.normalisation
        )
        self._source_affine = _affine(self.source_scale, device, dtype)
        self._target_affine = _affine(self.target_scale, device, dtype)
        self.table = Table(dataset.embeddings, _used(dataset, rows), device, resident_bytes)
        self._splits = {name: self._split(each) for name, each in rows.items()}
        self._same = all(torch.equal(each.source, each.target) for each in rows.values())
        self._mixture = _mixture(dataset, train)
        self._paces: dict[int, _Pace] = {}
        self._orders: Recent[Tensor] = Recent(_ORDERS_KEPT)
        room = min(_BATCHES_MOST, int(free_memory(device) * _BATCHES_SHARE))
        self._batches: Earliest[_Batches] = Earliest(room)
        self._passing: Recent[tuple[int, _Batches]] = Recent(_PASSING_KEPT)

    @property
    def train_rows(self) -> int:
        return len(self._splits["train"].source)

    def rows(self, split: str) -> int:
        """How many rows a *split* has."""
        return len(self._splits[split].source)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last one is filled up from the start of the epoch's order."""
        return -(-self.train_rows // batch_size)

    def batch(
        self, places: Mapping[int, tuple[int, int]], width: int, batch_size: int
    ) -> tuple[Float[Tensor, "P B D"], Float[Tensor, "P B D"]]:
        """Sources and targets of the next step of each slot; only to be read.

        *places* maps a slot to its (data seed, steps done); the other slots repeat one of these.
        """
        spare = next(iter(places.values()), (0, 0))
        if width == 1:
            return self._batch(places.get(0, spare), batch_size)
        chosen = [places.get(slot, spare) for slot in range(width)]
        found = {place: self._batch(place, batch_size) for place in {*chosen}}
        if len(found) == 1:
            # Seen by each slot as it lies in memory, like a batch of its own: the same bits follow.
            source, target = found[chosen[0]]
            return source.expand(width, -1, -1), target.expand(width, -1, -1)
        source = torch.cat([found[place][0] for place in chosen])
        return source, source if self._same else torch.cat([found[place][1] for place in chosen])

    def parts(self, split: str, batch_size: int) -> Iterator[Part]:
        """A *split* in pieces of nearly equal size."""
        rows = self._splits[split]
        pieces = -(-len(rows.source) // batch_size)
        columns = (rows.source, rows.target, rows.task, rows.corpus)
        first = 0
        for source, target, task, corpus in zip(
            *(column.tensor_split(pieces) for column in columns), strict=True
        ):
            yield Part(
                first=first,
                source=self._scaled(source, self._source_affine),
                target=self._scaled(target, self._target_affine),
                stored=self.table.gather(target).to(self.dtype),
                sentence=target.to(self.device),
                task=task,
                corpus=corpus,
            )
            first += len(source)

    def _batch(self, place: tuple[int, int], batch_size: int) -> tuple[Tensor, Tensor]:
        """Source and target (1, B, D) of the next step at *place*."""
        seed, done = place
        pace = self._paces.get(batch_size) or self._new_pace(batch_size)
        epoch, step = divmod(done, pace.steps)
        # Pieces have fixed borders, so a batch lies the same wherever training started.
        piece, offset = divmod(step, pace.ahead)
        found = self._batches.get((seed, batch_size), (epoch, piece))
        return (found or self._piece(epoch, piece, seed, batch_size))[offset]

    def _piece(self, epoch: int, piece: int, seed: int, batch_size: int) -> _Batches:
        """The batches of a *piece* that is not kept: the one at hand, or gathered anew."""
        stream = (seed, epoch, batch_size)
        passing = self._passing.get(stream)
        if passing is not None and passing[0] == piece:
            return passing[1]
        del passing
        self._passing.drop(stream)  # its memory, still in the cache, is used again
        pace = self._paces[batch_size]
        first = piece * pace.ahead
        numbers = self._order(seed, epoch, batch_size)[first : first + pace.ahead]
        found, size = self._gathered(numbers), pace.size * len(numbers)
        if not self._batches.put((seed, batch_size), (epoch, piece), found, size):
            self._passing.put(stream, (piece, found), size)
        return found

    def _new_pace(self, batch_size: int) -> _Pace:
        side = batch_size * self.table.width * self.dtype.itemsize
        size = side if self._same else 2 * side
        # Off the border, only the first batch of a piece would start where every other does.
        ahead = 1 if side % _ALIGNMENT else max(1, _AHEAD_BYTES // size)
        self._paces[batch_size] = _Pace(self.steps_per_epoch(batch_size), ahead, size)
        return self._paces[batch_size]

    def _gathered(self, numbers: Int64[Tensor, "S B"]) -> _Batches:
        """Batches of the training rows *numbers*."""
        rows, flat = self._splits["train"], numbers.flatten()
        shape = (len(numbers), 1, numbers.shape[1], self.table.width)
        source = self._scaled(rows.source.index_select(0, flat), self._source_affine)
        sources = source.view(shape).unbind()
        if self._same:
            return list(zip(sources, sources, strict=True))
        target = self._scaled(rows.target.index_select(0, flat), self._target_affine)
        return list(zip(sources, target.view(shape).unbind(), strict=True))

    def _scaled(
        self, numbers: Int64[Tensor, " K"], affine: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "K D"]:
        """Sentences in the units of the cube.

        Two operations that round each number for itself: the same bits on every device, and
        wherever in a batch a sentence stands.
        """
        mean, factor = affine
        return self.table.gather(numbers).to(self.dtype).sub_(mean).mul_(factor)

    def _order(self, seed: int, epoch: int, batch_size: int) -> Int64[Tensor, "S B"]:
        key = (seed, epoch, batch_size)
        found = self._orders.get(key)
        if found is None:
            rows = self._mixture.order(seed, epoch)
            found = order.batches(rows, batch_size).to(self.table.home)
            self._orders.put(key, found, found.nbytes)
        return found

    def _split(self, rows: Rows) -> _Split:
        return _Split(
            source=self.table.numbers(rows.source),
            target=self.table.numbers(rows.target),
            task=rows.task.to(self.device),
            corpus=rows.corpus.to(self.device),
        )


def check_rows(dataset: Dataset, tasks: Sequence[Task]) -> None:
    """DataError unless each of *tasks* has rows in every split."""
    for task in tasks:
        empty = [split for split, count in dataset.counts([task]).items() if count == 0]
        if empty:
            raise DataError(
                f"{dataset.folder}: no rows for task {task.value!r} in split {', '.join(empty)}; "
                f"build the dataset with --task {task.value} and more files that have such rows"
            )


def _affine(each: Scale, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What is taken off, and what is multiplied by then."""
    return each.mean.to(device, dtype), each.deviation.reciprocal().to(device, dtype)


def _used(dataset: Dataset, rows: Mapping[str, Rows]) -> Tensor:
    """Which sentences *rows* name."""
    used = torch.zeros(len(dataset.embeddings), dtype=torch.bool)
    for each in rows.values():
        used[each.source] = used[each.target] = True
    return used


def _mixture(dataset: Dataset, train: Rows) -> Mixture:
    weights = {code: dataset.weights.get(name, 1.0) for code, name in enumerate(dataset.corpora)}
    present = train.corpus.unique().tolist()
    if not any(weights[code] > 0 for code in present):
        names = ", ".join(dataset.corpora[code] for code in present)
        raise DataError(
            f"{dataset.folder}: the mixing weight of every corpus with training rows is 0 "
            f"({names}); build the dataset again with a weight above 0 for one of them"
        )
    return order.mixture(train.corpus, weights)
