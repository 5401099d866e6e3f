"""Train a pack, step by step. The loop does no input or output: its caller decides who goes on.

P slots, G of them in one pass, N weights of a trial, K terms of the loss.
"""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.errors import ConfigError
from cubeopt.lattice.cube import Cube
from cubeopt.lattice.pack import Columns, columns, computes_together
from cubeopt.training import losses, metrics, optim, schedules
from cubeopt.training.feed import Feed
from cubeopt.training.utilisation import Meter
from cubeopt.trial import CubeShape, TrialSpec


@dataclass(frozen=True)
class TrialState:
    """All that a trial needs to go on: the same numbers follow wherever it does."""

    spec: TrialSpec
    step: int  # batches done
    weights: Float[Tensor, " N"]
    mean: Float[Tensor, " N"]  # first moment of the gradient
    square: Float[Tensor, " N"]  # second moment


@dataclass(frozen=True)
class EpochEnd:
    """What a trial has reached at the end of one of its epochs."""

    slot: int
    epoch: int
    metrics: dict[str, float]
    diverged: bool


@dataclass
class _Slot:
    """A trial in its place, and what its current epoch has added up."""

    spec: TrialSpec
    step: int
    started: float
    batches: int = 0
    sums: Tensor | None = None  # of the training numbers, in the order of PackRun._names


