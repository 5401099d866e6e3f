"""PackAdamW is torch's AdamW, trial by trial."""

import pytest
import torch

from cubeopt.training import optim

WAYS = ["one_by_one", "together"]  # of a CPU, of a GPU


@pytest.mark.parametrize("way", WAYS)
def test_each_trial_follows_torch_adamw_with_its_own_rate_decay_and_clip(way):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    gradients = torch.randn(25, 3, 40, generator=generator, dtype=torch.float64)
    rates, decays, limits = [1e-3, 1e-2, 0.3], [0.0, 0.1, 0.5], [1e9, 5.0, 0.7]
    mask = torch.cat([torch.ones(30), torch.zeros(10)])
    arena = start.clone()
    packed = optim.PackAdamW(arena, mask)
    columns = [torch.tensor(values, dtype=torch.float64) for values in (rates, decays, limits)]
    for step, gradient in enumerate(gradients, start=1):
        clipped = optim.clipped(gradient, gradient.norm(dim=1), columns[2])
        numbers = (float(step), *optim.corrections(step))
        rest = [torch.full((3,), each, dtype=torch.float64) for each in numbers]
        pace = optim.Pace(columns[0], columns[1], *rest)
        getattr(packed, way)(arena, clipped, pace, ())
    for p in range(3):
        matrix, bias = (torch.nn.Parameter(part.clone()) for part in (start[p, :30], start[p, 30:]))
        reference = torch.optim.AdamW(
            [
                {"params": [matrix], "weight_decay": decays[p]},
                {"params": [bias], "weight_decay": 0.0},
            ],
            lr=rates[p],
        )
        for gradient in gradients[:, p]:
            matrix.grad, bias.grad = gradient[:30].clone(), gradient[30:].clone()
            torch.nn.utils.clip_grad_norm_([matrix, bias], limits[p])
            reference.step()
        expected = torch.cat([matrix.detach(), bias.detach()])
        torch.testing.assert_close(arena[p], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_a_resting_trial_keeps_its_weights_and_moments(way):
    arena = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    packed = optim.PackAdamW(arena, torch.ones(16))
    one = torch.ones(3)
    for resting in ([], [0, 2]):
        before = [rows.clone() for rows in (arena, packed.mean, packed.square)]
        gradient = torch.full((3, 16), float("nan")) if resting else arena.clone()
        gradient[1] = 1.0
        pace = optim.Pace(0.1 * one, one, one, one, one)
        getattr(packed, way)(arena, gradient, pace, resting)
        for rows, old in zip((arena, packed.mean, packed.square), before, strict=True):
            for p in range(3):
                assert torch.equal(rows[p], old[p]) is (p in resting)


def test_a_cpu_takes_one_trial_after_the_other():
    arena = torch.ones(2, 16)
    packed, other = (optim.PackAdamW(rows, torch.ones(16)) for rows in (arena, arena.clone()))
    pace = optim.Pace(*(torch.ones(2) for _ in optim.Pace._fields))
    copy = arena.clone()
    packed.step(arena, torch.ones(2, 16), pace)
    other.one_by_one(copy, torch.ones(2, 16), pace, ())
    assert torch.equal(arena, copy)
