"""Whether the splits are alike: their means, their variance, and whether a classifier tells.

Rows of one group are alike, so every measure counts groups, not rows, as independent.

Shapes: N sentences, D embedding, K numbers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from cubeopt.data.dataset import SPLITS, TASKS, Dataset
from cubeopt.data.fitness import excerpt, probes
from cubeopt.data.fitness.excerpt import Excerpt
from cubeopt.data.fitness.spectrum import Axes, Moments, axes, unexplained

TOLD = 2_000  # sentences a split that the classifier sees, at most
DRAWS = 39  # random assignments of groups to splits: the highest of 39 is a level of 1 in 40
UNKNOWN = "unknown"  # what stands for a label where there is none
_PENALTY = 1e-2
_FOLDS = 2


@dataclass(frozen=True)
class Told:
    """How well a linear classifier tells validation from training sentences of unseen groups."""

    train: int
    validation: int
    groups: int  # of validation, among these sentences
    width: int  # numbers of a sentence that it sees
    auc: float  # 0.5: not at all
    low: float  # the lowest and the highest when groups are assigned to the splits by chance
    high: float


@dataclass(frozen=True)
class Part:
    """One split against the training split."""

    split: str
    sentences: int
    groups: int
    shift: float | None  # distance of its mean, in standard errors: about 1 by chance alone
    unexplained: float | None  # fvu through the axes that were fitted without the held-out groups


@dataclass(frozen=True)
class Shares:
    """How the rows of each split are made up."""

    what: str  # task, corpus or label
    name: str
    rows: dict[str, int]  # by split
    groups: dict[str, int]


@dataclass(frozen=True)
class Drift:
    """All of it."""

    width: int
    parts: list[Part]  # the held-out groups of training come first
    told: Told | None
    shares: list[Shares]


def parts(
    dataset: Dataset,
    splits: Mapping[str, Excerpt],
    held: Mapping[str, Moments],
    width: int,
) -> list[Part]:
    """Of the sentences in *splits*, whose sums are *held*, with those of training in two.

    The two are ``train`` (which fits the axes) and ``held-out train``.
    """
    fitted = axes(held["train"])
    base = _standard_error(dataset, splits["train"], held["train"])
    found = []
    for name, sums in held.items():
        if name == "train" or sums.count == 0:
            continue
        error = math.hypot(base, _standard_error(dataset, splits[name], sums))
        shift = float((sums.mean - held["train"].mean).norm())
        found.append(
            Part(
                name,
                sums.count,
                len(splits[name].groups.unique()),
                shift / error if 0 < error < math.inf else None,
                unexplained(fitted, sums, width),
            )
        )
    return found


def _standard_error(dataset: Dataset, some: Excerpt, sums: Moments) -> float:
    """Length of the standard error of the mean, groups being drawn; endless for one group."""
    _, group, sizes = torch.unique(some.groups, return_inverse=True, return_counts=True)
    count = len(sizes)
    if count < 2:
        return math.inf
    totals = torch.zeros(count, len(sums.mean))
    place = 0
    for piece in excerpt.pieces(dataset, some.rows):
        part = group[place : place + len(piece)]
        totals.index_add_(0, part, (piece - sums.mean).float())
        place += len(piece)
    squares = float(totals.square().sum(dtype=torch.float64))
    return math.sqrt(squares * count / (count - 1)) / sums.count


def told(
    dataset: Dataset, train: Excerpt, validation: Excerpt, fitted: Axes, width: int
) -> Told | None:
    """A two-sample test by a classifier on *width* axes of *fitted*; None for too few groups."""
    sides = [each.drawn(TOLD) for each in (train, validation)]
    rows = torch.cat([fitted.encode(excerpt.numbers(dataset, each.rows), width) for each in sides])
    groups = torch.cat([each.groups for each in sides])
    unseen = torch.cat([torch.full((len(each),), each is sides[1]) for each in sides])
    if min(len(each.groups.unique()) for each in sides) < _FOLDS:
        return None
    rows = rows / rows.square().sum(1).mean().sqrt().clamp(min=1e-12)
    _, which = torch.unique(groups, return_inverse=True)
    found = _cross_validated(rows, which, unseen, 0)
    assert found is not None, "both sides have a group in each fold"
    by_chance = []
    for draw in range(1, DRAWS + 1):
        value = _cross_validated(
            rows, which, excerpt.held_out(groups, len(sides[1]) / len(groups), draw), draw
        )
        if value is not None:
            by_chance.append(value)
    return Told(
        len(sides[0]),
        len(sides[1]),
        len(sides[1].groups.unique()),
        rows.shape[1],
        found,
        min(by_chance, default=0.5),
        max(by_chance, default=0.5),
    )


def _cross_validated(
    rows: Float32[Tensor, "N K"],
    groups: Int64[Tensor, " N"],
    unseen: Bool[Tensor, " N"],
    salt: int,
) -> float | None:
    """Mean AUC on the groups that the classifier was not fitted on."""
    folds = torch.zeros(len(rows), dtype=torch.int64)
    for side in (unseen, ~unseen):
        order = torch.randperm(int(groups.max()) + 1, generator=excerpt.generator(salt))
        own = order[torch.isin(order, groups[side].unique())]
        place = torch.zeros_like(order)
        place[own] = torch.arange(len(own))
        folds[side] = place[groups[side]] % _FOLDS
    values = []
    for fold in range(_FOLDS):
        fitting, asking = folds != fold, folds == fold
        if min(int((unseen & part).sum()) for part in (fitting, asking)) == 0:
            return None
        probe = probes.fit(rows[fitting], unseen[fitting].long(), 2, _PENALTY)
        logits = probe.logits(rows[asking])
        scores = logits[:, 1] - logits[:, 0]
        values.append(probes.auc(scores[unseen[asking]], scores[~unseen[asking]]))
    return sum(values) / len(values)


def shares(dataset: Dataset) -> list[Shares]:
    """Rows and groups by split: of each task, each corpus, and each label of a task."""
    columns = dataset.columns
    wanted = [("task", str(task), columns["task"] == TASKS.index(task)) for task in dataset.tasks]
    wanted += [
        ("corpus", name, columns["corpus"] == code) for code, name in enumerate(dataset.corpora)
    ]
    for task, names in dataset.label_names.items():
        of_task = columns["task"] == TASKS.index(task)
        for code, name in [*enumerate(names), (-1, UNKNOWN)]:
            wanted.append(("label", f"{task}: {name}", of_task & (columns["label"] == code)))
    return [
        Shares(
            what,
            name,
            {split: int((rows & _within(dataset, split)).sum()) for split in SPLITS},
            {
                split: len(columns["group"][rows & _within(dataset, split)].unique())
                for split in SPLITS
            },
        )
        for what, name, rows in wanted
    ]


def _within(dataset: Dataset, split: str) -> Bool[Tensor, " N"]:
    return dataset.columns["split"] == SPLITS.index(split)
