from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.fitness import spectrum
from cubeopt.data.fitness.spectrum import Axes, Moments

Rows = Callable[..., Tensor]


def _sums(table: Tensor, piece: int = 7) -> Moments:
    return spectrum.moments(table.shape[1], table.double().split(piece))


@pytest.fixture
def train(rows: Rows) -> Tensor:
    return (rows(120, 1, 20) @ rows(20, 2, 20) + 0.4).double()


@pytest.fixture
def unseen(rows: Rows) -> Tensor:
    return (rows(50, 3, 20) @ rows(20, 2, 20) + 0.5).double()


@pytest.fixture
def fitted(train: Tensor) -> Axes:
    return spectrum.axes(_sums(train))


def test_the_axes_are_the_singular_vectors(train: Tensor, fitted: Axes) -> None:
    centred = train - train.mean(0)
    values = torch.linalg.svdvals(centred).square() / len(train)
    torch.testing.assert_close(fitted.values, values, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fitted.mean, train.mean(0))
    turned = (centred @ fitted.vectors).square().mean(0)
    torch.testing.assert_close(turned, values, rtol=1e-10, atol=1e-12)


def test_sums_of_parts_are_the_sums_of_the_whole(train: Tensor) -> None:
    whole, parts = _sums(train, 200), _sums(train[:33]) + _sums(train[33:], 1)
    assert parts.count == whole.count
    for name in ("total", "squares", "directions"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_a_far_mean_costs_no_digits_that_matter(train: Tensor) -> None:
    far = spectrum.axes(_sums(train + 100.0)).values
    torch.testing.assert_close(far, spectrum.axes(_sums(train)).values, rtol=1e-6, atol=1e-9)


def test_equal_axes_count_each_in_the_effective_rank() -> None:
    assert spectrum.effective_rank(torch.ones(13).double()) == pytest.approx(13.0)
    assert spectrum.effective_rank(torch.tensor([5.0, 0.0, 0.0]).double()) == pytest.approx(1.0)
    assert spectrum.effective_rank(torch.zeros(3).double()) == 0.0


def test_explained_variance_is_a_share_that_ends_at_one(fitted: Axes) -> None:
    explained = spectrum.explained(fitted.values)
    assert float(explained[-1]) == pytest.approx(1.0)
    assert float(explained[0]) == pytest.approx(float(fitted.values[0] / fitted.values.sum()))
    assert spectrum.explained(torch.zeros(3).double()).tolist() == [0.0, 0.0, 0.0]


def test_the_mean_cosine_is_that_of_all_pairs(train: Tensor) -> None:
    cosines = F.cosine_similarity(train[:, None], train, dim=2)
    others = cosines[~torch.eye(len(train), dtype=torch.bool)]
    assert spectrum.mean_cosine(_sums(train)) == pytest.approx(float(others.mean()), abs=1e-12)


@pytest.mark.parametrize("piece", [7, 100])
def test_every_width_is_scored_as_projecting_and_coming_back(
    train: Tensor, unseen: Tensor, fitted: Axes, piece: int
) -> None:
    widths = [1, 4, 19, 20]
    for found in spectrum.reconstructions(fitted, unseen.split(piece), widths):
        kept = fitted.vectors[:, : found.width]
        back = fitted.mean + (unseen - fitted.mean) @ kept @ kept.T
        expected = spectrum.score("pca", back, unseen, train.mean(0))
        assert found.mse == pytest.approx(float((back - unseen).square().mean()), abs=1e-14)
        assert found.cosine == pytest.approx(expected.cosine, abs=1e-12)
        assert found.fvu == pytest.approx(expected.fvu, abs=1e-12)


def test_the_error_follows_from_the_sums_alone(unseen: Tensor, fitted: Axes) -> None:
    for found in spectrum.reconstructions(fitted, [unseen], [1, 5, 12]):
        assert found.width is not None
        lost = spectrum.unexplained(fitted, _sums(unseen), found.width)
        assert lost == pytest.approx(found.fvu, abs=1e-9)


def test_rows_that_do_not_vary_have_nothing_to_explain() -> None:
    still = _sums(torch.zeros(9, 4))
    assert spectrum.unexplained(spectrum.axes(still), still, 2) is None


def test_the_yardsticks_are_zeros_the_mean_and_random_axes(
    train: Tensor, unseen: Tensor, fitted: Axes
) -> None:
    zeros, mean, random = spectrum.yardsticks(fitted, unseen.split(9), 5)
    assert zeros.mse == pytest.approx(float(unseen.square().mean()))
    assert zeros.cosine is None
    assert mean.mse == pytest.approx(float((unseen - train.mean(0)).square().mean()))
    assert mean.fvu == 1.0
    assert (random.width, zeros.width, mean.width) == (5, None, None)
    assert 0.5 < random.fvu < 1.0  # a quarter of the axes, at random


def test_codes_come_back_as_they_went(unseen: Tensor, fitted: Axes) -> None:
    rows = unseen.float()
    torch.testing.assert_close(fitted.decode(fitted.encode(rows, 20)), rows, atol=1e-5, rtol=0)
