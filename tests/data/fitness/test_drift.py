import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cubeopt.data.dataset import TASKS, Dataset
from cubeopt.data.fitness import drift, excerpt, spectrum
from cubeopt.data.fitness.drift import Part, Told
from cubeopt.trial import Task

Made = Callable[..., Dataset]
Rows = Callable[..., Tensor]


def _told(held: Dataset) -> Told | None:
    train, unseen = (excerpt.sentences(held, split) for split in ("train", "validation"))
    fitted = spectrum.axes(spectrum.moments(16, excerpt.pieces(held, train.rows)))
    return drift.told(held, train, unseen, fitted, 8)


def _parts(held: Dataset) -> list[Part]:
    train = excerpt.sentences(held, "train")
    out = train.groups % 5 == 0
    splits = {
        "train": train.where(~out),
        "held-out train": train.where(out),
        "validation": excerpt.sentences(held, "validation"),
        "test": excerpt.sentences(held, "test"),
    }
    sums = {
        name: spectrum.moments(16, excerpt.pieces(held, each.rows)) for name, each in splits.items()
    }
    return drift.parts(held, splits, sums, 4)


def _grouped(made: Made, table: Tensor, size: int, **columns: Tensor) -> Dataset:
    group = torch.arange(len(table)) // size
    split = torch.where(group % 10 < 6, 0, torch.where(group % 10 < 8, 1, 2))
    return made(table, group=group, split=split, **columns)


@pytest.mark.parametrize("size", [1, 10])
def test_splits_of_one_kind_differ_as_much_as_chance_makes_them(
    made: Made, rows: Rows, size: int
) -> None:
    """Sentences of a group are alike, so ten times as many of them say no more."""
    table = rows(600 // size, 1, 16).repeat_interleave(size, 0) + 0.05 * rows(600, 2, 16)
    held = _grouped(made, table, size)
    told = _told(held)
    assert told is not None
    assert told.low <= told.auc <= told.high
    assert (told.train, told.validation) == (360, 120)
    assert told.groups == 120 // size
    for part in _parts(held):
        assert part.shift is not None
        assert 0.6 < part.shift < 1.4


def test_the_shift_is_in_standard_errors_of_group_means(made: Made, rows: Rows) -> None:
    held = _grouped(made, rows(200, 1, 16), 5)
    found = {part.split: part for part in _parts(held)}

    def mean_and_error(rows: Tensor, groups: Tensor) -> tuple[Tensor, float]:
        mean = rows.mean(0)
        totals = [(rows[groups == each] - mean).sum(0) for each in groups.unique()]
        squares = float(torch.stack(totals).square().sum())
        return mean, squares * len(totals) / (len(totals) - 1) / len(rows) ** 2

    group, split = held.columns["group"], held.columns["split"]
    train = (split == 0) & (group % 5 != 0)
    base, base_error = mean_and_error(held.embeddings[train], group[train])
    for name, chosen in (("validation", split == 1), ("test", split == 2)):
        mean, error = mean_and_error(held.embeddings[chosen], group[chosen])
        expected = float((mean - base).norm()) / math.sqrt(error + base_error)
        assert found[name].shift == pytest.approx(expected, rel=1e-4)
        assert found[name].groups == len(group[chosen].unique())


def test_another_kind_of_validation_is_told(made: Made, rows: Rows) -> None:
    table = rows(600, 1, 16)
    plain = _grouped(made, table, 5)
    table = table + 0.3 * (plain.columns["split"] == 1)[:, None]
    told = _told(_grouped(made, table, 5))
    assert told is not None
    assert told.auc > max(0.9, told.high)
    shifts = {part.split: part.shift for part in _parts(_grouped(made, table, 5))}
    assert shifts["validation"] is not None
    assert shifts["validation"] > 3.0


def test_variance_off_the_training_axes_is_lost(made: Made, rows: Rows) -> None:
    table = torch.cat([rows(600, 1, 4), torch.zeros(600, 12)], dim=1)
    unseen = _grouped(made, table, 5).columns["split"] == 1
    table[unseen] = table[unseen].roll(8, 1)
    lost = {part.split: part.unexplained for part in _parts(_grouped(made, table, 5))}
    assert lost["held-out train"] == pytest.approx(0.0, abs=1e-9)
    assert lost["validation"] == pytest.approx(1.0, abs=0.05)


def test_one_group_can_not_be_judged(made: Made, rows: Rows) -> None:
    split = torch.arange(60) % 2
    held = made(rows(60, 1, 16), split=split, group=torch.where(split == 1, 99, torch.arange(60)))
    assert _told(held) is None
    assert {part.split: part.shift for part in _parts(held)}["validation"] is None


def test_the_test_is_repeatable(made: Made, rows: Rows) -> None:
    held = _grouped(made, rows(200, 1, 16), 2)
    assert _told(held) == _told(held)


def test_shares_count_rows_and_groups_of_everything_named(made: Made, rows: Rows) -> None:
    task = torch.tensor([0, 0, 2, 2, 2, 2])
    held = made(
        rows(6, 1, 8),
        {Task.NLI: ("yes", "no")},
        task=torch.where(task == 2, TASKS.index(Task.NLI), 0),
        corpus=torch.tensor([0, 1, 1, 1, 1, 1]),
        label=torch.tensor([-1, -1, 0, 0, 1, -1]),
        split=torch.tensor([0, 1, 0, 0, 0, 2]),
        group=torch.tensor([0, 1, 2, 2, 3, 4]),
    )
    found = {(each.what, each.name): each for each in drift.shares(held)}
    assert list(found) == [
        ("task", "reconstruct"),
        ("task", "nli"),
        ("corpus", "corpus 0"),
        ("corpus", "corpus 1"),
        ("label", "nli: yes"),
        ("label", "nli: no"),
        ("label", "nli: unknown"),
    ]
    assert found["task", "nli"].rows == {"train": 3, "validation": 0, "test": 1}
    assert found["task", "nli"].groups == {"train": 2, "validation": 0, "test": 1}
    assert found["label", "nli: unknown"].rows == {"train": 0, "validation": 0, "test": 1}
