"""Three experts that differ in kind, each with its gradient.

P trials, K tiers, R rows (cells times samples), S state size, O outputs of a layer.

An expert sees what a cell and the neighbours in its tier show, and proposes a change of the cell's
state. Weights are shared by the cells, but for the strengths of their links; a learned place vector
tells the cells apart.

The gradients are written out because an exchange is where all the time goes: autograd would keep
twice as much, and add up the gradients of what is shown and of the weights in passes of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Gradients, Parameter, linear_parameters
from cubeopt.lattice.links import Links, Strengths, hear, hear_backward, strengths
from cubeopt.trial import CubeShape, Expert

Weights = dict[str, Tensor]
Rows = Float[Tensor, "P R S"]
Kept = tuple[Tensor, ...]  # what the gradient needs

_EULER_STEPS = 2  # sub-steps in which the distant expert is integrated over one exchange
_LOCAL, _DISTANT = 0, 1  # tiers of Geometry.of_shown
_LEAST_TIME = 0.5  # exchanges; half a sub-step would overshoot below it


@dataclass(frozen=True, eq=False)
class Made:
    """What is made of the weights once for all exchanges of a pass."""

    wiring: Geometry
    weights: Weights
    of_shown: Strengths | None  # of the links to what is shown; None if no expert hears over them
    of_said: Strengths | None
    one: Float[Tensor, ""]
    ones: Float[Tensor, "P 1 R"]  # sums rows, as a factor of a product
    gradients: Gradients


@dataclass(frozen=True, eq=False)
class Exchanged:
    """What the experts of one exchange share."""

    made: Made
    shown: Rows
    heard: Float[Tensor, "K P R S"] | None  # of what is shown, by tier (see Geometry.of_shown)

    @property
    def weights(self) -> Weights:
        return self.made.weights

    @property
    def gradients(self) -> Gradients:
        return self.made.gradients

    def heard_by(self, tier: int) -> Rows:
        """What is heard of what is shown, over the links of a *tier*."""
        assert self.heard is not None
        return self.heard[tier]


@dataclass(frozen=True, eq=False)
class Back:
    """The gradients of an exchange on their way back; an expert adds to them in place."""

    proposal: Rows  # of what the expert proposed
    shown: Rows
    heard: Float[Tensor, "K P R S"]  # each tier is set by the one expert that hears over it


@dataclass(frozen=True)
class Proposing:
    """How an expert proposes, and how the gradient of its proposal goes back.

    ``forward`` puts the proposal into the rows it is given, and gives what the gradient needs.
    ``backward`` is given the gradients, the proposal and what ``forward`` gave.
    """

    parameters: Callable[[CubeShape, Geometry], list[Parameter]]
    forward: Callable[[Exchanged, Rows], Kept]
    backward: Callable[[Exchanged, Back, Rows, Kept], None]


def _local_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    link = _link_parameter("local.link", wiring.local)
    return [link, *_listener("local", shape.state_size, gain=0.5)]


def _local(x: Exchanged, proposal: Rows) -> Kept:
    """Linear over the nearest cells, each link of its own strength."""
    _listen(x, "local", x.shown, x.heard_by(_LOCAL), proposal)
    return ()


def _local_backward(x: Exchanged, back: Back, proposal: Rows, kept: Kept) -> None:
    _linear_backward(x, "local", back.proposal, back.shown)
    _heard_backward(x, "local", back.proposal, x.heard_by(_LOCAL), back.heard[_LOCAL])


def _functional_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    size = shape.state_size
    return [
        *linear_parameters("functional.speech", size, 2 * size),
        _link_parameter("functional.link", wiring.functional),
        *_listener("functional", size),
    ]


def _functional(x: Exchanged, proposal: Rows) -> Kept:
    """Messages from the middle tier (Gilmer et al. 2017), each over a link of its own strength.

    What a cell says, and how loud, depends on its state alone: message * sigmoid(loudness), the
    two halves of its speech (a gated linear unit, Dauphin et al. 2017).
    """
    assert x.made.of_said is not None
    speech = _linear(x, "functional.speech", x.shown)
    said = F.glu(speech)
    (heard,) = hear(x.made.wiring.of_said, x.made.of_said, said)
    _listen(x, "functional", x.shown, heard, proposal).tanh_()
    return speech, said, heard


def _functional_backward(x: Exchanged, back: Back, proposal: Rows, kept: Kept) -> None:
    assert x.made.of_said is not None
    speech, said, heard = kept
    inner = torch.ops.aten.tanh_backward(back.proposal, proposal)
    _linear_backward(x, "functional", inner, back.shown)
    of_heard = torch.empty_like(heard)
    _heard_backward(x, "functional", inner, heard, of_heard)
    hearing = x.made.wiring.of_said
    of_said, (of_link,) = hear_backward(of_heard[None], hearing, x.made.of_said, said)
    x.gradients.add("functional.link", of_link)
    of_speech = torch.ops.aten.glu_backward(of_said, speech, -1)
    _linear_backward(x, "functional.speech", of_speech, back.shown)


def _distant_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    size = shape.state_size
    return [
        _link_parameter("distant.link", wiring.distant),
        *_listener("distant", size),
        # Its square and a little more is the time constant of a number of the state: 1 at first.
        Parameter("distant.time", (size,), 0.0, fill=math.sqrt(1.0 - _LEAST_TIME), decays=False),
    ]


def _distant(x: Exchanged, proposal: Rows) -> Kept:
    """A continuous-time cell driven over sparse long links, integrated with two Euler steps.

    du/dt = (tanh(W [u, heard] + b) - u) / time, from u = what the cell shows, over one exchange
    (Hasani et al. 2021 give the family of equations).
    """
    heard, rate = x.heard_by(_DISTANT), x.weights["distant.rate"][:, None]
    first = _listen(x, "distant", x.shown, heard).tanh_()
    first_way = first - x.shown
    inside = torch.addcmul(x.shown, first_way, rate)
    second = _listen(x, "distant", inside, heard).tanh_()
    second_way = second - inside
    torch.add(first_way, second_way, out=proposal).mul_(rate)
    return first, first_way, inside, second, second_way


def _distant_backward(x: Exchanged, back: Back, proposal: Rows, kept: Kept) -> None:
    first, first_way, inside, second, second_way = kept
    rate, stay = (x.weights[f"distant.{name}"][:, None] for name in ("rate", "stay"))
    weight = x.weights["distant.weight"].mT
    x.gradients.add_multiple("distant.rate", back.proposal, second_way)
    of_way = back.proposal * rate
    inner = torch.ops.aten.tanh_backward(of_way, second)
    of_inside = (back.proposal - of_way).baddbmm_(inner, weight)
    x.gradients.add_product("distant.weight", inside.mT, inner)
    x.gradients.add_multiple("distant.rate", of_inside, first_way)
    torch.mul(of_inside, rate, out=of_way)
    first_inner = torch.ops.aten.tanh_backward(of_way, first)
    back.shown.addcmul_(of_inside, stay).sub_(back.proposal).baddbmm_(first_inner, weight)
    x.gradients.add_product("distant.weight", x.shown.mT, first_inner)
    inner.add_(first_inner)
    _bias_backward(x, "distant", inner)
    _heard_backward(x, "distant", inner, x.heard_by(_DISTANT), back.heard[_DISTANT])


class _Rate(torch.autograd.Function):
    """Of the way to its target, how much a number of the state goes in one sub-step.

    Its gradient is not that of what it gives, but the sum that the exchanges leave in *gradients*.
    """

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, time: Float[Tensor, "P S"]) -> Float[Tensor, "P S"]:
        rate = 1.0 / (_EULER_STEPS * (time.square() + _LEAST_TIME))
        ctx.gradients = gradients
        ctx.save_for_backward(time, rate)
        ctx.set_materialize_grads(False)
        return rate

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[None, Tensor | None]:
        time, rate = ctx.saved_tensors
        of_rate = ctx.gradients.taken("distant.rate")
        if of_rate is None:
            return None, None
        return None, of_rate.sum(1) * rate.square() * time * (-2.0 * _EULER_STEPS)


def made(wiring: Geometry, weights: Weights, gradients: Gradients, rows: int) -> Made:
    """Get ready for the exchanges of one pass, of so many *rows*."""
    some = next(iter(weights.values()))
    none = some.new_empty(len(some), 0)
    links = {name: weights.get(f"{name}.link", none) for name in Expert}
    own = dict(weights)
    if "distant.time" in weights:
        own["distant.rate"] = _Rate.apply(gradients, own.pop("distant.time"))
        own["distant.stay"] = 1.0 - own["distant.rate"].detach()
    of_shown = [links[Expert.LOCAL], links[Expert.DISTANT]]
    of_said = [links[Expert.FUNCTIONAL]]
    with torch.no_grad():
        return Made(
            wiring,
            own,
            strengths(wiring.of_shown, of_shown) if any(x.numel() for x in of_shown) else None,
            strengths(wiring.of_said, of_said) if of_said[0].numel() else None,
            some.new_ones(()),
            some.new_ones(1, 1, rows).expand(len(some), 1, rows),
            gradients,
        )


PROPOSING = {
    Expert.LOCAL: Proposing(_local_parameters, _local, _local_backward),
    Expert.FUNCTIONAL: Proposing(_functional_parameters, _functional, _functional_backward),
    Expert.DISTANT: Proposing(_distant_parameters, _distant, _distant_backward),
}


def _link_parameter(name: str, links: Links) -> Parameter:
    """One strength for each link, so that a cell hears about as much as one speaker shows."""
    return Parameter(name, (len(links),), math.sqrt(links.cells / len(links)))


def _listener(name: str, size: int, gain: float = 1.0) -> list[Parameter]:
    """A linear layer over what a cell shows itself (weight) and over what it heard (heard)."""
    own = linear_parameters(name, size, size, gain / math.sqrt(2.0))
    return [*own, Parameter(f"{name}.heard", (size, size), own[0].scale)]


def _linear(
    x: Exchanged, name: str, rows: Rows, into: Rows | None = None
) -> Float[Tensor, "P R O"]:
    bias, weight = (x.weights[f"{name}.{part}"] for part in ("bias", "weight"))
    return torch.baddbmm(bias[:, None], rows, weight, out=into)


def _listen(x: Exchanged, name: str, rows: Rows, heard: Rows, into: Rows | None = None) -> Rows:
    return _linear(x, name, rows, into).baddbmm_(heard, x.weights[f"{name}.heard"])


def _bias_backward(x: Exchanged, name: str, inner: Float[Tensor, "P R O"]) -> None:
    x.gradients.add_product(f"{name}.bias", x.made.ones, inner)


def _linear_backward(
    x: Exchanged, name: str, inner: Float[Tensor, "P R O"], of_shown: Rows
) -> None:
    """The gradient of a linear layer over what is shown."""
    _bias_backward(x, name, inner)
    x.gradients.add_product(f"{name}.weight", x.shown.mT, inner)
    of_shown.baddbmm_(inner, x.weights[f"{name}.weight"].mT)


def _heard_backward(x: Exchanged, name: str, inner: Rows, heard: Rows, of_heard: Rows) -> None:
    """The gradient of what was *heard* goes into *of_heard*."""
    x.gradients.add_product(f"{name}.heard", heard.mT, inner)
    torch.bmm(inner, x.weights[f"{name}.heard"].mT, out=of_heard)
