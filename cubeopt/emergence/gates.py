"""What the gates choose cell by cell, and how the cells move.

T steps, Z = T + 1 states, E experts, C cells, B samples, K tasks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from cubeopt.data.dataset import TASKS
from cubeopt.emergence.model import Model
from cubeopt.emergence.record import Step, Tasks
from cubeopt.emergence.rounding import placed, rounded
from cubeopt.training import gating

_SHUFFLES = 100
_QUANTILE = 0.95
_SEED = 0


@dataclass(frozen=True, eq=False)
class Choices:
    """Sums over the samples, and each sample's shares summed over its steps."""

    shares: Float64[Tensor, "T E C"]
    entropy: Float64[Tensor, "T C"]  # bits
    taken: Float64[Tensor, " T"]  # samples
    squares: Float64[Tensor, "Z C"]  # of the states' numbers, means over them
    moves: Float64[Tensor, "T C"]  # of the changes' numbers
    by_sample: Float[Tensor, "E C B"]
    sums: gating.GateSums
    samples: int


@torch.no_grad()
def choices(model: Model, tell: Callable[[float], None]) -> Choices:
    """Pass all rows of *model* through its cube; *tell* hears which share of them is done."""
    shape = model.cube.shape
    parts = -(-len(model.source) // shape.batch_size)
    found: Choices | None = None
    for number, (source, task) in enumerate(
        zip(model.source.tensor_split(parts), model.task.tensor_split(parts), strict=True)
    ):
        each = _part(model, source, task)
        found = each if found is None else _joined(found, each)
        tell((number + 1) / parts)
    assert found is not None, "a split has rows"
    return found


def _part(model: Model, source: Float[Tensor, "B D"], task: Tensor) -> Choices:
    states: list[Tensor] = []

    def seen(step: int, state: Tensor) -> Tensor:
        states.append(state[0])
        return state

    cube, count = model.cube, len(source)
    threshold = model.halting_threshold(torch.float32)
    passage = cube.forward(model.weights, source[None], threshold, touch=seen)
    states += states[-1:] * (cube.shape.lattice_steps + 1 - len(states))  # all have stopped
    gates = passage.gates[0]
    stacked = torch.stack([state.double() for state in states])
    return Choices(
        gates.sum(3, dtype=torch.float64),
        torch.special.entr(gates).sum((1, 3), dtype=torch.float64) / math.log(2.0),
        passage.active[0].sum(1, dtype=torch.float64),
        stacked.square().mean(3).sum(2),
        stacked.diff(dim=0).square().mean(3).sum(2),
        gates.sum(0),
        gating.sums(passage.gates, task, model.spec.plan.task),
        count,
    )


def _joined(one: Choices, other: Choices) -> Choices:
    return Choices(
        one.shares + other.shares,
        one.entropy + other.entropy,
        one.taken + other.taken,
        one.squares + other.squares,
        one.moves + other.moves,
        torch.cat([one.by_sample, other.by_sample], dim=2),
        one.sums + other.sums,
        one.samples + other.samples,
    )


def metrics(model: Model, found: Choices) -> dict[str, float]:
    """The numbers of `training.gating` over the rows of *model*."""
    table = gating.metrics(found.sums, model.cube.shape.experts)
    return {name: rounded(float(column[0]), 6) for name, column in table.items()}


def steps(model: Model, found: Choices) -> list[Step]:
    """The cells after each exchange, and before the first."""
    activity = (found.squares / found.samples).sqrt()
    change = (found.moves / found.samples).sqrt()
    rows = [Step(0, 1.0, None, None, rounded(activity[0]), [0.0] * activity.shape[1])]
    for t, taken in enumerate(found.taken.tolist()):
        shares = entropy = None
        if taken:
            by_expert = zip(model.cube.shape.experts, found.shares[t] / taken, strict=True)
            shares = {str(name): placed(row) for name, row in by_expert}
            entropy = placed(found.entropy[t] / taken)
        share = rounded(taken / found.samples, 4)
        rows.append(
            Step(t + 1, share, shares, entropy, rounded(activity[t + 1]), rounded(change[t]))
        )
    return rows


def tasks(model: Model, found: Choices) -> Tasks | None:
    """How the choice of an expert depends on the task, cell by cell.

    The information of a finite sample is never quite 0: *by_chance* says what shuffled tasks give.
    """
    names = model.spec.plan.task
    if len(names) < 2:
        return None
    codes = torch.tensor([TASKS.index(each) for each in names])
    belongs = (model.task[:, None] == codes).double()
    joint = _by_task(found, belongs)
    generator = torch.Generator().manual_seed(_SEED)
    shuffled = [
        float(gating.information(_by_task(found, belongs[_order(len(belongs), generator)])).mean())
        for _ in range(_SHUFFLES)
    ]
    limit = sorted(shuffled)[math.ceil(_QUANTILE * _SHUFFLES) - 1]
    shares = joint / joint.sum(1, keepdim=True)  # NaN of a task without rows, which is left out
    return Tasks(
        placed(gating.information(joint), 6),
        rounded(limit, 4),
        {
            str(task): {
                str(expert): placed(shares[:, e, k])
                for e, expert in enumerate(model.cube.shape.experts)
            }
            for k, task in enumerate(names)
            if belongs[:, k].any()
        },
    )


def _by_task(found: Choices, belongs: Float64[Tensor, "B K"]) -> Float64[Tensor, "C E K"]:
    return (found.by_sample.double() @ belongs).transpose(0, 1)


def _order(count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)
