from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import SPLITS, Dataset
from cubeopt.data.fitness import excerpt, neighbours
from cubeopt.data.fitness.neighbours import Neighbours

Made = Callable[..., Dataset]
Rows = Callable[..., Tensor]


def _found(held: Dataset) -> dict[str, Neighbours]:
    splits = {split: excerpt.sentences(held, split) for split in SPLITS}
    return {each.split: each for each in neighbours.neighbours(held, splits, lambda share: None)}


@pytest.fixture
def table(rows: Rows) -> Tensor:
    """300 sentences, of which each of the first 60 has a copy with noise of some size."""
    table = rows(300, 1, 32)
    size = torch.linspace(0.0, 0.06, 60)[:, None]
    table[60:120] = table[:60] + size * rows(60, 2, 32)
    return table


@pytest.mark.parametrize("block", [7, 4096])
def test_counts_are_those_of_all_cosines(
    made: Made, table: Tensor, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    held = made(table)
    split = held.columns["split"]
    cosines = F.cosine_similarity(table[:, None], table, dim=2).fill_diagonal_(-1.0)
    for code, (name, found) in enumerate(_found(held).items()):
        own = cosines[split == code]
        assert (found.looked_at, found.compared_with) == (len(own), 300)
        for threshold in neighbours.THRESHOLDS:
            within = (own[:, split == code] >= threshold).any(1).sum()
            across = (own[:, split != code] >= threshold).any(1).sum()
            assert found.within[str(threshold)] == within, name
            assert found.across[str(threshold)] == across, name


def test_the_same_sentence_in_two_splits_is_a_copy_in_the_other(made: Made, rows: Rows) -> None:
    held = made(
        rows(5, 1, 16),
        source=torch.tensor([0, 1, 2, 2, 3, 4]),
        split=torch.tensor([0, 0, 0, 1, 1, 2]),
    )
    found = _found(held)
    assert found["validation"].across["0.999"] == found["train"].across["0.999"] == 1
    assert found["validation"].within["0.999"] == found["train"].within["0.999"] == 0


def test_a_row_of_zeros_is_near_nothing(made: Made) -> None:
    found = _found(made(torch.zeros(20, 8)))
    assert all(
        sum(each.within.values()) + sum(each.across.values()) == 0 for each in found.values()
    )


def test_the_work_is_bounded_and_says_so(
    made: Made, table: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "COMPARED", 100)
    monkeypatch.setattr(neighbours, "PRODUCTS", 3000)
    found = _found(made(table))
    assert [each.sentences for each in found.values()] == [240, 30, 30]
    assert {each.compared_with for each in found.values()} == {100}
    assert [each.looked_at for each in found.values()] == [10, 10, 10]


def test_an_empty_split_has_no_copies(made: Made, rows: Rows) -> None:
    held = made(rows(10, 1, 8), split=torch.arange(10) % 2)
    assert _found(held)["test"] == Neighbours(
        "test",
        0,
        0,
        10,
        dict.fromkeys(("0.999", "0.99", "0.95"), 0),
        dict.fromkeys(("0.999", "0.99", "0.95"), 0),
    )
