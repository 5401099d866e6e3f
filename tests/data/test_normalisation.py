import pytest
import torch

from cubeopt.data import normalisation
from cubeopt.data.normalisation import Normalisation


def pieces(rows: torch.Tensor) -> list[torch.Tensor]:
    return list(rows.split(7))


@pytest.fixture
def rows() -> torch.Tensor:
    """Numbers of very different scale, one that does not vary, one far from zero."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(50, 6, generator=generator) * torch.tensor([1.0, 1e-3, 50, 1, 1, 1])
    rows[:, 3] = 0.7
    rows[:, 4] += 1000
    return rows


def test_none_changes_nothing(rows: torch.Tensor) -> None:
    same = normalisation.measure("none", pieces(rows), pieces(rows))
    for seen in (same.store(rows), same.apply(rows), same.undo(rows)):
        assert seen is rows
    assert same.facts() == {"name": "none", "norm": None}


def test_l2_stores_unit_rows_and_undoes_to_the_mean_norm(rows: torch.Tensor) -> None:
    unit = normalisation.measure("l2", pieces(rows), pieces(rows[:20]))
    norms = rows.double().norm(dim=1)
    assert unit.norm == pytest.approx(float(norms.mean()))
    stored = unit.store(rows)
    assert stored.dtype == torch.float32
    assert torch.allclose(stored.norm(dim=1), torch.ones(50))
    assert unit.apply(stored) is stored
    undone = unit.undo(stored)
    assert torch.allclose(undone.norm(dim=1), torch.full((50,), unit.norm))
    assert torch.allclose(torch.cosine_similarity(undone, rows), torch.ones(50))


def test_standardise_stores_rows_as_given_and_measures_the_training_rows(
    rows: torch.Tensor,
) -> None:
    scale = normalisation.measure("standardise", pieces(rows), pieces(rows[:40]))
    assert scale.mean is not None
    assert scale.deviation is not None
    exact = rows[:40].double()
    assert torch.allclose(scale.mean, exact.mean(0), rtol=1e-12)
    expected = exact.std(0, correction=0)
    expected[3] = 1.0  # it does not vary: there is nothing to divide by
    assert torch.allclose(scale.deviation, expected, rtol=1e-9)
    assert scale.store(rows) is rows
    seen = scale.apply(exact)
    assert torch.allclose(seen.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-9)
    varying = seen[:, [0, 1, 2, 4, 5]]
    assert torch.allclose(varying.std(0, correction=0), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(scale.undo(scale.apply(rows.double())), rows.double(), rtol=1e-12)
    assert torch.allclose(scale.undo(scale.apply(rows)), rows, rtol=1e-5, atol=1e-6)


def test_how_rows_are_cut_into_pieces_changes_next_to_nothing(rows: torch.Tensor) -> None:
    one = normalisation.measure("standardise", [], [rows])
    many = normalisation.measure("standardise", [], rows.split(1))
    assert one.mean is not None
    assert many.mean is not None
    assert torch.allclose(one.mean, many.mean, rtol=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "whiten"},
        {"name": "l2"},
        {"name": "none", "norm": 1.0},
        {"name": "standardise", "mean": torch.zeros(3)},
    ],
)
def test_numbers_that_do_not_belong_to_the_name_are_a_mistake_of_the_caller(values: dict) -> None:
    with pytest.raises(AssertionError):
        Normalisation(**values)
