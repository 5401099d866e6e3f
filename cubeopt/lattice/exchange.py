"""One exchange between all cells: each listens, and a gate mixes what its experts propose.

P trials, C cells, B samples, R rows (cells times samples), S state size, E experts.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.lattice.experts import PROPOSING, Kept, Weights
from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Parameter, linear_parameters
from cubeopt.trial import CubeShape

Exchange = Callable[
    [Float[Tensor, "P C B S"], Float[Tensor, "P C B S"] | None],
    tuple[Float[Tensor, "P C B S"], Float[Tensor, "P E C B"]],
]


def parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    """The weights of an exchange: what tells the cells apart, the experts, their gate."""
    size = shape.state_size
    return [
        Parameter("place.vector", (shape.cells, size), 0.5, decays=False),
        *(each for name in shape.experts for each in PROPOSING[name].parameters(shape, wiring)),
        *(linear_parameters("gate", size, len(shape.experts)) if _is_gated(shape) else []),
    ]


def exchanger(shape: CubeShape, wiring: Geometry, weights: Weights) -> Exchange:
    """A function of the state, and of what dropout multiplies the shown states with.

    It gives the move of every cell and the share of each expert in it; shares sum to 1.
    """
    names = [each.name for each in parameters(shape, wiring)]
    tensors = [weights[name] for name in names]

    def exchange(state: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        return _Exchange.apply(shape, wiring, names, state, kept, *tensors)

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
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights = dict(zip(names, tensors, strict=True))
        scale = _scale(state)
        by = scale if kept is None else scale * kept
        shown = torch.addcmul(weights["place.vector"][:, :, None], state, by).flatten(1, 2)
        share = _shares(shape, weights, shown)
        move = torch.zeros_like(shown)
        proposals, needed = [], []
        for expert, part in zip(shape.experts, share.unbind(1), strict=True):
            proposal, saved = PROPOSING[expert].forward(weights, wiring, shown)
            move.addcmul_(proposal, part[..., None])
            proposals.append(proposal)
            needed.append(saved)
        ctx.shape, ctx.wiring, ctx.names = shape, wiring, names
        ctx.counts = [len(saved) for saved in needed]
        flat = [tensor for saved in needed for tensor in saved]
        ctx.save_for_backward(state, kept, scale, shown, share, *proposals, *flat, *tensors)
        return move.view(state.shape), share.unflatten(2, state.shape[1:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        state, kept, scale, shown, share, *rest = ctx.saved_tensors
        count = len(ctx.shape.experts)
        proposals, flat = rest[:count], rest[count : count + sum(ctx.counts)]
        weights = dict(zip(ctx.names, rest[count + sum(ctx.counts) :], strict=True))
        needed = _pieces(flat, ctx.counts)
        of_move, of_gates = gradients[0].flatten(1, 2), gradients[1].flatten(2)
        of: Weights = {}
        of_shown = torch.zeros_like(shown)
        of_share = torch.empty_like(share)
        for e, expert in enumerate(ctx.shape.experts):
            of_share[:, e] = (of_move * proposals[e]).sum(-1)
            of_proposal = of_move * share[:, e, :, None]
            PROPOSING[expert].backward(
                of_proposal, needed[e], weights, ctx.wiring, shown, of_shown, of
            )
        if _is_gated(ctx.shape):
            _shares_backward(of_share + of_gates, share, weights, shown, of_shown, of)
        of_seen = of_shown.view(state.shape)
        of["place.vector"] = of_seen.sum(2)
        of_state = _scale_backward(of_seen if kept is None else of_seen * kept, state, scale)
        return None, None, None, of_state, None, *(of[name] for name in ctx.names)


def _pieces(flat: list[Tensor], counts: list[int]) -> list[Kept]:
    at = iter(flat)
    return [tuple(next(at) for _ in range(count)) for count in counts]


def _scale(state: Float[Tensor, "P C B S"]) -> Float[Tensor, "P C B 1"]:
    """What a state is multiplied with to be shown.

    Bounded like a norm for large states, linear for small ones: a norm proper would keep only the
    sign of the single number written on a cell.
    """
    return torch.rsqrt(1.0 + state.square().mean(-1, keepdim=True))


def _scale_backward(
    of_shown: Float[Tensor, "P C B S"], state: Float[Tensor, "P C B S"], scale: Tensor
) -> Float[Tensor, "P C B S"]:
    """The gradient of the state through state * scale(state)."""
    along = (of_shown * state).sum(-1, keepdim=True) * scale.pow(3) / -state.shape[-1]
    return (of_shown * scale).addcmul_(state, along)


def _shares(
    shape: CubeShape, weights: Weights, shown: Float[Tensor, "P R S"]
) -> Float[Tensor, "P E R"]:
    count = len(shape.experts)
    if not _is_gated(shape):
        return shown.new_full((len(shown), count, shown.shape[1]), 1.0 / count)
    # Experts before rows: a softmax over a last axis of three would not use the vector units.
    bias = weights["gate.bias"][..., None]
    return torch.baddbmm(bias, weights["gate.weight"].mT, shown.mT).softmax(1)


def _shares_backward(
    of_share: Float[Tensor, "P E R"],
    share: Float[Tensor, "P E R"],
    weights: Weights,
    shown: Float[Tensor, "P R S"],
    of_shown: Float[Tensor, "P R S"],
    of: Weights,
) -> None:
    of_score = share * (of_share - (share * of_share).sum(1, keepdim=True))
    of["gate.bias"] = of_score.sum(2)
    of["gate.weight"] = (of_score @ shown).mT
    of_shown.baddbmm_(of_score.mT, weights["gate.weight"].mT)
