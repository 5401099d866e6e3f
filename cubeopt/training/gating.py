"""What the gates of a pack chose, over a split: which experts, and what the choice depends on.

P trials, T steps, E experts, C cells, B samples, K tasks, X places (cells or tasks).

A *choice* is one exchange of one cell for one sample: the gate gives each expert a share, and the
shares sum to 1. In every exchange that a sample did not take they are 0 and do not count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from cubeopt.data.dataset import TASKS
from cubeopt.trial import Task

_BIT = math.log(2.0)


@dataclass(frozen=True, eq=False)
class GateSums:
    """Sums over the choices: all that usage, entropy and specialisation need."""

    by_cell: Float64[Tensor, "P E C"]  # of the shares
    by_task: Float64[Tensor, "P E K"]
    entropy: Float64[Tensor, " P"]  # of the shares of a choice, in bits

    def __add__(self, other: "GateSums") -> "GateSums":
        return GateSums(
            self.by_cell + other.by_cell,
            self.by_task + other.by_task,
            self.entropy + other.entropy,
        )


def sums(
    gates: Float[Tensor, "P T E C B"], task: UInt8[Tensor, " B"], tasks: Sequence[Task]
) -> GateSums:
    """Of some samples; *task* is the place of each one's task in dataset.TASKS."""
    codes = torch.tensor([TASKS.index(each) for each in tasks], device=task.device)
    of_task = (task[:, None] == codes).double()
    over_steps = gates.sum(1, dtype=torch.float64)
    entropy = torch.special.entr(gates).flatten(1).sum(1, dtype=torch.float64)
    return GateSums(over_steps.sum(3), over_steps.sum(2) @ of_task, entropy / _BIT)


def metrics(sums: GateSums, experts: Sequence[str]) -> dict[str, Float64[Tensor, " P"]]:
    """Named numbers of each trial, from the sums over a split.

    usage/EXPERT: mean share, in percent. usage_min: the smallest of them, in shares of 1, so 0 when
    an expert is dead. gate_entropy: mean entropy of a choice's shares, in bits:
    0 when every choice is for one expert, log2 E when all have equal shares.

    specialisation: H(mean share) - mean H(share) in bits, the mutual information of the expert with
    cell, sample and step together; what the loss term emergence rewards. Of it,
    specialisation/cell is the mutual information of expert and cell alone, with shares averaged
    over samples and steps, and specialisation/task that of expert and task (of several tasks),
    averaged over cells, samples and steps. Both are at most specialisation.
    """
    usage = sums.by_cell.sum(2)
    choices = usage.sum(1)
    share = usage / choices[:, None]
    entropy = sums.entropy / choices
    table = {f"usage/{name}": 100.0 * share[:, e] for e, name in enumerate(experts)}
    table["usage_min"] = share.amin(1)
    table["gate_entropy"] = entropy
    table["specialisation"] = (_bits(share) - entropy).clamp(min=0.0)
    table["specialisation/cell"] = information(sums.by_cell)
    if sums.by_task.shape[2] > 1:
        table["specialisation/task"] = information(sums.by_task)
    return table


def information(joint: Float64[Tensor, "P E X"]) -> Float64[Tensor, " P"]:
    """Mutual information of expert and place, from how often they meet, in bits."""
    share = joint / joint.sum((1, 2), keepdim=True)
    apart = _bits(share.sum(2)) + _bits(share.sum(1))
    return (apart - _bits(share.flatten(1))).clamp(min=0.0)


def _bits(share: Float64[Tensor, "P X"]) -> Float64[Tensor, " P"]:
    return torch.special.entr(share).sum(1) / _BIT
