from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cubeopt.data.fitness import autoencoder
from cubeopt.data.fitness.autoencoder import Trained

Rows = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "_EPOCHS", 30)


def _trained(rows: Rows, noise: float = 0.0, seeds: int = 1, scale: float = 1.0) -> Trained:
    table = scale * (rows(700, 1, 4) @ rows(4, 2, 24) + 0.5)
    rest = torch.arange(600) % 10 == 0
    return autoencoder.autoencoder(
        table[:600], rest, table[600:], 6, noise, range(seeds), lambda share: None
    )


def test_a_few_directions_go_through_as_many_numbers(rows: Rows) -> None:
    found = _trained(rows)
    assert found.fvu < 0.05
    assert found.cosine > 0.99
    assert found.width == 6


def test_the_same_seed_gives_the_same_network(rows: Rows) -> None:
    torch.rand(3)  # the global generator plays no part
    assert _trained(rows, 0.5) == _trained(rows, 0.5)


def test_medians_and_spreads_are_over_the_seeds(rows: Rows) -> None:
    three = _trained(rows, seeds=3)
    assert three.seeds == len(three.epochs) == 3
    assert three.spread["fvu"] > 0
    assert _trained(rows).spread == {"mse": 0.0, "cosine": 0.0, "fvu": 0.0}


def test_the_unit_of_the_numbers_plays_no_part(rows: Rows) -> None:
    one, other = _trained(rows), _trained(rows, scale=100.0)
    assert other.fvu == pytest.approx(one.fvu, rel=0.1)
    assert other.mse == pytest.approx(1e4 * one.mse, rel=0.1)


def test_noise_leaves_rows_as_long_as_they_were(rows: Rows) -> None:
    table = rows(4000, 1, 64) * 8.0  # numbers of deviation 1
    noisy = autoencoder._noisy(table, 0.5, torch.Generator().manual_seed(2))
    assert float(noisy.square().mean()) == pytest.approx(1.0, rel=0.01)
    assert float((noisy * table).mean()) == pytest.approx(1 / 1.25**0.5, rel=0.01)
    assert autoencoder._noisy(table, 0.0, torch.Generator()) is table
