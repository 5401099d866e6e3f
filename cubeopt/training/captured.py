"""Passes of a pack as CUDA graphs: one launch in place of some hundreds, where that is faster.

A pack of few trials asks for so many small operations that a GPU waits for their launches. `found`
of `gradient` is a function of tensors, so its operations can be recorded once and repeated on what
is copied into the recording's inputs.

Nothing is taken for granted. A pass is recorded when it has been made as often as recording it
costs, and if so many batches are left. What the recording gives must equal, bit for bit, what the
pass gives, and it must be faster; otherwise, or when recording fails, one line says so and the pack
goes on without.
"""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cubeopt import settings
from cubeopt.training.gradient import Found, Given

logger = logging.getLogger(__name__)

# What a recording costs, in passes: those that are timed, two to record, instantiation, replays.
# Counted generously, not measured: no GPU was at hand.
COST = 20
_KEPT = 4  # recordings at most; the one used last goes last
_TIMED = 3  # passes of each kind, of which the fastest counts
_OFF = "CUBEOPT_CUDA_GRAPHS=off spares the attempt"

Compute = Callable[[Given], Found]
# A recorded pass. What it finds lies where it lay last time: it is used before the next.
Replay = Callable[[Given], Found]
Key = tuple[tuple[Any, ...] | None, ...]


@runtime_checkable
class Recorder(Protocol):
    """Who records passes, and times them."""

    def record(self, compute: Compute, given: Given, stays: Sequence[Tensor]) -> Replay:
        """Of *compute* on what has the form of *given*; RuntimeError where that does not go.

        The tensors *stays* are read where they lie; all others are copied at each replay.
        """

    def timed(self, call: Callable[[], Found]) -> tuple[float, Found]:
        """The seconds that *call* takes on the device, waited for, and what it found."""


def graphs(compute: Compute, stays: Sequence[Tensor], device: torch.device) -> "Graphs | None":
    """Of passes on *device*; None on a CPU, or where a person turned them off."""
    if device.type != "cuda" or not settings.cuda_graphs():
        return None
    return Graphs(compute, stays, CudaRecorder(device))


class Graphs:
    """Makes passes, those that come often as recordings."""

    def __init__(self, compute: Compute, stays: Sequence[Tensor], recorder: Recorder) -> None:
        self._compute, self._stays, self._recorder = compute, list(stays), recorder
        self._seen: Counter[Key] = Counter()
        self._refused: set[Key] = set()
        self._recorded: OrderedDict[Key, Replay] = OrderedDict()
        self._failed = False
        self.settled = False  # whether the last pass was made as the next ones will be

    def __call__(self, given: Given, left: int) -> Found:
        """One pass, of which so many are *left*."""
        key = _key(given)
        if key in self._recorded:
            self.settled = True
            self._recorded.move_to_end(key)
            return self._recorded[key](given)
        self.settled = self._failed or key in self._refused or left < COST
        self._seen[key] += 1
        if self.settled or self._seen[key] < COST:
            return self._made(given)
        self.settled = True
        return self._tried(key, given)

    def _tried(self, key: Key, given: Given) -> Found:
        """The pass, and a decision on how the next of this kind are made."""
        eager, expected = self._fastest(lambda: self._made(given))
        try:
            replay = self._recorder.record(self._compute, given, self._stays)
            same = _same(replay(given), expected)
            replayed, _ = self._fastest(lambda: replay(given))
        except RuntimeError as error:
            self._failed = True
            reason = (str(error) or type(error).__name__).splitlines()[0]
            logger.warning("no CUDA graphs for this pack (%s); it trains without. %s", reason, _OFF)
            return expected
        figures = f"{replayed * 1e3:.2f} ms a pass against {eager * 1e3:.2f}"
        if not same:
            self._refused.add(key)
            logger.warning("a CUDA graph gave other numbers than the pass it is of; left. %s", _OFF)
        elif replayed >= eager:
            self._refused.add(key)
            logger.info("a CUDA graph would not be faster: %s", figures)
        else:
            logger.info("a CUDA graph from now on: %s", figures)
            self._recorded[key] = replay
            if len(self._recorded) > _KEPT:
                dropped, _ = self._recorded.popitem(last=False)
                self._seen[dropped] = 0
        return expected

    def _made(self, given: Given) -> Found:
        """The pass itself. Where memory runs out, the recordings, which hold some, go first."""
        try:
            return self._compute(given)
        except torch.OutOfMemoryError:
            if not self._recorded:
                raise
        self._recorded.clear()
        self._failed = True
        logger.warning("memory is short: this pack trains without CUDA graphs from now on")
        return self._compute(given)

    def _fastest(self, call: Callable[[], Found]) -> tuple[float, Found]:
        return min((self._recorder.timed(call) for _ in range(_TIMED)), key=lambda each: each[0])


