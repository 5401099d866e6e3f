"""What a batch costs: from the feed, from torch's DataLoader, and beside a step of training.

All cases take their turns in every round of one run, so a busy machine slows them alike, and a
ratio is taken within its round. Times are of one batch, in microseconds, until it is handed over:
one that is given again is a view of what was gathered before, and has yet to be read.

A batch that is asked for the first time has to be copied, and a bare copy of float32 rows is itself
only some five times cheaper than a DataLoader's batch: those lines miss the goal.

N rows, D embedding.
"""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cubeopt import provenance
from cubeopt.data.dataset import COLUMNS, SPLITS, TASKS, Dataset
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import CubeShape, Task, TrialSpec

MOST_ROWS = 50_000  # for training, of each task: the comparison needs a copy of them in memory
SLOTS = 8
# The short trials of studies/cube8.yaml, one after the other: one in three passes a rung.
TRIALS, RUNGS, REDUCTION = 100, (1, 2, 5), 3
LOADER_GOAL = 20.0  # times that a batch from the feed is cheaper than one from a DataLoader
STEP_GOAL = 0.02  # of a training step that a batch may cost

LOADER = "DataLoader, a batch"
COPY = "bare copy of the rows, 8 batches a call"
FRESH = "feed, a batch for the first time"
AGAIN = "feed, a batch again (the next trial)"
STUDY = "feed, a batch in the short trials of a study"
SAME = f"feed, {SLOTS} slots at the same epoch"
APART = f"feed, {SLOTS} slots at different epochs"
STEP = "training step"
PACK_STEP = f"training step, {SLOTS} slots"

Case = Callable[[int], float]  # seconds of one batch, in this round


@dataclass(frozen=True)
class Timing:
    """A case over all rounds."""

    task: str
    case: str
    microseconds: float  # median
    low: float  # quartiles
    high: float


@dataclass(frozen=True)
class Ratio:
    """One case over another, round by round."""

    task: str
    what: str
    value: float  # median
    low: float  # quartiles
    high: float
    goal: str | None
    met: bool | None


@dataclass(frozen=True)
class Report:
    """What was measured, on what."""

    dataset: str
    train_rows: Mapping[str, int]  # by task
    embedding_size: int
    batch_size: int
    rounds: int
    timings: Sequence[Timing]
    ratios: Sequence[Ratio]
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def synthetic(rows: int, width: int) -> Dataset:
    """*rows* pairs of random sentences for training, and one in each of the other splits."""
    count = rows + 2
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2 * count, width, generator=generator)
    row = torch.arange(count)
    columns = {
        "source": row.repeat(2),
        "target": torch.cat([row, row + count]),
        "task": _codes(Task.RECONSTRUCT, Task.DIALOGUE).repeat_interleave(count),
        "split": (row - rows + 1).clamp(0).repeat(2),
        "corpus": torch.zeros(2 * count),
        "label": torch.full((2 * count,), -1),
        "group": row.repeat(2),
    }
    return Dataset(
        folder=Path("random rows"),
        fingerprint="",
        manifest={},
        embeddings=torch.nn.functional.normalize(embeddings, dim=1),
        columns={name: columns[name].to(dtype) for name, dtype in COLUMNS.items()},
        corpora=("random",),
        tasks=(Task.RECONSTRUCT, Task.DIALOGUE),
    )


def trimmed(dataset: Dataset, task: Task) -> Dataset:
    """*dataset* with MOST_ROWS training rows of *task* at most, and its other splits."""
    wanted = torch.isin(dataset.columns["task"], _codes(task))
    training = wanted & (dataset.columns["split"] == SPLITS.index("train"))
    kept = wanted & ~(training & (training.cumsum(0) > MOST_ROWS))
    columns = {name: column[kept] for name, column in dataset.columns.items()}
    return replace(dataset, columns=columns, tasks=(task,))


