"""Train a pack, step by step. The loop does no input or output: its caller decides who goes on.

P slots, N weights of a trial.
"""

import math
import resource
import sys
import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.errors import ConfigError
from cubeopt.lattice.cube import Cube
from cubeopt.lattice.pack import LossColumn
from cubeopt.training import losses, metrics, optim, schedules
from cubeopt.training.feed import Feed
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
        self.arena.requires_grad_(True)
        self._optim = optim.PackAdamW(self.arena, layout.decay_mask())
        self._loss_knobs = LossColumn(width, feed.device, dtype)
        self._slots: list[_Slot | None] = [None] * width
        self._names: list[str] = []  # of the columns that a slot adds up
        self.steps_per_epoch = feed.steps_per_epoch(shape.batch_size)

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

    @torch.no_grad()
    def fill(self, slot: int, state: TrialState) -> None:
        """Put a trial into *slot*, at the step that it has reached."""
        if state.spec.shape != self.shape:
            raise ConfigError(f"a pack has one shape: {self.shape}, got {state.spec.shape}")
        self.arena[slot] = state.weights.to(self.arena)
        self._optim.mean[slot] = state.mean.to(self.arena)
        self._optim.square[slot] = state.square.to(self.arena)
        self._loss_knobs.put(slot, state.spec.loss)
        self._slots[slot] = _Slot(state.spec, state.step, time.perf_counter())

    @torch.no_grad()
    def empty(self, slot: int) -> None:
        """Take the trial out of *slot*; what was there cannot reach its successor."""
        for rows in (self.arena, self._optim.mean, self._optim.square):
            rows[slot] = 0.0
        self._slots[slot] = None

    @torch.no_grad()
    def state(self, slot: int) -> TrialState:
        """A copy of the trial in *slot*, on the CPU."""
        held = self._held(slot)
        weights, mean, square = (
            rows[slot].detach().cpu().clone()
            for rows in (self.arena, self._optim.mean, self._optim.square)
        )
        return TrialState(held.spec, held.step, weights, mean, square)

    def step(self) -> list[EpochEnd]:
        """Train every busy slot on its next batch; the slots whose epoch that ended report."""
        places = {
            index: (held.spec.plan.data_seed, held.step)
            for index, held in enumerate(self._slots)
            if held is not None
        }
        source, target = self.feed.batch(places, self.width, self.shape.batch_size)
        passage = self.cube.forward(self.arena, source)
        each = losses.terms(passage, source, target, self._loss_knobs)
        loss = losses.total(each, self._loss_knobs)
        (gradient,) = torch.autograd.grad(loss.sum(), self.arena)
        self._update(gradient, {"loss/total": loss, **{f"loss/{k}": v for k, v in each.items()}})
        ended = [index for index in places if self._held(index).step % self.steps_per_epoch == 0]
        return self._epoch_ends(ended) if ended else []

    def steps_done(self, slot: int) -> int:
        """Batches that the trial in *slot* has seen."""
        return self._held(slot).step

    def running_loss(self, slot: int) -> float:
        """Mean weighted loss of *slot* over the batches of its current epoch so far."""
        held = self._held(slot)
        if held.sums is None:
            return math.nan
        return float(held.sums[self._names.index("loss/total")]) / held.batches

    def evaluate(self, split: str) -> list[dict[str, float]]:
        """The metrics of every slot on *split*."""
        return metrics.evaluate(self.cube, self.arena, self.feed, self._loss_knobs, split)

    @torch.no_grad()
    def _update(self, gradient: Float[Tensor, "P N"], each: dict[str, Tensor]) -> None:
        squares = self.cube.layout.by_module(gradient.square())
        norm = squares.sum(1).sqrt()
        rates, decays, limits, counts = self._optim_columns()
        gradient = optim.clipped(gradient, norm, limits)
        self._optim.step(self.arena, gradient, rates, decays, counts)
        norms = squares.sqrt().unbind(1)
        each = each | {"gradient_norm/all": norm}
        each |= {
            f"gradient_norm/{name}": column
            for name, column in zip(self.cube.layout.modules, norms, strict=True)
        }
        table = torch.stack([column.detach() for column in each.values()], dim=1).double()
        for index, held in enumerate(self._slots):
            if held is not None:
                held.step += 1
                held.batches += 1
                held.sums = table[index] if held.sums is None else held.sums + table[index]
        self._names = list(each)

    def _optim_columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rate, decay, clip and step number of each slot; an idle slot stands still."""
        rows = []
        for held in self._slots:
            if held is None:
                rows.append((0.0, 0.0, 1.0, 1.0))
                continue
            knobs, total = held.spec.optim, held.spec.plan.epochs * self.steps_per_epoch
            rate = knobs.learning_rate * schedules.multiplier(knobs, held.step, total)
            rows.append((rate, knobs.weight_decay, knobs.gradient_clip, held.step + 1.0))
        columns = torch.tensor(rows, dtype=self.arena.dtype, device=self.arena.device)
        return columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3]

    def _epoch_ends(self, ended: list[int]) -> list[EpochEnd]:
        """Close the epoch of the slots *ended*; those with a validation due are validated."""
        epochs = {index: self._held(index).step // self.steps_per_epoch for index in ended}
        due = [index for index in ended if _validates(self._held(index).spec, epochs[index])]
        validated = self.evaluate("validation") if due else []
        ends = []
        for index in ended:
            row = self._training_row(index)
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
