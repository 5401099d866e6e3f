"""Metrics over some rows of a split, against slow ones."""

import math

import numpy as np
import pytest
import torch

from cubeopt.training.sampled import effective_rank


def rows(count: int, width: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count + width)
    wide = torch.randn(count, rank, generator=generator) * torch.linspace(1.0, 3.0, rank)
    return wide @ torch.randn(rank, width, generator=generator) + 5.0


@pytest.mark.parametrize(("count", "width"), [(40, 12), (12, 40), (20, 20)])
@pytest.mark.parametrize("rank", [1, 3, 12])
def test_effective_rank_is_that_of_the_singular_values(count, width, rank):
    given = rows(count, width, rank).double()
    exact = given.numpy()
    variance = np.linalg.svd(exact - exact.mean(0), compute_uv=False) ** 2
    shares = variance / variance.sum()
    shares = shares[shares > 1e-15]
    assert effective_rank(given) == pytest.approx(
        math.exp(-float((shares * np.log(shares)).sum())), rel=1e-6
    )


def test_effective_rank_counts_directions_that_are_equally_used():
    both = torch.cat([torch.eye(6), -torch.eye(6)])
    assert effective_rank(both) == pytest.approx(6.0)
    assert effective_rank(both[:, :1].repeat(1, 6)) == pytest.approx(1.0)


def test_rows_that_do_not_vary_have_no_rank():
    assert effective_rank(torch.full((30, 7), 0.1)) == 0.0
    assert effective_rank(torch.zeros(30, 7)) == 0.0
    assert effective_rank(torch.ones(1, 7)) == 0.0


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_rows_that_are_not_finite_have_no_number(number):
    given = rows(10, 4, 2)
    given[3, 1] = number
    assert math.isnan(effective_rank(given))
