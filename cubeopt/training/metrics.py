"""What a split says of each trial of a pack; no weight of the loss enters these numbers.

P trials, N weights of a trial, B samples, D embedding size.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data.dataset import TASKS
from cubeopt.lattice.cube import Cube, Passage
from cubeopt.lattice.pack import Columns
from cubeopt.training import losses
from cubeopt.training.feed import Feed, Part
from cubeopt.training.scale import Scale
from cubeopt.trial import Expert, Task


@torch.no_grad()
def evaluate(
    cube: Cube, arena: Float[Tensor, "P N"], feed: Feed, knobs: Columns, split: str
) -> list[dict[str, float]]:
    """The metrics of each trial on *split*, weighted by samples.

    fvu: squared errors over squared distances to the training mean (0 perfect, 1 the mean).
    cosine: mean cosine of output and target. Both are of embeddings as they stand in the dataset,
    whatever its normalisation, and where the feed has several tasks also by task: fvu/nli, ...
    loss/...: each term of the loss, unweighted. usage/...: mean share of each expert in percent.
    specialisation: mutual information of gate and cell in bits.
    """
    scale = feed.target_scale.to(feed.device)
    sums: dict[str, Tensor] = {}
    for part in feed.parts(split, cube.shape.batch_size):
        sources, targets = (x.expand(len(arena), -1, -1) for x in (part.source, part.target))
        passage = cube.forward(arena, sources, knobs.cube)
        each = losses.terms(passage, sources, targets, knobs.loss)
        rows = {f"loss/{name}": value.double() * len(sources[0]) for name, value in each.items()}
        rows |= _gate_sums(passage, cube.shape.experts) | _sums(passage, part, scale, feed.tasks)
        for name, value in rows.items():
            sums[name] = sums[name] + value if name in sums else value
    table = _ratios(sums, feed.tasks)
    columns = {name: column.tolist() for name, column in table.items()}
    return [{name: column[p] for name, column in columns.items()} for p in range(len(arena))]


def _ratios(sums: dict[str, Tensor], tasks: Sequence[Task]) -> dict[str, Float[Tensor, " P"]]:
    """Means over the samples, and fvu, from *sums* over them."""
    parts = ["", *(f"/{task}" for task in tasks)] if len(tasks) > 1 else [""]
    table = {f"fvu{part}": sums.pop(f"errors{part}") / sums.pop(f"spread{part}") for part in parts}
    samples = {part: sums.pop(f"samples{part}") for part in parts}
    table |= {f"cosine{part}": sums.pop(f"cosine{part}") / samples[part] for part in parts}
    return table | {name: total / samples[""] for name, total in sums.items()}


def _gate_sums(passage: Passage, experts: Sequence[Expert]) -> dict[str, Float[Tensor, " P"]]:
    """Sums over the samples of what the gates say, in float64."""
    samples = passage.output.shape[1]
    taken = passage.active.double().sum((1, 2)) * passage.gates.shape[3]
    usage = passage.gates.double().sum((1, 3, 4)) / taken[:, None] * 100.0 * samples
    information = losses.mutual_information(passage.gates, passage.active).double() / math.log(2.0)
    return {
        "specialisation": information * samples,
        **{f"usage/{name}": usage[:, e] for e, name in enumerate(experts)},
    }


def _sums(
    passage: Passage, part: Part, scale: Scale, tasks: Sequence[Task]
) -> dict[str, Float[Tensor, " P"]]:
    """Sums over the samples of what the outputs are like as embeddings, in float64."""
    output, target = scale.undo(passage.output.double()), part.stored.double()
    one = torch.ones_like(output[:, :, 0])
    samples = {
        "errors": (output - target).square().sum(2),
        "spread": (target - scale.mean).square().sum(1) * one,
        "cosine": F.cosine_similarity(output, target[None], dim=-1),
        "samples": one,
    }
    sums = {name: values.sum(1) for name, values in samples.items()}
    for task in tasks if len(tasks) > 1 else ():
        mask = (part.task == TASKS.index(task)).double()
        sums |= {f"{name}/{task}": (values * mask).sum(1) for name, values in samples.items()}
    return sums
