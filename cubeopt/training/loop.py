"""Train a pack, step by step. The loop does no input or output: its caller decides who goes on.

P slots, G of them in one pass, N weights of a trial, K terms of the loss, M modules and their sum,
R numbers of a batch, B samples, D embedding size.
"""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.errors import ConfigError
from cubeopt.lattice.cube import Cube
from cubeopt.lattice.pack import Columns, columns, computes_together
from cubeopt.training import captured, gradient, losses, metrics, noise, optim
from cubeopt.training import device as devices
from cubeopt.training.accumulation import Accumulation
from cubeopt.training.averaging import Averaging
from cubeopt.training.feed import Feed
from cubeopt.training.gradient import Given
from cubeopt.training.schedules import Plateau
from cubeopt.training.slots import IDLE_PACE, Slot, progress
from cubeopt.training.tally import Tally
from cubeopt.training.utilisation import Meter
from cubeopt.training.weighting import Weighting
from cubeopt.trial import CubeShape, TrialSpec

_STATUS = Path("/proc/self/status")
_TINY = 1e-6


@dataclass(frozen=True)
class TrialState:
    """All that a trial needs to go on: the same numbers follow wherever it does."""

    spec: TrialSpec
    step: int  # batches done
    weights: Float[Tensor, " N"]
    mean: Float[Tensor, " N"]  # first moment of the gradient
    square: Float[Tensor, " N"]  # second moment
    average: Float[Tensor, " N"] | None = None  # of the weights, with ema_decay
    gathered: Float[Tensor, " N"] | None = None  # gradients since the last update
    plateau: Plateau = field(default_factory=Plateau)
    kept: Mapping[str, Tensor] = field(default_factory=dict)  # by the weighting and the tally


@dataclass(frozen=True)
class EpochEnd:
    """What a trial has reached at the end of one of its epochs."""

    slot: int
    epoch: int
    metrics: dict[str, float]
    diverged: bool


@dataclass(frozen=True)
class _Pass:
    """What some slots say of their next batch."""

    gradient: Float[Tensor, "G N"]
    numbers: Float[Tensor, "G R"]  # what the tally adds up
    slope: Float[Tensor, "G K"]  # of the loss, by what the weighting learns