def loader(feed: Feed, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """torch's own way to the same content: every row's two embeddings, standardised, in memory."""
    parts = list(feed.parts("train", 1024))
    sides = (torch.cat([p.source for p in parts]), torch.cat([p.target for p in parts]))
    return DataLoader(TensorDataset(*sides), batch_size=batch_size, shuffle=True, num_workers=0)


def measure(
    dataset: Dataset,
    device: torch.device,
    rounds: int = 7,
    shape: CubeShape | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Time every case of every task of *dataset*; *tell* hears of each round."""
    width = dataset.embeddings.shape[1]
    shape = shape or CubeShape(embedding_size=width)
    feeds = {task: Feed(trimmed(dataset, task), [task], device) for task in dataset.tasks}
    table = {(task, name): case for task in feeds for name, case in cases(feeds[task], shape)}
    times: dict[tuple[Task, str], list[float]] = {key: [] for key in table}
    for number in range(rounds + 1):
        for key, case in table.items():
            seconds = case(number)
            if number > 0:  # the first round warms up
                times[key].append(seconds * 1e6)
        tell(number + 1, rounds + 1)
    return Report(
        dataset=str(dataset.folder),
        train_rows={str(task): feed.train_rows for task, feed in feeds.items()},
        embedding_size=width,
        batch_size=shape.batch_size,
        rounds=rounds,
        timings=[Timing(str(task), name, *_quartiles(row)) for (task, name), row in times.items()],
        ratios=[ratio for task in feeds for ratio in _ratios(task, times)],
        machine={
            **provenance.hardware(),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def cases(feed: Feed, shape: CubeShape) -> list[tuple[str, Case]]:
    """What is timed for one task, by name."""
    steps, batch_size = feed.steps_per_epoch(shape.batch_size), shape.batch_size
    torch_loader = loader(feed, batch_size)

    def from_loader(number: int) -> float:
        start = time.perf_counter()
        for _ in torch_loader:
            pass
        return (time.perf_counter() - start) / steps

    def copied(number: int) -> float:
        """The rows themselves, eight batches a call, into memory that stays in the cache."""
        sides = torch_loader.dataset.tensors  # type: ignore[attr-defined]
        order, size = torch.randperm(len(sides[0]), device=feed.device), 8 * batch_size
        calls = [order[first : first + size] for first in range(0, len(order), size)]
        places = [torch.empty_like(side[:size]) for side in sides]
        start = time.perf_counter()
        for rows in calls:
            for side, place in zip(sides, places, strict=True):
                torch.index_select(side, 0, rows, out=place[: len(rows)])
        _wait(feed.device)
        return (time.perf_counter() - start) / steps

    def again(number: int) -> float:
        _epoch(feed, batch_size, 0, 1, 0)
        return _epoch(feed, batch_size, 0, 1, 0)

    return [
        (LOADER, from_loader),
        (COPY, copied),
        # With a seed of its own in each round, so that no batch was asked for before.
        (FRESH, lambda number: _epoch(feed, batch_size, 1000 + number, 1, 0)),
        (AGAIN, again),
        (STUDY, lambda number: _study(feed, batch_size, 4000 + number)),
        (SAME, lambda number: _epoch(feed, batch_size, 2000 + number, SLOTS, 0)),
        (APART, lambda number: _epoch(feed, batch_size, 3000 + number, SLOTS, 1)),
        (STEP, _training(feed, shape, 1)),
        (PACK_STEP, _training(feed, shape, SLOTS)),
    ]


def _epoch(feed: Feed, batch_size: int, seed: int, slots: int, apart: int) -> float:
    """Seconds of a batch in a whole epoch of a pack whose slots stand *apart* epochs."""
    steps = feed.steps_per_epoch(batch_size)
    start = time.perf_counter()
    for step in range(steps):
        places = {slot: (seed, step + slot * apart * steps) for slot in range(slots)}
        feed.batch(places, slots, batch_size)
    _wait(feed.device)
    return (time.perf_counter() - start) / steps


def _study(feed: Feed, batch_size: int, seed: int) -> float:
    """Seconds of a batch in all short trials together, the first of each epoch among them."""
    steps, asked = feed.steps_per_epoch(batch_size), 0
    start = time.perf_counter()
    for trial in range(TRIALS):
        passed = sum(trial % REDUCTION**rung == 0 for rung in range(1, len(RUNGS)))
        for step in range(RUNGS[passed] * steps):
            feed.batch({0: (seed, step)}, 1, batch_size)
        asked += RUNGS[passed] * steps
    _wait(feed.device)
    return (time.perf_counter() - start) / asked


def _training(feed: Feed, shape: CubeShape, slots: int) -> Case:
    run = PackRun(shape, slots, feed)
    spec = TrialSpec(shape=shape)
    for slot in range(slots):
        run.fill(slot, run.fresh(spec))

    def case(number: int) -> float:
        start = time.perf_counter()
        run.step()
        _wait(feed.device)
        return time.perf_counter() - start

    return case


def _ratios(task: Task, times: Mapping[tuple[Task, str], Sequence[float]]) -> list[Ratio]:
    def ratio(what: str, above: str, below: str, times_above: int = 1) -> Ratio:
        pairs = zip(times[task, above], times[task, below], strict=True)
        found = _quartiles([times_above * one / other for one, other in pairs])
        if below in (STEP, PACK_STEP):
            return Ratio(str(task), what, *found, f"under {STEP_GOAL:g}", found[0] < STEP_GOAL)
        if below == COPY:
            return Ratio(str(task), what, *found, None, None)
        return Ratio(str(task), what, *found, f"at least {LOADER_GOAL:g}", found[0] >= LOADER_GOAL)

    return [
        ratio("DataLoader / feed, in the short trials of a study", LOADER, STUDY),
        ratio("DataLoader / feed, for the first time", LOADER, FRESH),
        ratio("DataLoader / feed, again", LOADER, AGAIN),
        ratio("DataLoader / bare copy of the rows", LOADER, COPY),
        ratio(f"{SLOTS} DataLoaders / feed, {SLOTS} slots at the same epoch", LOADER, SAME, SLOTS),
        ratio(f"{SLOTS} DataLoaders / feed, {SLOTS} slots apart", LOADER, APART, SLOTS),
        ratio("feed, for the first time / step", FRESH, STEP),
        ratio("feed, again / step", AGAIN, STEP),
        ratio(f"feed / step, {SLOTS} slots at the same epoch", SAME, PACK_STEP),
        ratio(f"feed / step, {SLOTS} slots apart", APART, PACK_STEP),
    ]


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def _codes(*tasks: Task) -> Tensor:
    return torch.tensor([TASKS.index(task) for task in tasks], dtype=torch.uint8)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
