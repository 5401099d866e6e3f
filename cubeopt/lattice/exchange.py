"""One exchange between all cells: each listens, and a gate mixes what its experts propose.

P trials, C cells, B samples, R rows (cells times samples), S state size, E experts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cubeopt.lattice.experts import PROPOSING, Exchanged, Weights, prepared
from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Parameter, linear_parameters
from cubeopt.trial import CubeShape

State = Float[Tensor, "P C B S"]


class Exchange(NamedTuple):
    """What one exchange gives."""

    state: State  # afterwards
    share: Float[Tensor, "P E C B"]  # of each expert in the move of a cell; 0 where it stood still
    change: Float[Tensor, " P"]  # mean square of the moves


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


def exchanging(shape: CubeShape, wiring: Geometry, weights: Weights) -> Exchanging:
    """The exchange of a lattice with these *weights*."""
    given = prepared({each.name: weights[each.name] for each in parameters(shape, wiring)})
    given.pop("distant.time", None)
    names, tensors = list(given), list(given.values())

    def exchange(state: Tensor, kept: Tensor | None, going: Tensor | None) -> Exchange:
        return Exchange(*_Exchange.apply(shape, wiring, names, state, kept, going, *tensors))

    return exchange


def _is_gated(shape: CubeShape) -> bool:
    return shape.gate == "learned" and len(shape.experts) > 1


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        shape: CubeShape,
        wiring: Geometry,
        names: list[str],
        state: Tensor,
        kept: Tensor | None,
        going: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = dict(zip(names, tensors, strict=True))
        scale = _scale(state)
        by = scale if kept is None else scale * kept
        shown = torch.addcmul(weights["place.vector"][:, :, None], state, by).flatten(1, 2)
        x = Exchanged(weights, wiring, shown)
        share = _shares(shape, weights, shown)
        if going is not None:
            share = (share.unflatten(2, state.shape[1:3]) * going[:, None, None]).flatten(2)
        proposals, needed = [], []
        for expert in shape.experts:
            proposal, saved = PROPOSING[expert].forward(x)
            proposals.append(proposal)
            needed.append(saved)
        move = proposals[0] * share[:, 0, :, None]
        for e, proposal in enumerate(proposals[1:], start=1):
            move.addcmul_(proposal, share[:, e, :, None])
        ctx.shape, ctx.wiring, ctx.names = shape, wiring, names
        ctx.counts = [len(saved) for saved in needed]
        flat = [tensor for saved in needed for tensor in saved]
        ctx.save_for_backward(state, kept, scale, shown, share, move, *proposals, *flat, *tensors)
        change = torch.linalg.vector_norm(move, dim=(1, 2)).square() / move[0].numel()
        return state + move.view(state.shape), share.unflatten(2, state.shape[1:3]), change

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        state, kept, scale, shown, share, move, *rest = ctx.saved_tensors
        of_state, of_share, of_change = gradients
        count = len(ctx.shape.experts)
        proposals, flat = rest[:count], iter(rest[count : count + sum(ctx.counts)])
        x = Exchanged(
            dict(zip(ctx.names, rest[count + sum(ctx.counts) :], strict=True)), ctx.wiring, shown
        )
        of: Weights = {}
        by_move = of_change * (2.0 / move[0].numel())
        of_move = torch.addcmul(of_state.flatten(1, 2), move, by_move[:, None, None])
        of_share = of_share.flatten(2).clone()
        of_shown = torch.zeros_like(shown)
        for e, expert in enumerate(ctx.shape.experts):
            saved = tuple(next(flat) for _ in range(ctx.counts[e]))
            of_share[:, e] += (of_move * proposals[e]).sum(-1)
            of_proposal = of_move * share[:, e, :, None]
            PROPOSING[expert].backward(x, of_proposal, saved, of_shown, of)
        if _is_gated(ctx.shape):
            _shares_backward(x, of_share, share, of_shown, of)
        of_seen = of_shown.view(state.shape)
        of["place.vector"] = of_seen.sum(2)
        if kept is not None:
            of_seen = of_seen * kept
        of_before = _scale_backward(of_seen, state, scale).add_(of_state)
        return None, None, None, of_before, None, None, *(of[name] for name in ctx.names)


def _scale(state: State) -> Float[Tensor, "P C B 1"]:
    """What a state is multiplied with to be shown.

    Bounded like a norm for large states, linear for small ones: a norm proper would keep only the
    sign of the single number written on a cell.
    """
    size = torch.linalg.vector_norm(state, dim=-1, keepdim=True)
    return torch.rsqrt(1.0 + size.square() / state.shape[-1])


def _scale_backward(of_shown: State, state: State, scale: Tensor) -> State:
    """The gradient of the state through state * scale(state)."""
    along = (of_shown * state).sum(-1, keepdim=True) * scale * scale * scale / -state.shape[-1]
    return (of_shown * scale).addcmul_(state, along)


def _shares(
    shape: CubeShape, weights: Weights, shown: Float[Tensor, "P R S"]
) -> Float[Tensor, "P E R"]:
    count = len(shape.experts)
    if not _is_gated(shape):
        return shown.new_full((len(shown), count, shown.shape[1]), 1.0 / count)
    scores = torch.baddbmm(weights["gate.bias"][:, None], shown, weights["gate.weight"])
    # Experts before rows: a softmax over a last axis of three would not use the vector units.
    return scores.mT.contiguous().softmax(1)


def _shares_backward(
    x: Exchanged,
    of_share: Float[Tensor, "P E R"],
    share: Float[Tensor, "P E R"],
    of_shown: Float[Tensor, "P R S"],
    of: Weights,
) -> None:
    """Add to *of_shown*; a cell that stood still has shares of 0, and so no gradient."""
    of_score = share * (of_share - (share * of_share).sum(1, keepdim=True))
    of["gate.bias"] = of_score.sum(2)
    of["gate.weight"] = (of_score @ x.shown).mT
    of_shown.baddbmm_(of_score.mT, x.weights["gate.weight"].mT)