@dataclass(frozen=True, eq=False)
class Inputs:
    """Tensors of a recording's own, in the form of what was given, to be filled again and again."""

    given: Given
    copied: list[tuple[int, Tensor]]  # which leaf of what is given goes where

    def fill(self, given: Given) -> None:
        """Take over what is *given*."""
        found = _leaves(given)
        for place, own in self.copied:
            own.copy_(_once(found[place]))


def inputs(given: Given, stays: Sequence[Tensor]) -> Inputs:
    """Those for a recording of a pass on *given*, filled; what is among *stays* is taken itself."""
    own: list[Tensor | None] = []
    copied = []
    for place, leaf in enumerate(_leaves(given)):
        if leaf is None or any(leaf is each for each in stays):
            own.append(leaf)
            continue
        # Expanded where the leaf is: the same operations follow, on memory of the same layout.
        whole = torch.empty_strided(
            leaf.size(), leaf.stride(), dtype=leaf.dtype, device=leaf.device
        )
        own.append(whole)
        copied.append((place, _once(whole)))
    made = Inputs(_rebuilt(given, iter(own)), copied)
    made.fill(given)
    return made


# The caching allocator may go on asking a graph whose capture failed whether it captures. So it
# must not be freed, and nothing is captured in this process any more.
_BROKEN: list[torch.cuda.CUDAGraph] = []


class CudaRecorder:
    """Records on a stream of its own; all recordings share one pool of memory.

    They may: none needs what another left there, since what a pass found is used before the next.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Compute, given: Given, stays: Sequence[Tensor]) -> Replay:
        """As `Recorder.record`. Before it captures, torch gives free memory back to the device."""
        if _BROKEN:
            raise RuntimeError("an earlier capture of this process failed")
        own = inputs(given, stays)
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            compute(own.given)  # what a stream needs of its own (cuBLAS's workspace) is made now
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                found = compute(own.given)
        except torch.OutOfMemoryError:
            raise  # the capture has ended in order
        except RuntimeError:
            _BROKEN.append(graph)
            raise
        finally:
            torch.cuda.set_stream(current)  # torch leaves its own where the end of a capture fails
        return _CudaReplay(graph.replay, own, found)

    def timed(self, call: Callable[[], Found]) -> tuple[float, Found]:
        torch.cuda.synchronize(self._device)
        start = time.perf_counter()
        found = call()
        torch.cuda.synchronize(self._device)
        return time.perf_counter() - start, found


@dataclass(frozen=True, eq=False)
class _CudaReplay:
    repeat: Callable[[], None]  # all operations that were captured
    inputs: Inputs
    found: Found

    def __call__(self, given: Given) -> Found:
        self.inputs.fill(given)
        self.repeat()
        return self.found


def _key(given: Given) -> Key:
    """Which tensors there are, and in which form: equal for passes of the same operations."""
    return tuple(
        None if leaf is None else (leaf.dtype, *leaf.size(), *leaf.stride())
        for leaf in _leaves(given)
    )


def _same(found: Found, expected: Found) -> bool:
    """To the last bit, but for the sign of a zero and what a NaN looks like."""
    pairs = zip(_leaves(found), _leaves(expected), strict=True)
    return all(
        one is other is None or torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
        for one, other in pairs
    )


def _leaves(tree: Any) -> list[Any]:
    """The tensors and Nones in a tuple of tuples, in order."""
    if isinstance(tree, tuple):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree]


def _rebuilt(tree: Any, leaves: Iterator[Any]) -> Any:
    """A tuple of tuples like *tree* with other *leaves*."""
    if isinstance(tree, tuple):
        return type(tree)(*(_rebuilt(part, leaves) for part in tree))
    return next(leaves)


def _once(tensor: Tensor) -> Tensor:
    """*tensor* without the repetitions of what it repeats."""
    for axis, (size, stride) in enumerate(zip(tensor.size(), tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor
