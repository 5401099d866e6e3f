"""One exchange between all cells: each listens, and a gate mixes what its experts propose.

P trials, C cells, B samples, R rows (cells times samples), S state size, E experts.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cubeopt.lattice.experts import PROPOSING, Back, Exchanged, Made, Weights, made
from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Gradients, Parameter, linear_parameters
from cubeopt.lattice.links import hear, hear_backward
from cubeopt.trial import CubeShape, Expert

State = Float[Tensor, "P C B S"]


class Exchange(NamedTuple):
    """What one exchange gives."""

    state: State  # afterwards
    share: Float[Tensor, "P E C B"]  # of each expert in the move of a cell; 0 where it stood still
    change: Float[Tensor, " P"]  # sum of the squares of the moves


# Of the state, what dropout multiplies the shown states with, and who still goes on.
Exchanging = Callable[[State, State | None, Bool[Tensor, "P B"] | None], Exchange]


def parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    """The weights of an exchange: what tells the cells apart, the experts, their gate."""
    size = shape.state_size
    return [
        Parameter("place.vector", (shape.cells, size), 0.5, decays=False),
        *(each for name in shape.experts for each in PROPOSING[name].parameters(shape, wiring)),
        *(linear_parameters("gate", size, len(shape.experts)) if _is_gated(shape) else []),
    ]


def exchanging(
    shape: CubeShape, wiring: Geometry, weights: Weights, gradients: Gradients, rows: int
) -> Exchanging:
    """The exchange of a lattice with these *weights*, whose gradients it leaves in *gradients*."""
    used = {each.name: weights[each.name] for each in parameters(shape, wiring)}
    ready = made(wiring, used, gradients, rows)
    names, tensors = list(ready.weights), list(ready.weights.values())

    def exchange(state: Tensor, kept: Tensor | None, going: Tensor | None) -> Exchange:
        return Exchange(*_Exchange.apply(shape, ready, names, state, kept, going, *tensors))

    return exchange


def _is_gated(shape: CubeShape) -> bool:
    return shape.gate == "learned" and len(shape.experts) > 1


class _Exchange(torch.autograd.Function):
    """The weights are inputs, so that autograd asks for theirs after all exchanges.

    Their gradients are not given, but added up by `Gradients`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shape: CubeShape,
        made: Made,
        names: list[str],
        state: Tensor,
        kept: Tensor | None,
        going: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        made = replace(made, weights=dict(zip(names, tensors, strict=True)))
        inverse = _inverse(state, made.one)
        scale = inverse.rsqrt()
        by = scale if kept is None else scale * kept
        shown = torch.addcmul(made.weights["place.vector"][:, :, None], state, by).flatten(1, 2)
        heard = None
        if made.of_shown is not None:
            heard = hear(made.wiring.of_shown, made.of_shown, shown)
        x = Exchanged(made, shown, heard)
        share = _shares(shape, made.weights, shown)
        if going is not None:
            share = (share.unflatten(2, state.shape[1:3]) * going[:, None, None]).flatten(2)
        proposals = shown.new_empty(len(shape.experts), *shown.shape)
        needed = [
            PROPOSING[expert].forward(x, proposal)
            for expert, proposal in zip(shape.experts, proposals, strict=True)
        ]
        move = proposals[0] * share[:, 0, :, None]
        for e, proposal in enumerate(proposals[1:], start=1):
            move.addcmul_(proposal, share[:, e, :, None])
        ctx.shape, ctx.made, ctx.names = shape, made, names
        ctx.counts = [len(saved) for saved in needed]
        flat = [tensor for saved in needed for tensor in saved]
        ctx.save_for_backward(
            *(state, kept, inverse, scale, shown, heard, share, move, proposals), *flat, *tensors
        )
        change = torch.linalg.vector_norm(move, dim=(1, 2)).square()
        return state + move.view(state.shape), share.unflatten(2, state.shape[1:3]), change

    @staticmethod
    def backward(ctx: Any, *found: Tensor) -> tuple[Tensor | None, ...]:
        state, kept, inverse, scale, shown, heard, share, move, proposals, *rest = ctx.saved_tensors
        of_state, of_share, of_change = found
        flat, weights = iter(rest), rest[sum(ctx.counts) :]
        made = replace(ctx.made, weights=dict(zip(ctx.names, weights, strict=True)))
        x = Exchanged(made, shown, heard)
        of_move = torch.addcmul(of_state.flatten(1, 2), move, of_change[:, None, None], value=2.0)
        of_shares = (proposals * of_move).sum(-1).transpose(0, 1) + of_share.flatten(2)
        of_shown = _shares_backward(ctx.shape, x, of_shares, share)
        of_proposals = of_move * share.transpose(0, 1)[..., None]
        of_heard = shown.new_empty(len(made.wiring.of_shown.tiers), *shown.shape)
        for e, expert in enumerate(ctx.shape.experts):
            saved = tuple(next(flat) for _ in range(ctx.counts[e]))
            back = Back(of_proposals[e], of_shown, of_heard)
            PROPOSING[expert].backward(x, back, proposals[e], saved)
        _hearing_backward(ctx.shape, x, of_heard, of_shown)
        of_seen = of_shown.view(state.shape)
        made.gradients.add("place.vector", of_seen.sum(2))
        if kept is not None:
            of_seen = of_seen * kept
        of_before = _shown_backward(of_seen, state, inverse, scale, of_state)
        return None, None, None, of_before, None, None, *(None for _ in ctx.names)


