"""Sums over links against dense matrices."""

import pytest
import torch

from cubeopt.lattice.links import Links, hear, hear_backward


def some_links(cells, count, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(cells * cells, generator=generator)[:count].sort().values
    return Links(cells, pairs // cells, pairs % cells)


@pytest.mark.parametrize("count", [0, 1, 7, 36])
@pytest.mark.parametrize("trials", [1, 3])
def test_hearing_is_a_product_with_a_sparse_matrix_and_so_is_its_gradient(trials, count):
    links = some_links(6, count, seed=count)
    generator = torch.Generator().manual_seed(1)
    weight, shown, gradient = (
        torch.randn(*size, dtype=torch.float64, generator=generator, requires_grad=True)
        for size in ((trials, count), (trials, 6 * 2, 5), (trials, 6 * 2, 5))
    )
    place = (links.listener * 6 + links.speaker).expand(trials, -1)
    dense = torch.zeros(trials, 36, dtype=torch.float64).scatter(1, place, weight).view(-1, 6, 6)
    expected = (dense @ shown.reshape(trials, 6, 10)).view(trials, 12, 5)
    found = hear(links, weight.detach(), shown.detach())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected, (shown, weight), gradient)
    found = hear_backward(gradient.detach(), links, weight.detach(), shown.detach())
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_links_of_a_pack_are_made_once():
    links = some_links(6, 7, seed=0)
    assert links.of_pack(3) is links.of_pack(3)
    assert links.of_pack(3) is not links.of_pack(2)
