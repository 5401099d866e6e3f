"""The loss, term by term. Every function gives one number per trial.

P trials, B samples, D embedding size, T steps, C cells, S state size, E experts.

All terms work on standardised embeddings: a reconstruction of 1 is no better than the mean.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.lattice.cube import Passage

TERMS = ("reconstruction", "similarity", "diversity", "emergence", "lattice", "spatial", "ponder")
_TINY = 1e-8
_SHORTEST = 1e-12  # length of a vector that has a direction


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
    return _Similarity.apply(output, source)


def diversity(output: Float[Tensor, "P B D"]) -> Float[Tensor, " P"]:
    """Minus the variance of the outputs over the batch; -1 when they vary like the targets."""
    return -output.var(1, correction=0).mean(1)


def mutual_information(
    gates: Float[Tensor, "P T E C B"], active: Float[Tensor, "P T B"]
) -> Float[Tensor, " P"]:
    """H(mean gate) - mean H(gate) in nats: all experts in use, each cell decided; 0 to ln E.

    Over the steps that samples took.
    """
    return _Informed.apply(gates, active)


def emergence(
    passage: Passage, source: Float[Tensor, "P B D"], legacy_log: Bool[Tensor, " P"] | None
) -> Float[Tensor, " P"]:
    """Minus the mutual information as a share of ln E (-1 .. 0), or the ancestor's unbounded form.

    The latter, of who is in *legacy_log*, is minus the log of the mean squared distance to the
    input.
    """
    most = math.log(max(2, passage.gates.shape[2]))  # one expert has nothing to decide
    informed = mutual_information(passage.gates, passage.active) / -most
    if legacy_log is None:
        return informed
    copied = (passage.output - source).square().mean((1, 2))
    legacy = -torch.log(copied + _TINY)
    return torch.where(legacy_log, legacy, informed)


def terms(
    passage: Passage,
    source: Float[Tensor, "P B D"],
    target: Float[Tensor, "P B D"],
    legacy_log: Bool[Tensor, " P"] | None,
) -> dict[str, Float[Tensor, " P"]]:
    """Every term, unweighted, in the order of TERMS."""
    return {
        "reconstruction": reconstruction(passage.output, target),
        "similarity": similarity(passage.output, source),
        "diversity": diversity(passage.output),
        "emergence": emergence(passage, source, legacy_log),
        "lattice": passage.change,
        "spatial": passage.roughness,
        "ponder": passage.ponder,
    }


class _Similarity(torch.autograd.Function):
    """With its gradient of the output; the source has none."""

    @staticmethod
    def forward(
        ctx: Any, output: Float[Tensor, "P B D"], source: Float[Tensor, "P B D"]
    ) -> Float[Tensor, " P"]:
        size = torch.linalg.vector_norm(output, dim=-1, keepdim=True).clamp_min(_SHORTEST)
        outputs, inputs = output / size, F.normalize(source, dim=-1, eps=_SHORTEST)
        unlike = torch.baddbmm(inputs @ inputs.mT, outputs, outputs.mT, beta=-1.0)
        ctx.save_for_backward(outputs, size, unlike)
        return unlike.square().mean((1, 2))

    @staticmethod
    def backward(ctx: Any, of_mean: Float[Tensor, " P"]) -> tuple[Tensor, None]:
        outputs, size, unlike = ctx.saved_tensors
        of_outputs = unlike @ outputs
        along = (of_outputs * outputs).sum(-1, keepdim=True)
        scale = of_mean[:, None, None] * (4.0 / unlike[0].numel()) / size
        return torch.addcmul(of_outputs, outputs, along, value=-1.0).mul_(scale), None


class _Informed(torch.autograd.Function):
    """Mutual information with its gradient (log gate - log mean gate) / taken, of the gates."""

    @staticmethod
    def forward(
        ctx: Any, gates: Float[Tensor, "P T E C B"], active: Float[Tensor, "P T B"]
    ) -> Float[Tensor, " P"]:
        taken = active.sum((1, 2)) * gates.shape[3]
        mean = gates.sum((1, 3, 4)) / taken[:, None]
        of_gates, of_mean = (each.clamp_min(_TINY).log_() for each in (gates, mean))
        ctx.save_for_backward(of_gates, of_mean, taken)
        decided = (gates * of_gates).sum((1, 2, 3, 4)) / taken
        return decided - (mean * of_mean).sum(1)

    @staticmethod
    def backward(ctx: Any, of_sum: Float[Tensor, " P"]) -> tuple[Tensor, None]:
        of_gates, of_mean, taken = ctx.saved_tensors
        scale = (of_sum / taken)[:, None, None, None, None]
        return (of_gates - of_mean[:, None, :, None, None]).mul_(scale), None
