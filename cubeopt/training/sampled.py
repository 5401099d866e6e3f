"""Metrics that need many outputs at once: retrieval and effective rank.

They are taken over at most retrieval.LIMIT rows of a split, spread evenly over it, so that a huge
split costs no more memory than these rows.

P trials, B samples, K rows, D embedding size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from cubeopt.data import retrieval
from cubeopt.data.dataset import task_groups
from cubeopt.data.fitness import spectrum
from cubeopt.training.feed import Part
from cubeopt.trial import Task

# Of the squares of rows that are all equal: what rounding in float32 alone can make of them.
_ROUNDING = torch.finfo(torch.float32).eps ** 2


@dataclass(frozen=True, eq=False)
class Sample:
    """Outputs and targets of some rows, as embeddings."""

    output: Float[Tensor, "P K D"]
    target: Float[Tensor, "K D"]
    sentence: Int64[Tensor, " K"]  # equal for equal targets
    task: UInt8[Tensor, " K"]


def taken(output: Float[Tensor, "P B D"], part: Part, places: Int64[Tensor, " K"]) -> Sample:
    """The rows of *part* that stand at *places* of the split."""
    ends = torch.tensor([part.first, part.first + output.shape[1]])
    first, last = torch.searchsorted(places, ends).tolist()
    here = (places[first:last] - part.first).to(output.device)
    kept = output[:, here].to(part.stored.dtype)
    return Sample(kept, part.stored[here], part.sentence[here], part.task[here])


def joined(samples: Sequence[Sample]) -> Sample:
    """All rows of *samples*."""
    return Sample(
        torch.cat([each.output for each in samples], dim=1),
        *(torch.cat([getattr(each, name) for each in samples]) for name in _COLUMNS),
    )


_COLUMNS = ("target", "sentence", "task")


def metrics(sample: Sample, tasks: Sequence[Task]) -> list[dict[str, float]]:
    """Of each trial: top1, mrr and effective_rank, of several tasks also by task.

    top1 and mrr: the output finds its own target among the sample's targets, whatever their task
    (see `retrieval.ranks`). effective_rank: of the outputs. A task that has no row in the sample
    has no numbers.
    """
    groups = task_groups(sample.task, tasks)
    present = {name: rows for name, rows in groups.items() if bool(rows.any())}
    return [_of_trial(output, sample, present) for output in sample.output]


def _of_trial(
    output: Float[Tensor, "K D"], sample: Sample, groups: dict[str, Tensor]
) -> dict[str, float]:
    ranks = retrieval.ranks(output, sample.target, sample.sentence, sample.task)
    row = {}
    for name, rows in groups.items():
        row[f"top1{name}"] = retrieval.top1(ranks[rows])
        row[f"mrr{name}"] = retrieval.mrr(ranks[rows])
        row[f"effective_rank{name}"] = effective_rank(output[rows])
    return row


def effective_rank(rows: Float[Tensor, "K D"]) -> float:
    """exp of the entropy of the normalised eigenvalues of the covariance (Roy and Vetterli 2007).

    From 1 (all on a line) to D (as spread in every direction); 0 where the rows do not vary, NaN
    where they are not finite. The eigenvalues are those of the smaller of the two Gram matrices.
    """
    exact = rows.double()
    centred = exact - exact.mean(0)
    gram = centred @ centred.T if len(rows) < rows.shape[1] else centred.T @ centred
    total, size = float(gram.trace()), float(exact.square().sum())
    if not total > _ROUNDING * size:
        return math.nan if math.isnan(total) else 0.0
    return spectrum.effective_rank(torch.linalg.eigvalsh(gram).clamp(min=0.0).cpu())
