"""The loss, term by term. Every function gives one number per trial.

P trials, B samples, D embedding size, T steps, C cells, S state size, E experts.

All terms work on standardised embeddings: a reconstruction of 1 is no better than the mean.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.lattice.cube import Passage
from cubeopt.lattice.pack import Column

TERMS = ("reconstruction", "similarity", "diversity", "emergence", "lattice", "spatial", "ponder")
_TINY = 1e-8


def reconstruction(
    output: Float[Tensor, "P B D"], target: Float[Tensor, "P B D"]
) -> Float[Tensor, " P"]:
    """Mean squared error to the target."""
    return (output - target).square().mean((1, 2))


def similarity(
    output: Float[Tensor, "P B D"], source: Float[Tensor, "P B D"]
) -> Float[Tensor, " P"]:
    """Mean squared difference of the batch's cosine matrices of output and input, 0 to 4.

    0 when samples that were alike are as alike again. Not divided by the spread of the input's
    cosines: that is so small (0.06 on sentences) that the term would drown reconstruction.
    """
    outputs, inputs = F.normalize(output, dim=-1), F.normalize(source, dim=-1)
    return (outputs @ outputs.mT - inputs @ inputs.mT).square().mean((1, 2))


def diversity(output: Float[Tensor, "P B D"]) -> Float[Tensor, " P"]:
    """Minus the variance of the outputs over the batch; -1 when they vary like the targets."""
    return -output.var(1, correction=0).mean(1)


def mutual_information(
    gates: Float[Tensor, "P T E C B"], active: Float[Tensor, "P T B"]
) -> Float[Tensor, " P"]:
    """H(mean gate) - mean H(gate) in nats: all experts in use, each cell decided; 0 to ln E.

    Over the steps that samples took.
    """
    taken = active.sum((1, 2)) * gates.shape[3]
    mean = gates.sum((1, 3, 4)) / taken[:, None]
    return _entropy(mean, dim=1) - _entropy(gates, dim=2).sum((1, 2, 3)) / taken


def emergence(
    passage: Passage, source: Float[Tensor, "P B D"], knobs: Column
) -> Float[Tensor, " P"]:
    """Minus the mutual information as a share of ln E (-1 .. 0), or the ancestor's unbounded form.

    The latter, legacy_log, is minus the log of the mean squared distance to the input.
    """
    most = math.log(max(2, passage.gates.shape[2]))  # one expert has nothing to decide
    informed = -mutual_information(passage.gates, passage.active) / most
    copied = (passage.output - source).square().mean((1, 2))
    legacy = -torch.log(copied + _TINY)
    return torch.where(knobs.chose("emergence", "legacy_log"), legacy, informed)


def terms(
    passage: Passage,
    source: Float[Tensor, "P B D"],
    target: Float[Tensor, "P B D"],
    knobs: Column,
) -> dict[str, Float[Tensor, " P"]]:
    """Every term, unweighted, in the order of TERMS."""
    return {
        "reconstruction": reconstruction(passage.output, target),
        "similarity": similarity(passage.output, source),
        "diversity": diversity(passage.output),
        "emergence": emergence(passage, source, knobs),
        "lattice": passage.change,
        "spatial": passage.roughness,
        "ponder": passage.ponder,
    }


def _entropy(shares: Tensor, dim: int) -> Tensor:
    return -(shares * (shares + _TINY).log()).sum(dim)
