"""Sums over links against dense matrices."""

import pytest
import torch

from cubeopt.lattice.links import Hearing, Links, hear, hear_backward, strengths


def some_links(cells, count, seed):
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(cells * cells, generator=generator)[:count].sort().values
    return Links(cells, pairs // cells, pairs % cells)


@pytest.mark.parametrize("counts", [[0], [1], [36], [7, 12], [0, 5], [5, 0, 36]])
@pytest.mark.parametrize("trials", [1, 3])
def test_hearing_is_a_product_with_sparse_matrices_and_so_is_its_gradient(trials, counts):
    tiers = [some_links(6, count, seed=count) for count in counts]
    generator = torch.Generator().manual_seed(1)
    shown, *weights = (
        torch.randn(*size, dtype=torch.float64, generator=generator, requires_grad=True)
        for size in ((trials, 6 * 2, 5), *((trials, count) for count in counts))
    )
    expected = []
    for links, weight in zip(tiers, weights, strict=True):
        place = (links.listener * 6 + links.speaker).expand(trials, -1)
        dense = torch.zeros(trials, 36, dtype=torch.float64).scatter(1, place, weight)
        product = dense.view(-1, 6, 6) @ shown.reshape(trials, 6, 10)
        expected.append(product.view(trials, 12, 5))
    expected = torch.stack(expected)
    hearing = Hearing(tiers)
    strength = strengths(hearing, [weight.detach() for weight in weights])
    found = hear(hearing, strength, shown.detach())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradient = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad(expected, (shown, *weights), gradient)
    of_shown, of_weights = hear_backward(gradient, hearing, strength, shown.detach())
    torch.testing.assert_close((of_shown, *of_weights), wanted, rtol=1e-12, atol=1e-12)


def test_the_links_of_a_pack_are_made_once():
    hearing = Hearing([some_links(6, 7, seed=0)])
    assert hearing.of_pack(3) is hearing.of_pack(3)
    assert hearing.of_pack(3) is not hearing.of_pack(2)