def _inverse(state: State, one: Float[Tensor, ""]) -> Float[Tensor, "P C B 1"]:
    """One over the square of what a state is multiplied with to be shown.

    The product is bounded like a norm for large states, linear for small ones: a norm proper would
    keep only the sign of the single number written on a cell.
    """
    size = torch.linalg.vector_norm(state, dim=-1, keepdim=True)
    return torch.addcmul(one, size, size, value=1.0 / state.shape[-1])


def _shown_backward(
    of_shown: State, state: State, inverse: Tensor, scale: Tensor, more: State
) -> State:
    """The gradient of the state through state * scale, and *more*."""
    along = (of_shown * state).sum(-1, keepdim=True).div_(inverse)
    inner = torch.addcmul(of_shown, state, along, value=-1.0 / state.shape[-1])
    return torch.addcmul(more, inner, scale)


def _shares(
    shape: CubeShape, weights: Weights, shown: Float[Tensor, "P R S"]
) -> Float[Tensor, "P E R"]:
    count = len(shape.experts)
    if not _is_gated(shape):
        return shown.new_full((len(shown), count, shown.shape[1]), 1.0 / count)
    # Experts before rows: a softmax over a last axis of three would not use the vector units.
    scores = torch.baddbmm(weights["gate.bias"][..., None], weights["gate.weight"].mT, shown.mT)
    return scores.softmax(1)


def _shares_backward(
    shape: CubeShape, x: Exchanged, of_share: Float[Tensor, "P E R"], share: Float[Tensor, "P E R"]
) -> Float[Tensor, "P R S"]:
    """The gradient of what is shown; a cell that stood still has shares of 0, and so none."""
    if not _is_gated(shape):
        return torch.zeros_like(x.shown)
    of_score = torch.ops.aten._softmax_backward_data(of_share, share, 1, share.dtype)
    x.gradients.add_product("gate.bias", of_score, x.made.ones.mT)
    x.gradients.add_product("gate.weight", x.shown.mT, of_score.mT)
    return of_score.mT @ x.weights["gate.weight"].mT


def _hearing_backward(
    shape: CubeShape, x: Exchanged, of_heard: Float[Tensor, "K P R S"], of_shown: Tensor
) -> None:
    """Add to *of_shown* what comes back over the links."""
    if x.made.of_shown is None:
        return
    hearing = x.made.wiring.of_shown
    more, of_links = hear_backward(of_heard, hearing, x.made.of_shown, x.shown)
    of_shown.add_(more)
    for expert, of_link in zip((Expert.LOCAL, Expert.DISTANT), of_links, strict=True):
        if expert in shape.experts:
            x.gradients.add(f"{expert}.link", of_link)
