from collections.abc import Callable

import torch
from torch import Tensor

from cubeopt.data.dataset import Dataset
from cubeopt.data.fitness import excerpt
from cubeopt.data.normalisation import Normalisation
from cubeopt.trial import Task

Made = Callable[..., Dataset]


def test_sentences_are_those_of_all_tasks_of_the_split_each_once(made: Made) -> None:
    held = made(
        torch.eye(6),
        source=torch.tensor([0, 1, 2, 0, 4]),
        target=torch.tensor([3, 1, 2, 2, 5]),
        task=torch.tensor([1, 0, 0, 1, 1]),
        split=torch.tensor([0, 0, 0, 0, 1]),
        group=torch.tensor([7, 8, 9, 7, 6]),
    )
    found = excerpt.sentences(held, "train")
    assert found.rows.tolist() == [0, 1, 2, 3]
    assert found.groups.tolist() == [7, 8, 9, 7]  # of the first row that holds the sentence
    assert found.of == 4
    assert excerpt.sentences(held, "validation").rows.tolist() == [4, 5]
    assert len(excerpt.sentences(held, "test")) == 0


def test_what_is_drawn_is_a_part_and_always_the_same() -> None:
    drawn = excerpt.draw(1000, 50)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == 50
    assert torch.equal(drawn, excerpt.draw(1000, 50))
    assert excerpt.draw(50, 50).tolist() == list(range(50))


def test_an_excerpt_says_out_of_how_many_it_was_drawn(made: Made) -> None:
    found = excerpt.sentences(made(torch.eye(100)), "train").drawn(9)
    assert (len(found), len(found.groups), found.of) == (9, 9, 80)


def test_whole_groups_are_held_out() -> None:
    groups = torch.arange(40).repeat_interleave(5)[torch.arange(200) * 7 % 200]
    held = excerpt.held_out(groups, 0.2)
    assert set(groups[held].tolist()).isdisjoint(groups[~held].tolist())
    assert int(held.sum()) == 40


def test_a_lone_group_is_never_held_out() -> None:
    assert not bool(excerpt.held_out(torch.zeros(9, dtype=torch.int64), 0.2).any())
    assert excerpt.held_out(torch.arange(2), 0.9).sum() == 1


def test_numbers_are_those_that_the_cube_is_given(made: Made, rows: Callable[..., Tensor]) -> None:
    table = 3.0 * rows(20, 1, 8) + 5.0
    held = made(table)
    assert torch.equal(excerpt.numbers(held, torch.tensor([3, 1])), table[[3, 1]])
    seen = Dataset(
        held.folder,
        held.fingerprint,
        {},
        table.half(),
        held.columns,
        held.corpora,
        (Task.RECONSTRUCT,),
        normalisation=Normalisation("standardise", table.mean(0), table.std(0, correction=0)),
    )
    numbers = torch.cat(list(excerpt.pieces(seen, torch.arange(20), 7)))
    assert numbers.dtype == torch.float64
    torch.testing.assert_close(numbers.mean(0), torch.zeros(8).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(
        numbers.std(0, correction=0), torch.ones(8).double(), rtol=0.01, atol=0
    )