class PackRun:
    """P slots of one shape that step together; a slot is filled, read and emptied at any step."""

    def __init__(
        self, shape: CubeShape, width: int, feed: Feed, dtype: torch.dtype = torch.float32
    ) -> None:
        if shape.embedding_size != feed.dataset.embeddings.shape[1]:
            raise ConfigError(
                f"embedding_size is {shape.embedding_size}, but the dataset "
                f"{feed.dataset.folder} has embeddings of {feed.dataset.embeddings.shape[1]}"
            )
        self.shape, self.width, self.feed = shape, width, feed
        self.cube = Cube(shape, feed.device)
        layout = self.cube.layout
        self.arena = torch.zeros(width, layout.size, device=feed.device, dtype=dtype)
        self._optim = optim.PackAdamW(self.arena, layout.decay_mask())
        self._together = computes_together(shape, feed.device)
        self._columns: dict[tuple[int, ...], Columns] = {}
        self._slots: list[_Slot | None] = [None] * width
        self._names = [
            *("loss/total", *(f"loss/{term}" for term in losses.TERMS), "gradient_norm/all"),
            *(f"gradient_norm/{module}" for module in layout.modules),
        ]
        self.steps_per_epoch = feed.steps_per_epoch(shape.batch_size)
        self._meter = Meter(feed.device)

    @property
    def free(self) -> list[int]:
        """The slots without a trial."""
        return [index for index, slot in enumerate(self._slots) if slot is None]

    @property
    def busy(self) -> list[int]:
        """The slots with a trial."""
        return [index for index, slot in enumerate(self._slots) if slot is not None]

    def fresh(self, spec: TrialSpec) -> TrialState:
        """*spec* before its first step, with weights from its own seed."""
        weights = self.cube.layout.initial(spec.seed)
        return TrialState(spec, 0, weights, torch.zeros_like(weights), torch.zeros_like(weights))

    def fill(self, slot: int, state: TrialState) -> None:
        """Put a trial into *slot*, at the step that it has reached."""
        if state.spec.shape != self.shape:
            raise ConfigError(f"a pack has one shape: {self.shape}, got {state.spec.shape}")
        self.arena[slot] = state.weights.to(self.arena)
        self._optim.mean[slot] = state.mean.to(self.arena)
        self._optim.square[slot] = state.square.to(self.arena)
        self._columns.clear()
        self._slots[slot] = _Slot(state.spec, state.step, time.perf_counter())

    def empty(self, slot: int) -> None:
        """Take the trial out of *slot*; what was there cannot reach its successor."""
        for rows in (self.arena, self._optim.mean, self._optim.square):
            rows[slot] = 0.0
        self._slots[slot] = None

    def state(self, slot: int) -> TrialState:
        """A copy of the trial in *slot*, on the CPU."""
        held = self._held(slot)
        weights, mean, square = (
            rows[slot].cpu().clone() for rows in (self.arena, self._optim.mean, self._optim.square)
        )
        return TrialState(held.spec, held.step, weights, mean, square)

    def step(self) -> list[EpochEnd]:
        """Train every busy slot on its next batch; the slots whose epoch that ended report."""
        busy = self.busy
        gradient = torch.zeros_like(self.arena)
        terms = self.arena.new_zeros(self.width, 1 + len(losses.TERMS))
        for slots in self._passes(busy):
            gradient[slots], terms[slots] = self._gradient(slots)
        self._update(gradient, terms)
        ended = [slot for slot in busy if self._held(slot).step % self.steps_per_epoch == 0]
        return self._epoch_ends(ended) if ended else []

    def steps_done(self, slot: int) -> int:
        """Batches that the trial in *slot* has seen."""
        return self._held(slot).step

    def running(self, slot: int) -> dict[str, float]:
        """The training numbers of *slot*, means over the batches of its current epoch so far."""
        held = self._held(slot)
        if held.sums is None:
            return {}
        return dict(zip(self._names, (held.sums / held.batches).tolist(), strict=True))

    def evaluate(
        self, split: str, slots: Sequence[int] | None = None
    ) -> dict[int, dict[str, float]]:
        """The metrics of *slots* (else of all busy ones) on *split*, by slot."""
        chosen = self.busy if slots is None else list(slots)
        rows: dict[int, dict[str, float]] = {}
        # The pieces of a split seldom fill whole vectors, so a CPU takes slot by slot.
        for group in [[slot] for slot in chosen] if self.feed.device.type == "cpu" else [chosen]:
            found = metrics.evaluate(
                self.cube, self.arena[group], self.feed, self._knobs(group), split
            )
            rows |= dict(zip(group, found, strict=True))
        return rows

    def _passes(self, busy: list[int]) -> list[list[int]]:
        """The slots that go through the cube together; a whole pack has the idle ones with it."""
        return [list(range(self.width))] if self._together else [[slot] for slot in busy]

    def _gradient(self, slots: list[int]) -> tuple[Float[Tensor, "G N"], Float[Tensor, "G K"]]:
        """Gradient and loss terms (the weighted total first) of these slots on their next batch."""
        places = {
            index: (held.spec.plan.data_seed, held.step)
            for index, slot in enumerate(slots)
            if (held := self._slots[slot]) is not None
        }
        source, target = self.feed.batch(places, len(slots), self.shape.batch_size)
        knobs = self._knobs(slots)
        weights = self.arena[slots].requires_grad_()
        passage = self.cube.forward(weights, source, knobs.cube)
        each = losses.terms(passage, source, target, knobs.loss)
        loss = losses.total(each, knobs.loss)
        (gradient,) = torch.autograd.grad(loss.sum(), weights)
        terms = torch.stack([loss, *(each[name] for name in losses.TERMS)], dim=1)
        return gradient, terms.detach()

    def _knobs(self, slots: Sequence[int]) -> Columns:
        """The knobs of these slots; idle ones have the defaults."""
        key = tuple(slots)
        if key not in self._columns:
            held = [self._slots[slot] for slot in slots]
            specs = [None if each is None else each.spec for each in held]
            self._columns[key] = columns(specs, self.feed.device, self.arena.dtype)
        return self._columns[key]

    def _update(self, gradient: Float[Tensor, "P N"], terms: Float[Tensor, "P K"]) -> None:
        squares = self.cube.layout.by_module(gradient.square())
        norm = squares.sum(1).sqrt()
        update = self._optim_columns()
        self._optim.step(self.arena, optim.clipped(gradient, norm, update.pop("limit")), **update)
        table = torch.cat([terms, norm[:, None], squares.sqrt()], dim=1).double()
        for index, held in enumerate(self._slots):
            if held is not None:
                held.step += 1
                held.batches += 1
                held.sums = table[index] if held.sums is None else held.sums + table[index]

    def _optim_columns(self) -> dict[str, Float[Tensor, " P"]]:
        """Rate, decay, clip and bias corrections of each slot; an idle slot stands still."""
        rows = []
        for held in self._slots:
            if held is None:
                rows.append((0.0, 0.0, 1.0, 1.0, 1.0))
                continue
            knobs, rate = held.spec.optim, self._rate(held, held.step)
            corrections = optim.corrections(held.step + 1)
            rows.append((rate, knobs.weight_decay, knobs.gradient_clip, *corrections))
        columns = torch.tensor(rows, dtype=self.arena.dtype, device=self.arena.device)
        names = ("rate", "decay", "limit", "of_mean", "of_square")
        return {name: columns[:, index] for index, name in enumerate(names)}

    def _rate(self, held: _Slot, step: int) -> float:
        """The learning rate of a trial at *step*."""
        knobs, total = held.spec.optim, held.spec.plan.epochs * self.steps_per_epoch
        return knobs.learning_rate * schedules.multiplier(knobs, step, total)

    def _epoch_ends(self, ended: list[int]) -> list[EpochEnd]:
        """Close the epoch of the slots *ended*; those with a validation due are validated."""
        epochs = {index: self._held(index).step // self.steps_per_epoch for index in ended}
        due = [index for index in ended if _validates(self._held(index).spec, epochs[index])]
        validated = self.evaluate("validation", due)
        used = self._meter.read()
        ends = []
        for index in ended:
            row = self._training_row(index) | used
            if index in due:
                row |= {f"validation/{name}": x for name, x in validated[index].items()}
            finite = all(torch.tensor(list(row.values())).isfinite().tolist())
            ends.append(EpochEnd(index, epochs[index], row, diverged=not finite))
        return ends

    def _training_row(self, index: int) -> dict[str, float]:
        """Means over the batches of the epoch that just ended, and what it cost."""
        held = self._held(index)
        assert held.sums is not None
        means = (held.sums / held.batches).tolist()
        now = time.perf_counter()
        seconds = now - held.started
        row = {f"train/{name}": x for name, x in zip(self._names, means, strict=True)}
        row["learning_rate"] = self._rate(held, held.step - 1)  # of the epoch's last batch
        row["epoch_seconds"] = seconds
        row["samples_per_second"] = held.batches * self.shape.batch_size / seconds
        row["peak_memory_bytes"] = float(peak_memory(self.feed.device))
        held.started, held.batches, held.sums = now, 0, None
        return row

    def _held(self, slot: int) -> _Slot:
        held = self._slots[slot]
        assert held is not None, f"slot {slot} is idle"
        return held


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of the device's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _validates(spec: TrialSpec, epoch: int) -> bool:
    return epoch % spec.plan.validation_interval == 0 or epoch == spec.plan.epochs
