"""Each schedule against torch's own, or its formula."""

import pytest
import torch

from cubeopt.training.schedules import multiplier
from cubeopt.trial import OptimKnobs


def knobs(schedule, warmup=0.0, decay=0.0):
    return OptimKnobs(schedule=schedule, warmup_fraction=warmup, decay_fraction=decay)


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


@pytest.mark.parametrize("schedule", ["warmup_stable_decay", "cosine", "cosine_restarts"])
def test_the_rate_never_leaves_the_interval_from_zero_to_one(schedule):
    found = [multiplier(knobs(schedule, 0.02, 0.2), step, 700) for step in range(700)]
    assert all(0.0 < each <= 1.0 for each in found)
