"""A row's own target, among the distinct targets of a split."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from cubeopt.data import retrieval


def slow_ranks(guess: Tensor, target: Tensor, sentence: list[int], task: list[int]) -> list[int]:
    """By the words of the docstring: one pair after another."""
    found = []
    for row, own in enumerate(zip(task, sentence, strict=True)):
        cosines = {
            other: float(torch.cosine_similarity(guess[row], target[place], dim=0))
            for place, other in enumerate(zip(task, sentence, strict=True))
            if other[0] == own[0]
        }
        others = [value for other, value in cosines.items() if other != own]
        found.append(1 + sum(value >= cosines[own] for value in others))
    return found


def of_one_task(rows: int) -> Tensor:
    return torch.zeros(rows, dtype=torch.uint8)


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Guesses near some of 40 targets, of which only 25 are distinct."""
    generator = torch.Generator().manual_seed(3)
    sentence = torch.randint(0, 25, (40,), generator=generator)
    target = torch.randn(25, 6, generator=generator, dtype=torch.float64)[sentence]
    noise = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    return 3.0 * target + 2.0 * noise, target, sentence


@pytest.mark.parametrize("tasks", [1, 3])
def test_ranks_are_those_of_a_slow_comparison(pairs, tasks, monkeypatch):
    guess, target, sentence = pairs
    task = (torch.arange(40) % tasks).to(torch.uint8)
    expected = slow_ranks(guess, target, sentence.tolist(), task.tolist())
    assert max(expected) > 1
    assert retrieval.ranks(guess, target, sentence, task).tolist() == expected
    monkeypatch.setattr(retrieval, "_PIECE", 7)
    assert retrieval.ranks(guess, target, sentence, task).tolist() == expected


def test_a_target_of_another_task_is_no_candidate():
    # The guess is the question, which stands for itself in a row of another task.
    question, answer, other = torch.tensor([[1.0, 0.1], [1.0, 1.0], [0.0, 1.0]])
    guess = torch.stack([question, question, other])
    target = torch.stack([question, answer, other])
    task = torch.tensor([0, 1, 1], dtype=torch.uint8)
    assert retrieval.ranks(guess, target, torch.arange(3), task).tolist() == [1, 1, 1]
    assert retrieval.ranks(guess, target, torch.arange(3), of_one_task(3)).tolist() == [1, 2, 1]


def test_numbers_of_ranks():
    ranks = torch.tensor([1, 2, 1, 4])
    assert retrieval.top1(ranks) == 0.5
    assert retrieval.mrr(ranks) == (1 + 1 / 2 + 1 + 1 / 4) / 4


def test_the_same_target_elsewhere_counts_for_a_row_not_against_it():
    target = torch.eye(4)[[0, 0, 0, 1]]
    ranks = retrieval.ranks(target, target, torch.tensor([7, 7, 7, 9]), of_one_task(4))
    assert ranks.tolist() == [1, 1, 1, 1]


def test_a_popular_wrong_target_is_one_candidate():
    target = torch.eye(4)[[0, 0, 0, 1]]
    guess = torch.eye(4)[[0, 0, 0, 0]]
    assert retrieval.ranks(guess, target, torch.tensor([7, 7, 7, 9]), of_one_task(4)).tolist() == [
        1,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize("number", [0.0, math.nan])
def test_a_guess_without_direction_finds_nothing(number):
    target = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    ranks = retrieval.ranks(torch.full((9, 5), number), target, torch.arange(9), of_one_task(9))
    assert ranks.tolist() == [9] * 9


def test_a_constant_guess_finds_one_target_in_all():
    target = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    ranks = retrieval.ranks(target.mean(0).expand(9, 5), target, torch.arange(9), of_one_task(9))
    assert sorted(ranks.tolist()) == list(range(1, 10))


@pytest.mark.parametrize(("count", "limit"), [(0, 5), (1, 5), (5, 5), (6, 5), (11, 5), (1000, 7)])
def test_places_are_spread_evenly_over_the_split(monkeypatch, count, limit):
    monkeypatch.setattr(retrieval, "LIMIT", limit)
    places = retrieval.places(count).tolist()
    assert places == sorted(set(places))
    assert len(places) == min(count, limit)
    assert all(0 <= place < count for place in places)
    gaps = {later - earlier for earlier, later in itertools.pairwise([*places, count])}
    assert not gaps or max(gaps) - min(gaps) <= 1
