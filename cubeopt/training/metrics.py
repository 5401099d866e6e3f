"""What a split says of each trial of a pack; no weight of the loss enters these numbers.

P trials, B samples, D embedding size, E experts.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.lattice.cube import Cube, Passage
from cubeopt.lattice.experts import EXPERTS
from cubeopt.lattice.pack import LossColumn
from cubeopt.training import losses
from cubeopt.training.feed import Feed


@torch.no_grad()
def evaluate(
    cube: Cube, arena: Float[Tensor, "P N"], feed: Feed, knobs: LossColumn, split: str
) -> list[dict[str, float]]:
    """The metrics of each trial on *split*, weighted by samples.

    fvu: squared errors over squared distances to the training mean (0 perfect, 1 the mean).
    cosine: mean cosine of output and target as embeddings, that is, before standardisation.
    loss/...: each term of the loss, unweighted. usage/...: mean share of each expert in percent.
    specialisation: mutual information of gate and cell in bits.
    """
    sums: dict[str, Tensor] = {}
    samples = 0
    for source, target, raw in feed.parts(split, cube.shape.batch_size):
        sources, targets = (x.expand(len(arena), -1, -1) for x in (source, target))
        passage = cube.forward(arena, sources)
        each = losses.terms(passage, sources, targets, knobs)
        rows = {f"loss/{name}": value.double() * len(source) for name, value in each.items()}
        rows |= _sums(passage, target, raw, feed)
        for name, value in rows.items():
            sums[name] = sums[name] + value if name in sums else value
        samples += len(source)
    errors, spread = sums.pop("errors"), sums.pop("spread")
    table = {"fvu": errors / spread} | {name: total / samples for name, total in sums.items()}
    columns = {name: column.tolist() for name, column in table.items()}
    return [{name: column[p] for name, column in columns.items()} for p in range(len(arena))]


def _sums(
    passage: Passage, target: Float[Tensor, "B D"], raw: Float[Tensor, "B D"], feed: Feed
) -> dict[str, Float[Tensor, " P"]]:
    """Sums over the samples of one piece, in float64."""
    output = passage.output.double()
    scale = feed.target_scale
    embeddings = output * scale.deviation.to(output) + scale.mean.to(output)
    samples = len(target)
    usage = passage.gates.double().mean((1, 3, 4)) * 100.0 * samples
    information = losses.mutual_information(passage.gates).double() / math.log(2.0)
    return {
        "errors": (output - target.double()).square().sum((1, 2)),
        "spread": target.double().square().sum().expand(len(output)),
        "cosine": F.cosine_similarity(embeddings, raw.double()[None], dim=-1).sum(1),
        "specialisation": information * samples,
        **{f"usage/{name}": usage[:, e] for e, name in enumerate(EXPERTS)},
    }