class PackRun:
    """P slots of one shape that step together; a slot is filled, read and emptied at any step."""

    def __init__(
        self,
        shape: CubeShape,
        width: int,
        feed: Feed,
        dtype: torch.dtype = torch.float32,
        graphs: bool = True,
    ) -> None:
        """*graphs*: whether a GPU may record passes (see `captured`)."""
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
        self._accumulation = Accumulation(width, layout.size, self.arena)
        self._averaging = Averaging(self.arena)
        self._weighting = Weighting(width, self.arena)
        self._tally = Tally(width, layout.modules, feed.device)
        self._together = computes_together(shape, feed.device)
        self._columns: dict[tuple[int, ...], Columns] = {}
        self._slots: list[Slot | None] = [None] * width
        self.steps_per_epoch = feed.steps_per_epoch(shape.batch_size)
        self._meter = Meter(feed.device)
        self._compute = partial(gradient.found, self.cube)
        stays = (self.arena, self._weighting.learned)
        self._graphs = captured.graphs(self._compute, stays, feed.device) if graphs else None

    @property
    def settled(self) -> bool:
        """Whether the last step took as long as the next ones will: nothing is left to try."""
        return self._graphs is None or self._graphs.settled

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
        knobs = state.spec.optim
        self._accumulation.fill(slot, knobs.gradient_accumulation, state.gathered)
        self._averaging.fill(slot, knobs.ema_decay, state.average)
        self._weighting.fill(slot, state.spec.loss, knobs.gradient_accumulation, state.kept)
        self._tally.fill(slot, state.kept)
        self._columns.clear()
        now = time.perf_counter()
        self._slots[slot] = Slot(
            state.spec, state.step, state.plateau, self.steps_per_epoch, now, state.step
        )

    def empty(self, slot: int) -> None:
        """Take the trial out of *slot*; what was there cannot reach its successor."""
        for rows in (self.arena, self._optim.mean, self._optim.square):
            rows[slot] = 0.0
        for memory in (self._accumulation, self._averaging, self._weighting, self._tally):
            memory.empty(slot)
        self._slots[slot] = None

    def state(self, slot: int) -> TrialState:
        """A copy of the trial in *slot*, on the CPU."""
        held = self._held(slot)
        weights, mean, square = (
            rows[slot].cpu().clone() for rows in (self.arena, self._optim.mean, self._optim.square)
        )
        kept = self._weighting.kept(slot)
        if held.batches:
            kept |= self._tally.kept(slot)
        return TrialState(
            spec=held.spec,
            step=held.step,
            weights=weights,
            mean=mean,
            square=square,
            average=self._averaging.row(slot),
            gathered=self._accumulation.row(slot) if held.gathered else None,
            plateau=held.plateau,
            kept=kept,
        )

    def step(self) -> list[EpochEnd]:
        """Train every busy slot on its next batch; the slots whose epoch that ended report."""
        busy = self.busy
        if not busy:
            return []
        batch = self._joined([(slots, self._pass(slots)) for slots in self._passes(busy)])
        ended = [slot for slot in busy if self._held(slot).ends_epoch]
        ratios = self._update(batch, ended)
        for slot in busy:
            self._held(slot).step += 1
        return self._epoch_ends(ended, ratios) if ended else []

    def steps_done(self, slot: int) -> int:
        """Batches that the trial in *slot* has seen."""
        return self._held(slot).step

    def running(self, slot: int) -> dict[str, float]:
        """The training numbers of *slot*, means over the batches of its current epoch so far."""
        held = self._held(slot)
        if not held.batches:
            return {}
        return self._tally.means(slot, held.batches, max(1, held.updates_in_epoch))

    def evaluate(
        self, split: str, slots: Sequence[int] | None = None
    ) -> dict[int, dict[str, float]]:
        """The metrics of *slots* (else of all busy ones) on *split*, by slot."""
        chosen = self.busy if slots is None else list(slots)
        rows: dict[int, dict[str, float]] = {}
        # The pieces of a split seldom fill whole vectors, so a CPU takes slot by slot.
        for group in [[slot] for slot in chosen] if self.feed.device.type == "cpu" else [chosen]:
            found = metrics.evaluate(
                self.cube,
                self._averaging.evaluated(group),
                self.feed,
                self._knobs(group),
                split,
            )
            rows |= dict(zip(group, found, strict=True))
        return rows

    def by_corpus(self, slot: int, split: str) -> dict[str, dict[str, float]]:
        """How the trial in *slot* does on the rows of each corpus in *split*."""
        arena = self._averaging.evaluated([slot])
        return metrics.by_corpus(self.cube, arena, self.feed, self._knobs([slot]), split)

    def _passes(self, busy: list[int]) -> list[list[int]]:
        """The slots that go through the cube together; a whole pack has the idle ones with it."""
        return [list(range(self.width))] if self._together else [[slot] for slot in busy]

    def _joined(self, passes: list[tuple[list[int], _Pass]]) -> _Pass:
        """One pass of all slots, from those of some of them."""
        if self._together:
            return passes[0][1]
        first = passes[0][1]
        whole = [
            part.new_zeros(self.width, part.shape[1])
            for part in (first.gradient, first.numbers, first.slope)
        ]
        for slots, each in passes:
            for part, rows in zip(whole, (each.gradient, each.numbers, each.slope), strict=True):
                part[slots] = rows
        return _Pass(*whole)

    def _pass(self, slots: list[int]) -> _Pass:
        """What these slots say of their next batch."""
        given = self._given(slots)
        if self._graphs is None:
            found = self._compute(given)
        else:
            found = self._graphs(given, max(self._held(slot).left for slot in self.busy))
        slope = self._weighting.gradient(slots, found.terms, found.weighted, found.norms)
        return _Pass(found.gradient, found.numbers, slope)

    def _given(self, slots: list[int]) -> Given:
        """The next batch of *slots* and what its gradient depends on beside it."""
        held = [self._slots[slot] for slot in slots]
        places = [None if each is None else each.place for each in held]
        batches = {
            index: (place.spec.plan.data_seed, place.step)
            for index, place in enumerate(places)
            if place is not None
        }
        source, target = self.feed.batch(batches, len(slots), self.shape.batch_size)
        dtype, device = self.arena.dtype, self.arena.device
        return Given(
            weights=self.arena if self._together else self.arena[slots],
            source=source,
            target=target,
            noise=noise.input_noise(places, dtype, device),
            dropout=noise.dropout(places, dtype, device),
            knobs=self._knobs(slots),
            factors=self._weighting.factors(slots, progress(held)),
        )

    def _knobs(self, slots: Sequence[int]) -> Columns:
        """The knobs of these slots; idle ones have the defaults."""
        key = tuple(slots)
        if key not in self._columns:
            held = [self._slots[slot] for slot in slots]
            specs = [None if each is None else each.spec for each in held]
            self._columns[key] = columns(specs, self.feed.device, self.arena.dtype)
        return self._columns[key]

    def _update(self, batch: _Pass, ended: list[int]) -> Float[Tensor, "P M"] | None:
        """Move the slots whose group of batches ends with this one; the `_ratios` if some *ended*.

        They would be 1.5 % of a small step on a CPU, and more launches on a GPU than the update, so
        only the last update of an epoch is looked at.
        """
        self._tally.add(batch.numbers)
        counts = [1 if held is None else held.closes for held in self._slots]
        mean = self._accumulation.mean(batch.gradient, counts)
        pace, limit = self._paces()
        if self._weighting.learns:
            self._weighting.update(batch.slope, counts, pace)
        moving = [slot for slot in self.busy if counts[slot]]
        if not moving:
            return None
        norms = self.cube.layout.norms(mean)
        norm = torch.linalg.vector_norm(norms, dim=1)
        before = self.arena.clone() if ended else None
        resting = [slot for slot in self.busy if not counts[slot]]
        self._optim.step(self.arena, optim.clipped(mean, norm, limit), pace, resting)
        self._tally.add_updates(torch.cat([norm[:, None], norms], dim=1), counts)
        averaged = [slot for slot in moving if self._averaging.has(slot)]
        self._averaging.follow({slot: self._held(slot).updates + 1 for slot in averaged})
        return None if before is None else self._ratios(before)

    def _ratios(self, before: Float[Tensor, "P N"]) -> Float[Tensor, "P M"]:
        """Size of the weights' change since *before* over their size: of all, and by module."""
        change, size = (
            torch.cat([torch.linalg.vector_norm(each, dim=1, keepdim=True), each], dim=1)
            for each in map(self.cube.layout.norms, (self.arena - before, before))
        )
        return change / size.clamp(min=_TINY)

    def _paces(self) -> tuple[optim.Pace, Float[Tensor, " P"]]:
        """How the next update moves each slot, and its clip."""
        rows = [
            (*IDLE_PACE, 1.0) if held is None else (*held.pace(), held.spec.optim.gradient_clip)
            for held in self._slots
        ]
        columns = devices.tensor(rows, self.arena.dtype, self.arena.device)
        *pace, limit = columns.unbind(1)
        return optim.Pace(*pace), limit

    def _epoch_ends(self, ended: list[int], ratios: Float[Tensor, "P M"] | None) -> list[EpochEnd]:
        """Close the epoch of the slots *ended*; those with a validation due are validated."""
        assert ratios is not None
        due = [index for index in ended if self._held(index).validates]
        validated = self.evaluate("validation", due)
        used = self._meter.read()
        ends = []
        for index in ended:
            row = self._training_row(index, ratios[index].tolist()) | used
            if index in due:
                row |= {f"validation/{name}": x for name, x in validated[index].items()}
                self._held(index).heard(row["validation/fvu"])
            finite = all(torch.tensor(list(row.values())).isfinite().tolist())
            ends.append(EpochEnd(index, self._held(index).epoch, row, diverged=not finite))
        return ends

    def _training_row(self, index: int, ratios: Sequence[float]) -> dict[str, float]:
        """Means over the batches of the epoch that just ended, and what it cost."""
        held = self._held(index)
        means = self._tally.means(index, self.steps_per_epoch, held.updates_per_epoch)
        self._tally.empty(index)
        self._weighting.epoch_ended(index, [means[f"loss/{term}"] for term in losses.TERMS])
        modules = ("all", *self.cube.layout.modules)
        means |= {f"update_ratio/{m}": ratio for m, ratio in zip(modules, ratios, strict=True)}
        now = time.perf_counter()
        seconds, batches = now - held.started, held.step - held.since
        row = {f"train/{name}": mean for name, mean in means.items()}
        row["learning_rate"] = held.rate(held.step - 1)  # of the epoch's last batch
        row["epoch_seconds"] = seconds
        row["samples_per_second"] = batches * self.shape.batch_size / seconds
        row["parameters"] = float(self.cube.layout.count)
        row["peak_memory_bytes"] = float(peak_memory(self.feed.device))
        held.started, held.since = now, held.step
        return row

    def _held(self, slot: int) -> Slot:
        held = self._slots[slot]
        assert held is not None, f"slot {slot} is idle"
        return held


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of the device's allocator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # getrusage would count what the parent had when it started us
        (line,) = [each for each in _STATUS.read_text().splitlines() if each[:6] == "VmHWM:"]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
