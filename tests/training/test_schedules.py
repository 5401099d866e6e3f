"""Each schedule against torch's own, or its formula."""

import math

import pytest
import torch

from cubeopt.training.schedules import Plateau, multiplier
from cubeopt.trial import OptimKnobs


def knobs(schedule, warmup=0.0, decay=0.0, **others):
    return OptimKnobs(schedule=schedule, warmup_fraction=warmup, decay_fraction=decay, **others)


def rates(scheduler_of, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_of(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_is_torchs_annealing():
    expected = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=40), 40)
    assert [multiplier(knobs("cosine"), step, 40) for step in range(40)] == pytest.approx(expected)


def test_cosine_restarts_are_torchs_warm_restarts_with_doubling_periods():
    expected = rates(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=2), 70
    )
    found = [multiplier(knobs("cosine_restarts"), step, 70) for step in range(70)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_warmup_stable_decay_rises_stays_and_falls_linearly():
    found = [multiplier(knobs("warmup_stable_decay", 0.2, 0.4), step, 10) for step in range(10)]
    assert found == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_constant_stays_after_its_warmup():
    found = [multiplier(knobs("constant", 0.3), step, 10) for step in range(10)]
    assert found == pytest.approx([1 / 3, 2 / 3] + [1.0] * 8)


def test_linear_is_torchs_linear_schedule_to_nought_after_its_warmup():
    torchs = torch.optim.lr_scheduler.LinearLR
    expected = rates(lambda o: torchs(o, start_factor=1.0, end_factor=0.0, total_iters=36), 36)
    found = [multiplier(knobs("linear", 0.1), step, 40) for step in range(40)]
    assert found == pytest.approx([0.25, 0.5, 0.75, 1.0, *expected], rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 11, 97])
def test_one_cycle_is_torchs_with_the_rate_as_its_peak(steps):
    torchs = torch.optim.lr_scheduler.OneCycleLR
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torchs(optimizer, 1.0, total_steps=steps, cycle_momentum=False)
    expected = []
    for step in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    found = [multiplier(knobs("one_cycle", 0.5), step, steps) for step in range(steps)]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateau_is_torchs_reduction_by_the_validations(patience):
    generator = torch.Generator().manual_seed(patience)
    falling = torch.linspace(1.0, 0.5, 60) + 0.1 * torch.rand(60, generator=generator)
    flat = [0.5, 0.5, 0.5 - 1e-6, 0.49, 0.49, 0.49, 0.49, math.nan, 0.49, 0.48]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.7, patience=patience, eps=0.0
    )
    chosen = knobs("plateau", 0.2, plateau_factor=0.7, plateau_patience=patience)
    plateau, found, expected = Plateau(), [], []
    for fvu in [*falling.tolist(), *flat]:
        scheduler.step(fvu)
        expected.append(optimizer.param_groups[0]["lr"])
        plateau = plateau.after(fvu, chosen)
        found.append(multiplier(chosen, 50, 100, plateau))
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[-1] < 0.5
    assert multiplier(chosen, 4, 100, plateau) == pytest.approx(5 / 20)


@pytest.mark.parametrize(
    "schedule", ["warmup_stable_decay", "cosine", "cosine_restarts", "linear", "one_cycle"]
)
def test_the_rate_never_leaves_the_interval_from_zero_to_one(schedule):
    found = [multiplier(knobs(schedule, 0.02, 0.2), step, 700) for step in range(700)]
    assert all(0.0 < each <= 1.0 for each in found)
