"""What a split says of each trial of a pack; no weight of the loss enters these numbers.

P trials, N weights of a trial, B samples, D embedding size.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.data import retrieval
from cubeopt.data.dataset import task_groups
from cubeopt.lattice.cube import Cube
from cubeopt.lattice.pack import Columns
from cubeopt.training import gating, losses, sampled
from cubeopt.training.feed import Feed, Part
from cubeopt.training.gating import GateSums
from cubeopt.training.sampled import Sample
from cubeopt.trial import Task


@torch.no_grad()
def evaluate(
    cube: Cube, arena: Float[Tensor, "P N"], feed: Feed, knobs: Columns, split: str
) -> list[dict[str, float]]:
    """The metrics of each trial on *split*, weighted by samples.

    fvu: squared errors over squared distances to the training mean (0 perfect, 1 the mean).
    cosine: mean cosine of output and target. top1, mrr: how often, and how nearly, the output finds
    its own target among those of its task. effective_rank: along how many directions the outputs
    vary (see `sampled`).
    These are of embeddings as they stand in the dataset, whatever its normalisation, and where the
    feed has several tasks also by task: fvu/nli, ...
    loss/...: each term of the loss, unweighted. steps: mean exchanges taken.
    usage/..., gate_entropy, specialisation...: what the gates chose (see `gating`).
    """
    scale = feed.target_scale.to(feed.device)
    places = retrieval.places(feed.rows(split))
    sums: dict[str, Tensor] = {}
    gates: GateSums | None = None
    samples: list[Sample] = []
    for part in feed.parts(split, cube.shape.batch_size):
        sources, targets = (x.expand(len(arena), -1, -1) for x in (part.source, part.target))
        passage = cube.forward(arena, sources, knobs.halting_threshold)
        output = scale.undo(passage.output.double())
        each = losses.terms(passage, sources, targets, knobs.legacy_log)
        rows = {f"loss/{name}": value.double() * len(sources[0]) for name, value in each.items()}
        rows["steps"] = passage.steps.double().sum(1)
        rows |= _sums(output, part, scale.mean, task_groups(part.task, feed.tasks))
        sums = {name: value + sums.get(name, 0.0) for name, value in rows.items()}
        chosen = gating.sums(passage.gates, part.task, feed.tasks)
        gates = chosen if gates is None else gates + chosen
        samples.append(sampled.taken(output, part, places))
    assert gates is not None, "a feed has rows in every split"
    table = _ratios(sums, feed.tasks) | gating.metrics(gates, cube.shape.experts)
    found = sampled.metrics(sampled.joined(samples), feed.tasks)
    return [row | each for row, each in zip(_by_trial(table), found, strict=True)]


@torch.no_grad()
def by_corpus(
    cube: Cube, arena: Float[Tensor, "1 N"], feed: Feed, knobs: Columns, split: str
) -> dict[str, dict[str, float]]:
    """Of one trial, for each corpus with rows in *split*: their count, fvu and cosine.

    fvu is relative to the training mean of all corpora, as in `evaluate`.
    """
    scale = feed.target_scale.to(feed.device)
    sums: dict[str, Tensor] = {}
    for part in feed.parts(split, cube.shape.batch_size):
        output = scale.undo(
            cube.forward(arena, part.source[None], knobs.halting_threshold).output.double()
        )
        groups = {name: part.corpus == code for code, name in enumerate(feed.dataset.corpora)}
        found = _sums(output, part, scale.mean, groups)
        sums = {name: value + sums.get(name, 0.0) for name, value in found.items()}
    return {
        name: {
            "rows": float(count),
            "fvu": float(sums[f"errors{name}"] / sums[f"spread{name}"]),
            "cosine": float(sums[f"cosine{name}"]) / count,
        }
        for name in feed.dataset.corpora
        if (count := int(sums[f"samples{name}"])) > 0
    }


def _by_trial(table: Mapping[str, Float[Tensor, " P"]]) -> list[dict[str, float]]:
    columns = {name: column.tolist() for name, column in table.items()}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _ratios(sums: dict[str, Tensor], tasks: Sequence[Task]) -> dict[str, Float[Tensor, " P"]]:
    """Means over the samples, and fvu, from *sums* over them."""
    parts = ["", *(f"/{task}" for task in tasks)] if len(tasks) > 1 else [""]
    table = {f"fvu{part}": sums.pop(f"errors{part}") / sums.pop(f"spread{part}") for part in parts}
    samples = {part: sums.pop(f"samples{part}") for part in parts}
    table |= {f"cosine{part}": sums.pop(f"cosine{part}") / samples[part] for part in parts}
    return table | {name: total / samples[""] for name, total in sums.items()}


def _sums(
    output: Float[Tensor, "P B D"],
    part: Part,
    mean: Float[Tensor, " D"],
    groups: Mapping[str, Bool[Tensor, " B"]],
) -> dict[str, Float[Tensor, " P"]]:
    """Sums over the samples of *groups* of what the outputs are like as embeddings, in float64."""
    target = part.stored.double()
    one = torch.ones_like(output[:, :, 0])
    samples = {
        "errors": (output - target).square().sum(2),
        "spread": (target - mean).square().sum(1) * one,
        "cosine": F.cosine_similarity(output, target[None], dim=-1),
        "samples": one,
    }
    return {
        f"{name}{group}": (values * rows).sum(1)
        for group, rows in groups.items()
        for name, values in samples.items()
    }
