"""What a batch says of G trials: their losses, and the gradients of their weights.

A function of tensors. All that changes from step to step comes in as one, and which operations
there are depends only on which tensors there are, so that a GPU can record them once and repeat
them (see `captured`).

G trials, B samples, D embedding size, N weights of a trial, K terms of the loss, R numbers.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from cubeopt.lattice.cube import Cube
from cubeopt.lattice.pack import Columns
from cubeopt.training import losses, noise, weighting
from cubeopt.training.noise import Dropout, InputNoise
from cubeopt.training.weighting import Factors


class Given(NamedTuple):
    """All that a batch's gradient depends on; None is what no trial makes use of."""

    weights: Float[Tensor, "G N"]
    source: Float[Tensor, "G B D"]
    target: Float[Tensor, "G B D"]
    noise: InputNoise | None
    dropout: Dropout | None
    knobs: Columns
    factors: Factors


class Found(NamedTuple):
    """What came of it."""

    gradient: Float[Tensor, "G N"]
    numbers: Float[Tensor, "G R"]  # what the tally adds up
    terms: Float[Tensor, "G K"]
    weighted: Float[Tensor, "G K"]
    norms: Float[Tensor, "G K"] | None  # of the terms' gradients, where some trial balances them


def found(cube: Cube, given: Given) -> Found:
    """One pass through *cube* and back."""
    weights = given.weights.detach().requires_grad_()
    shown = noise.with_input_noise(given.source, given.noise)
    kept = noise.kept(cube.shape, given.dropout)
    passage = cube.forward(weights, shown, given.knobs.halting_threshold, kept)
    each = losses.terms(passage, given.source, given.target, given.knobs.legacy_log)
    terms = torch.stack([each[name] for name in losses.TERMS], dim=1)
    coefficients = given.factors.coefficients()
    weighted = coefficients * terms
    loss = given.factors.total(weighted)
    norms = None if given.factors.balanced is None else _norms(each, passage.output)
    (gradient,) = torch.autograd.grad(loss.sum(), weights)
    numbers = torch.cat([loss[:, None], terms, weighted, coefficients], dim=1).detach()
    return Found(gradient, numbers, terms.detach(), weighted.detach(), norms)


def _norms(
    each: Mapping[str, Float[Tensor, " G"]], output: Float[Tensor, "G B D"]
) -> Float[Tensor, "G K"]:
    """The norm of each term's gradient by the weights that made *output*, where all of them meet.

    0 of the terms that do not look at the output. The way back ends before the rest of the cube.
    """
    weights = _last_weights(output)
    norms = torch.zeros(len(output), len(losses.TERMS), dtype=output.dtype, device=output.device)
    for place, name in enumerate(losses.TERMS):
        if name in weighting.OF_OUTPUT:
            (gradient,) = torch.autograd.grad(each[name].sum(), weights, retain_graph=True)
            norms[:, place] = gradient.flatten(1).norm(dim=1)
    return norms


def _last_weights(output: Float[Tensor, "G B D"]) -> GradientEdge:
    """The second factor of the product that *output* is, `leave.weight`, in autograd's graph."""
    node = output.grad_fn
    while node is not None and not node.name().startswith("Baddbmm"):
        node = node.next_functions[0][0]
    assert node is not None, "the cube's output is no batched product (see layers.linear)"
    factor, number = node.next_functions[2]
    assert factor is not None
    return GradientEdge(factor, number)
