"""Small packs on a small dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cubeopt import trial
from cubeopt.data.dataset import SPLITS, TASKS, Dataset
from cubeopt.training.feed import Feed
from cubeopt.training.loop import PackRun
from cubeopt.trial import Task, TrialSpec

CPU = torch.device("cpu")
SMALL = {
    "lattice_size": [3, 3, 4],
    "embedding_size": 32,
    "state_size": 6,
    "lattice_steps": 3,
    "batch_size": 8,
    "distant_links": 2,
    "epochs": 6,
    "learning_rate": 3e-3,
}
# Every slot fills whole vectors, so the pack goes through the cube in one pass.
WHOLE = {
    **SMALL,
    "lattice_size": [2, 2, 4],
    "state_size": 16,
    "functional_radius": 1.5,
    "distant_links": 1,
}
_SIZES = {"train": 45, "validation": 12, "test": 10}

Start = Callable[..., PackRun]


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Rows of low rank and some noise; an answer is a question of the same split."""
    generator = torch.Generator().manual_seed(11)
    count = sum(_SIZES.values())
    mixed = torch.randn(count, 4, generator=generator) @ torch.randn(4, 32, generator=generator)
    noisy = mixed + 0.1 * torch.randn(count, 32, generator=generator)
    split = torch.cat([torch.full((n,), SPLITS.index(name)) for name, n in _SIZES.items()])
    row = torch.arange(count)
    answer = torch.cat([row[split == code].flip(0) for code in range(len(SPLITS))])
    rows = {
        "source": row.repeat(2),
        "target": torch.cat([row, answer]),
        "task": torch.cat([torch.full((count,), TASKS.index(task)) for task in TASKS]),
        "split": split.repeat(2),
    }
    embeddings = torch.nn.functional.normalize(noisy, dim=1)
    manifest = {"tasks": [str(task) for task in TASKS]}
    return Dataset(Path("rows"), "f" * 64, manifest, embeddings, rows)


@pytest.fixture(scope="session")
def feed(dataset: Dataset) -> Feed:
    return Feed(dataset, Task.RECONSTRUCT, CPU)


@pytest.fixture(scope="session")
def feed64(dataset: Dataset) -> Feed:
    return Feed(dataset, Task.RECONSTRUCT, CPU, torch.float64)


def spec(**values: object) -> TrialSpec:
    """A small trial, with *values* put in."""
    return trial.from_flat({**SMALL, **values})


def start(feed: Feed, width: int, places: dict[int, TrialSpec]) -> PackRun:
    """A pack with fresh trials in the slots of *places*."""
    shape = next(iter(places.values()), spec()).shape
    run = PackRun(shape, width, feed, feed.raw.dtype)
    for slot, each in places.items():
        run.fill(slot, run.fresh(each))
    return run


def train(run: PackRun, steps: int) -> PackRun:
    for _ in range(steps):
        run.step()
    return run
