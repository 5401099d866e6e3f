from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cubeopt.data.fitness import regression
from cubeopt.data.fitness.regression import Products

Rows = Callable[..., Tensor]


@pytest.fixture
def pairs(rows: Rows) -> tuple[Tensor, Tensor]:
    given = rows(90, 1, 12).double() + 0.2
    return given, given @ rows(12, 2, 12).double() + 1.5 * rows(90, 3, 12).double() - 0.1


def _sums(given: Tensor, wanted: Tensor, piece: int = 11) -> Products:
    pieces = zip(given.split(piece), wanted.split(piece), strict=True)
    return regression.products(given.shape[1], pieces)


def _solved(given: Tensor, wanted: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    """By the normal equations, in the units of the rows' mean squared length."""
    mean, aim = given.mean(0), wanted.mean(0)
    gram = (given - mean).T @ (given - mean)
    unit = given.square().sum(1).mean()
    gram += strength * unit * torch.eye(len(mean)).double()
    return mean, aim, torch.linalg.solve(gram, (given - mean).T @ (wanted - aim))


def _error(solved: tuple[Tensor, Tensor, Tensor], given: Tensor, wanted: Tensor) -> float:
    mean, aim, weights = solved
    return float((aim + (given - mean) @ weights - wanted).square().sum())


def test_the_strength_is_the_one_that_serves_the_rest(pairs: tuple[Tensor, Tensor]) -> None:
    given, wanted = pairs
    errors = {
        strength: _error(_solved(given[:60], wanted[:60], strength), given[60:], wanted[60:])
        for strength in regression.STRENGTHS
    }
    found = regression.ridge(_sums(given[:60], wanted[:60]), _sums(given[60:], wanted[60:]))
    assert found.strength == min(errors, key=errors.__getitem__)
    assert found.strength not in (regression.STRENGTHS[0], regression.STRENGTHS[-1])


def test_the_fit_is_the_solution_on_all_pairs(pairs: tuple[Tensor, Tensor]) -> None:
    given, wanted = pairs
    found = regression.ridge(_sums(given[:60], wanted[:60]), _sums(given[60:], wanted[60:]))
    mean, aim, weights = _solved(given, wanted, found.strength)
    torch.testing.assert_close(found.weights, weights, rtol=1e-8, atol=1e-10)
    predicted = aim + (given - mean) @ weights
    torch.testing.assert_close(found.predict(given.float()), predicted.float(), rtol=0, atol=1e-5)


def test_the_scale_of_the_numbers_changes_no_choice(pairs: tuple[Tensor, Tensor]) -> None:
    given, wanted = pairs
    found = [
        regression.ridge(_sums(s * given[:60], wanted[:60]), _sums(s * given[60:], wanted[60:]))
        for s in (1.0, 30.0)
    ]
    assert found[0].strength == found[1].strength
    torch.testing.assert_close(found[0].weights, 30.0 * found[1].weights)


def test_without_a_rest_the_strength_is_the_middle_one(pairs: tuple[Tensor, Tensor]) -> None:
    found = regression.ridge(_sums(*pairs), None)
    assert found.strength == 3.0
    *_, weights = _solved(*pairs, 3.0)
    torch.testing.assert_close(found.weights, weights, rtol=1e-8, atol=1e-10)


def test_fewer_pairs_than_numbers_are_no_trouble(pairs: tuple[Tensor, Tensor]) -> None:
    given, wanted = (side[:5] for side in pairs)
    found = regression.ridge(_sums(given[:4], wanted[:4]), _sums(given[4:], wanted[4:]))
    assert bool(torch.isfinite(found.weights).all())


def test_sources_that_are_always_zero_lead_to_the_mean() -> None:
    given, wanted = torch.zeros(6, 3).double(), torch.arange(18.0).view(6, 3).double()
    found = regression.ridge(_sums(given, wanted), None)
    torch.testing.assert_close(found.predict(torch.zeros(1, 3))[0], wanted.mean(0).float())
