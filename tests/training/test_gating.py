"""What gates chose, against sums over one choice after another."""

import math
from collections import defaultdict

import pytest
import torch

from cubeopt.data.dataset import TASKS
from cubeopt.training import gating
from cubeopt.trial import Task

PAIR = [Task.DIALOGUE, Task.NLI]


def drawn(experts: int) -> torch.Tensor:
    """Gates (2 trials, 3 steps, experts, 4 cells, 5 samples) that depend on cell and sample."""
    generator = torch.Generator().manual_seed(experts)
    size = (2, 3, experts, 4, 5)
    scores = torch.randn(size, generator=generator, dtype=torch.float64)
    scores = scores + 2.0 * torch.randn(2, 1, experts, 4, 1, generator=generator)
    return (scores + torch.randn(2, 1, experts, 1, 5, generator=generator)).softmax(2)


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log2(share) for share in shares if share > 0.0)


def information(joint: dict[tuple[int, int], float]) -> float:
    """Of expert and place, from the definition: sum of p log p / (p p)."""
    total = sum(joint.values())
    first, second = defaultdict(float), defaultdict(float)
    for (e, x), weight in joint.items():
        first[e] += weight / total
        second[x] += weight / total
    return sum(
        weight / total * math.log2(weight / total / (first[e] * second[x]))
        for (e, x), weight in joint.items()
        if weight > 0.0
    )


def slow(gates: torch.Tensor, task: list[int], names: list[str]) -> dict[str, float]:
    """The numbers of one trial (T E C B), choice by choice."""
    usage, cells, tasks = defaultdict(float), defaultdict(float), defaultdict(float)
    entropies = []
    steps, _, count, samples = gates.shape
    for t in range(steps):
        for c in range(count):
            for b in range(samples):
                shares = gates[t, :, c, b].tolist()
                if sum(shares) == 0.0:
                    continue
                entropies.append(entropy(shares))
                for e, share in enumerate(shares):
                    usage[e] += share
                    cells[e, c] += share
                    tasks[e, task[b]] += share
    choices = len(entropies)
    mean = sum(entropies) / choices
    return {
        **{f"usage/{name}": 100.0 * usage[e] / choices for e, name in enumerate(names)},
        "usage_min": min(usage.values()) / choices,
        "gate_entropy": mean,
        "specialisation": entropy([each / choices for each in usage.values()]) - mean,
        "specialisation/cell": information(cells),
        "specialisation/task": information(tasks),
    }


@pytest.mark.parametrize("halting", [False, True])
@pytest.mark.parametrize("experts", [1, 2, 3])
def test_the_numbers_are_those_of_a_walk_over_all_choices(experts, halting):
    gates = drawn(experts)
    if halting:  # exchanges that were not taken
        gates[:, 2, :, :, 1:3] = 0.0
        gates[0, 1, :, :, 2] = 0.0
    names = ["local", "functional", "distant"][:experts]
    task = torch.tensor([TASKS.index(PAIR[b % 2]) for b in range(5)], dtype=torch.uint8)
    parts = [gating.sums(gates[..., some], task[some], PAIR) for some in ([0, 1], [2, 3, 4])]
    found = gating.metrics(parts[0] + parts[1], names)
    for p in range(2):
        expected = slow(gates[p], task.tolist(), names)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert float(found[name][p]) == pytest.approx(value, abs=1e-12), name
    # Each part is at most the whole.
    for name in ("specialisation/cell", "specialisation/task"):
        assert bool((found[name] <= found["specialisation"] + 1e-12).all())


def test_a_trial_in_a_pack_has_the_numbers_it_has_alone():
    gates, task = drawn(3), torch.zeros(5, dtype=torch.uint8)
    gates[1] = math.nan
    packed, alone = (
        gating.metrics(gating.sums(each, task, [Task.RECONSTRUCT]), ["a", "b", "c"])
        for each in (gates, gates[:1])
    )
    assert {name: float(column[0]) for name, column in packed.items()} == {
        name: float(column[0]) for name, column in alone.items()
    }
    assert "specialisation/task" not in packed


@pytest.mark.parametrize(
    ("owner", "cell", "whole"),
    # All choices alike; each cell has its expert; each sample has its expert.
    [(lambda c, b: 0, 0.0, 0.0), (lambda c, b: c % 2, 1.0, 1.0), (lambda c, b: b % 2, 0.0, 1.0)],
)
def test_specialisation_says_what_the_choice_depends_on(owner, cell, whole):
    gates = torch.zeros(1, 2, 2, 4, 4)
    for c in range(4):
        for b in range(4):
            gates[:, :, owner(c, b), c, b] = 1.0
    task = torch.tensor([TASKS.index(PAIR[b % 2]) for b in range(4)], dtype=torch.uint8)
    found = gating.metrics(gating.sums(gates, task, PAIR), ["a", "b"])
    assert float(found["specialisation"]) == pytest.approx(whole, abs=1e-12)
    assert float(found["specialisation/cell"]) == pytest.approx(cell, abs=1e-12)
    assert float(found["specialisation/task"]) == pytest.approx(whole - cell, abs=1e-12)
    assert float(found["gate_entropy"]) == 0.0
