"""Small packs on a small dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cubeopt import trial
from cubeopt.data.dataset import COLUMNS, SPLITS, TASKS, Dataset
from cubeopt.data.normalisation import Normalisation
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


CORPORA = {Task.RECONSTRUCT: "lone", Task.DIALOGUE: "talks", Task.NLI: "snli"}


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Rows of low rank and some noise; an answer or a hypothesis is a sentence of its split."""
    generator = torch.Generator().manual_seed(11)
    count = sum(_SIZES.values())
    mixed = torch.randn(count, 4, generator=generator) @ torch.randn(4, 32, generator=generator)
    noisy = mixed + 0.1 * torch.randn(count, 32, generator=generator)
    split = torch.cat([torch.full((n,), SPLITS.index(name)) for name, n in _SIZES.items()])
    row = torch.arange(count)
    answer = torch.cat([row[split == code].flip(0) for code in range(len(SPLITS))])
    hypothesis = torch.cat([row[split == code].roll(5) for code in range(len(SPLITS))])
    codes = [TASKS.index(task) for task in CORPORA]
    columns = {
        "source": row.repeat(3),
        "target": torch.cat([row, answer, hypothesis]),
        "task": torch.tensor(codes).repeat_interleave(count),
        "split": split.repeat(3),
        "corpus": torch.arange(3).repeat_interleave(count),
        "label": torch.tensor([-1, -1, 2]).repeat_interleave(count),
        "group": row.repeat(3),
    }
    return made(torch.nn.functional.normalize(noisy, dim=1), columns)


def made(embeddings: Tensor, columns: dict[str, Tensor], **changes: Any) -> Dataset:
    """A dataset that stands in no folder."""
    typed = {name: columns[name].to(dtype) for name, dtype in COLUMNS.items()}
    corpora = tuple(CORPORA.values())
    return Dataset(
        Path("rows"), "f" * 64, {}, embeddings, typed, corpora, tuple(CORPORA), **changes
    )


def standardised(rows: Tensor) -> Normalisation:
    """The numbers of a dataset that was built with ``standardise`` and has *rows* to train on."""
    exact = rows.double()
    return Normalisation("standardise", exact.mean(0), exact.std(0, correction=0))


@pytest.fixture(scope="session")
def feed(dataset: Dataset) -> Feed:
    return Feed(dataset, [Task.RECONSTRUCT], CPU)


@pytest.fixture(scope="session")
def feed64(dataset: Dataset) -> Feed:
    return Feed(dataset, [Task.RECONSTRUCT], CPU, torch.float64)


# All that a trial can ask of its training beside the usual, of which gradnorm is one weighting.
FEATURES = {
    "weighting": "gradnorm",
    "schedule": "plateau",
    "plateau_patience": 0,
    "gradient_accumulation": 4,
    "ema_decay": 0.9,
    "input_noise": 0.5,
    "dropout": 0.2,
}


def spec(**values: object) -> TrialSpec:
    """A small trial, with *values* put in."""
    return trial.from_flat({**SMALL, **values})


def start(feed: Feed, width: int, places: dict[int, TrialSpec]) -> PackRun:
    """A pack with fresh trials in the slots of *places*."""
    shape = next(iter(places.values()), spec()).shape
    run = PackRun(shape, width, feed, feed.dtype)
    for slot, each in places.items():
        run.fill(slot, run.fresh(each))
    return run


def train(run: PackRun, steps: int) -> PackRun:
    for _ in range(steps):
        run.step()
    return run
