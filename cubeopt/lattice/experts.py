"""Three experts that differ in kind, each with its gradient.

P trials, R rows (cells times samples), S state size, L links.

An expert sees what a cell and the neighbours in its tier show, and proposes a change of the cell's
state. Weights are shared by the cells, but for the strengths of their links; a learned place vector
tells the cells apart.

The gradients are written out because an exchange is where all the time goes: autograd would keep
twice as much, and add up the gradients of what is shown in passes of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cubeopt.lattice.geometry import Geometry
from cubeopt.lattice.layers import Parameter, linear_parameters
from cubeopt.lattice.links import Links, hear, hear_backward
from cubeopt.trial import CubeShape, Expert

Weights = dict[str, Tensor]
Rows = Float[Tensor, "P R S"]
Kept = tuple[Tensor, ...]  # what the gradient needs

_EULER_STEPS = 2  # sub-steps in which the distant expert is integrated over one exchange
_LEAST_TIME = 0.5  # exchanges; half a sub-step would overshoot below it


@dataclass(frozen=True, eq=False)
class Exchanged:
    """What the experts of one exchange share."""

    weights: Weights
    wiring: Geometry
    shown: Rows


@dataclass(frozen=True)
class Proposing:
    """How an expert proposes, and how the gradient of its proposal goes back.

    ``forward`` gives the proposal and what the gradient needs. ``backward`` is given the gradient
    of the proposal: it adds that of what is shown to *of_shown*, in place, and puts those of the
    expert's weights into *of*, by name.
    """

    parameters: Callable[[CubeShape, Geometry], list[Parameter]]
    forward: Callable[[Exchanged], tuple[Rows, Kept]]
    backward: Callable[[Exchanged, Rows, Kept, Rows, Weights], None]


def _local_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    link = _link_parameter("local.link", wiring.local)
    return [link, *_listener("local", shape.state_size, gain=0.5)]


def _local(x: Exchanged) -> tuple[Rows, Kept]:
    """Linear over the nearest cells, each link of its own strength."""
    heard = hear(x.wiring.local, x.weights["local.link"], x.shown)
    return _listen(x, "local", x.shown, heard), (heard,)


def _local_backward(
    x: Exchanged, of_proposal: Rows, kept: Kept, of_shown: Rows, of: Weights
) -> None:
    (heard,) = kept
    _linear_backward(x, "local", of_proposal, of_shown, of)
    of_heard = _heard_backward(x, "local", of_proposal, heard, of)
    link = x.weights["local.link"]
    more, of["local.link"] = hear_backward(of_heard, x.wiring.local, link, x.shown)
    of_shown.add_(more)


def _functional_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    size = shape.state_size
    return [
        *linear_parameters("functional.message", size, size),
        *linear_parameters("functional.loudness", size, size),
        _link_parameter("functional.link", wiring.functional),
        *_listener("functional", size),
    ]


def _functional(x: Exchanged) -> tuple[Rows, Kept]:
    """Messages from the middle tier (Gilmer et al. 2017), each over a link of its own strength.

    What a cell says, and how loud, depends on its state alone: message * sigmoid(loudness).
    """
    message = _linear(x, "functional.message", x.shown)
    loudness = _linear(x, "functional.loudness", x.shown).sigmoid_()
    said = message * loudness
    heard = hear(x.wiring.functional, x.weights["functional.link"], said)
    proposal = _listen(x, "functional", x.shown, heard).tanh_()
    return proposal, (proposal, message, loudness, said, heard)


def _functional_backward(
    x: Exchanged, of_proposal: Rows, kept: Kept, of_shown: Rows, of: Weights
) -> None:
    proposal, message, loudness, said, heard = kept
    inner = torch.ops.aten.tanh_backward(of_proposal, proposal)
    _linear_backward(x, "functional", inner, of_shown, of)
    of_heard = _heard_backward(x, "functional", inner, heard, of)
    link = x.weights["functional.link"]
    of_said, of["functional.link"] = hear_backward(of_heard, x.wiring.functional, link, said)
    of_loudness = torch.ops.aten.sigmoid_backward(message.mul(of_said), loudness)
    _linear_backward(x, "functional.loudness", of_loudness, of_shown, of)
    _linear_backward(x, "functional.message", of_said.mul_(loudness), of_shown, of)


def _distant_parameters(shape: CubeShape, wiring: Geometry) -> list[Parameter]:
    size = shape.state_size
    return [
        _link_parameter("distant.link", wiring.distant),
        *_listener("distant", size),
        # Its square and a little more is the time constant of a number of the state: 1 at first.
        Parameter("distant.time", (size,), 0.0, fill=math.sqrt(1.0 - _LEAST_TIME), decays=False),
    ]


def _distant(x: Exchanged) -> tuple[Rows, Kept]:
    """A continuous-time cell driven over sparse long links, integrated with two Euler steps.

    du/dt = (tanh(W [u, heard] + b) - u) / time, from u = what the cell shows, over one exchange
    (Hasani et al. 2021 give the family of equations).
    """
    heard = hear(x.wiring.distant, x.weights["distant.link"], x.shown)
    rate = x.weights["distant.rate"][:, None]
    first = _listen(x, "distant", x.shown, heard).tanh_()
    first_way = first - x.shown
    inside = torch.addcmul(x.shown, first_way, rate)
    second = _listen(x, "distant", inside, heard).tanh_()
    second_way = second - inside
    proposal = (inside - x.shown).addcmul_(second_way, rate)
    return proposal, (heard, first, first_way, inside, second, second_way)


def _distant_backward(
    x: Exchanged, of_proposal: Rows, kept: Kept, of_shown: Rows, of: Weights
) -> None:
    heard, first, first_way, inside, second, second_way = kept
    weight, rate = x.weights["distant.weight"], x.weights["distant.rate"][:, None]
    of_rate = (of_proposal * second_way).sum(1)
    of_way = of_proposal * rate
    inner = torch.ops.aten.tanh_backward(of_way, second)
    of_inside = (of_proposal - of_way).baddbmm_(inner, weight.mT)
    of_weight = inside.mT @ inner
    of_rate += torch.mul(of_inside, first_way, out=of_way).sum(1)
    torch.mul(of_inside, rate, out=of_way)
    first_inner = torch.ops.aten.tanh_backward(of_way, first)
    of_shown.add_(of_inside.sub_(of_way).sub_(of_proposal))
    of_shown.baddbmm_(first_inner, weight.mT)
    of["distant.weight"] = of_weight.baddbmm_(x.shown.mT, first_inner)
    inner.add_(first_inner)
    of["distant.bias"] = inner.sum(1)
    of["distant.rate"] = of_rate
    of_heard = _heard_backward(x, "distant", inner, heard, of)
    link = x.weights["distant.link"]
    more, of["distant.link"] = hear_backward(of_heard, x.wiring.distant, link, x.shown)
    of_shown.add_(more)


def prepared(weights: Weights) -> Weights:
    """*weights* with what is made of them once for all exchanges."""
    if "distant.time" not in weights:
        return weights
    time = weights["distant.time"].square() + _LEAST_TIME
    # Of the way to its target, how much a number goes in one sub-step.
    return {**weights, "distant.rate": 1.0 / (time * _EULER_STEPS)}


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


def _linear(x: Exchanged, name: str, rows: Rows) -> Rows:
    return torch.baddbmm(x.weights[f"{name}.bias"][:, None], rows, x.weights[f"{name}.weight"])


def _listen(x: Exchanged, name: str, rows: Rows, heard: Rows) -> Rows:
    return _linear(x, name, rows).baddbmm_(heard, x.weights[f"{name}.heard"])


def _linear_backward(x: Exchanged, name: str, inner: Rows, of_shown: Rows, of: Weights) -> None:
    """The gradient of a linear layer over what is shown."""
    of[f"{name}.bias"] = inner.sum(1)
    of[f"{name}.weight"] = x.shown.mT @ inner
    of_shown.baddbmm_(inner, x.weights[f"{name}.weight"].mT)


def _heard_backward(x: Exchanged, name: str, inner: Rows, heard: Rows, of: Weights) -> Rows:
    """The gradient of what was *heard*; that of its weights goes into *of*."""
    of[f"{name}.heard"] = heard.mT @ inner
    return inner @ x.weights[f"{name}.heard"].mT
